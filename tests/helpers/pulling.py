"""Pull the tiny model from the loopback Hub, or be refused."""

import pytest

from hf_invertune.errors import InputError
from hf_invertune.models.loading import load_model


def pull(name="org/clip", **options):
    return load_model(name, device="cpu", **options)


def refused(message, *arguments, **options):
    with pytest.raises(InputError, match=message):
        pull(*arguments, **options)
