"""Writes requirements/stand-ins: wheels without a module, for what MMCV and MMDetection list.

``requirements/constraints.txt`` puts them in the place of a second cv2, which wants libGL and X11,
and of imaug, which brings numba and scikit-image for lane detection.

    python tools/make_stand_ins.py [FOLDER]
"""

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(*sys.argv[1:] or [ROOT / "requirements" / "stand-ins"])

WHEEL = "Wheel-Version: 1.0\nGenerator: fldet\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(name: str, version: str, requires: str, summary: str) -> None:
    """Writes a wheel that has its metadata alone; the same bytes each time."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {summary}\n"
    if requires:
        metadata += f"Requires-Dist: {requires}\n"
    stem = f"{name.replace('-', '_')}-{version}"
    record = "".join(f"{stem}.dist-info/{file},,\n" for file in ("METADATA", "WHEEL", "RECORD"))
    with zipfile.ZipFile(FOLDER / f"{stem}-py3-none-any.whl", "w") as wheel:
        for file, text in (("METADATA", metadata), ("WHEEL", WHEEL), ("RECORD", record)):
            wheel.writestr(zipfile.ZipInfo(f"{stem}.dist-info/{file}"), text)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    write_wheel("imaug", "0", "", "empty: MMDetection needs imaug for lane detection alone")
    write_wheel(
        *("opencv-python", "4.12.0.88+headless", "opencv-python-headless"),
        "empty: the cv2 of opencv-python-headless needs neither libGL nor X11",
    )
