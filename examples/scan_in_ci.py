# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-invertune"]
# ///
"""A gate for a pipeline that takes CLIP models from strangers: scan, write the report, exit by the verdict.

    python examples/scan_in_ci.py --model org/suspicious-clip --images clean_images/

Exit codes, those of `hf-invertune`: 0 no backdoor found, 3 backdoored, 5 inconclusive, 8 the model cannot be judged, 2 wrong
input, 7 trouble with the Hub, 1 a crash. Without `--model` it scans the small backdoored CLIP that comes along with the package, on drawings.
"""

import argparse
import sys


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="folder or Hub id; by default the embedded victim")
    parser.add_argument("--images", help="folder, .parquet file or Hub dataset of clean images; by default drawings")
    parser.add_argument("--class_names", nargs="+", help="labels to look at; by default those of the images")
    parser.add_argument("--report", default="scan-report", help="folder for report.html and report.json")
    parser.add_argument("--config", help="settings, a .yaml or .toml file")
    options = parser.parse_args()

    from hf_invertune import (
        AuditReport,
        BackdoorRemover,
        ExitCode,
        HubError,
        InputError,
        RemovalConfig,
        demo_images,
        demo_victim,
    )

    try:
        config = RemovalConfig.load(options.config) if options.config else RemovalConfig()
        remover = BackdoorRemover.from_pretrained(options.model or demo_victim("poisoned"))
        scan = remover.scan(options.images or demo_images(), options.class_names, config=config)
    except (InputError, HubError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    AuditReport("scanned", scan, config=config).save(options.report)
    print(f"{scan.verdict}{f', towards {scan.target_name!r}' if scan.target_name else ''}: see {options.report}")
    return ExitCode.of(scan.verdict)


if __name__ == "__main__":
    sys.exit(main())
