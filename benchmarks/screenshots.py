"""The pictures of the report in docs/: `hf-invertune demo --output-dir DIR`, then this script with DIR/audit."""

import argparse
import io
import tempfile
from pathlib import Path

from browser import Browser, find_chromium
from PIL import Image

from hf_invertune.report.html import render
from hf_invertune.report.report import AuditReport


DOCS = Path(__file__).parent.parent / "docs"
SHOTS = {  # file: width, height, dark, device pixels a CSS pixel
    "report.png": (1000, 1180, False, 1.0),
    "report-dark.png": (1000, 1180, True, 1.0),
    "report-phone.png": (390, 844, False, 2.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("audit", type=Path, help="a folder that AuditReport.save wrote")
    page = render(AuditReport.load(parser.parse_args().audit))
    program = find_chromium()
    if program is None:
        raise SystemExit("No Chromium on the path; install one.")
    with tempfile.TemporaryDirectory() as folder, Browser(program) as browser:
        file = Path(folder, "report.html")
        file.write_text(page)
        browser.call("Emulation.setScrollbarsHidden", hidden=True)
        for name, (width, height, dark, scale) in SHOTS.items():
            browser.open(file, width, height, dark=dark, scale=scale)
            picture = Image.open(io.BytesIO(browser.screenshot())).convert("RGB")
            picture.quantize(256, dither=Image.Dither.NONE).save(DOCS / name, optimize=True)
            print(f"{name}: {(DOCS / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
