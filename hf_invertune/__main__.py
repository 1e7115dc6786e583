"""`python -m hf_invertune` is `hf-invertune`."""

from .cli.main import main


if __name__ == "__main__":
    main()
