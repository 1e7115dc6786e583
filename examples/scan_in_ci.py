# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-invertune"]
# ///
"""A gate for a pipeline that takes CLIP models from strangers: scan, write the report, exit by the verdict.

    python examples/scan_in_ci.py --model org/suspicious-clip --images clean_images/

Exit codes: 0 no backdoor found, 1 backdoored or inconclusive, 2 the scan could not be made. Without `--model` it scans
the small backdoored CLIP that comes along with the package, on drawings.
"""

import argparse
import sys


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="folder or Hub id; by default the embedded victim")
    parser.add_argument("--images", help="folder, .parquet file or Hub dataset of clean images; by default drawings")
    parser.add_argument("--class_names", nargs="+", help="labels to look at; by default those of the images")
    parser.add_argument("--report", default="scan-report", help="folder for report.html and report.json")
    parser.add_argument("--steps", type=int, nargs=2, help="updates of the two rounds; fewer are quicker and weaker")
    options = parser.parse_args()

    from hf_invertune import BackdoorRemover, InputError, ScanConfig, Verdict
    from hf_invertune.lab.demo import drawings, victim_folder

    config = ScanConfig(steps=tuple(options.steps)) if options.steps else ScanConfig()
    try:
        remover = BackdoorRemover.from_pretrained(options.model or victim_folder("poisoned"))
        report = remover.audit(options.images or drawings(384, seed=11), options.class_names, config=config)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    report.save(options.report)
    print(f"{report.verdict}{f', towards {report.target_name!r}' if report.target_name else ''}: see {options.report}")
    return 0 if report.verdict is Verdict.CLEAN else 1


if __name__ == "__main__":
    sys.exit(main())
