"""What the README's command installs: one cv2, the one that needs neither libGL nor X11."""

import hashlib
import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fldet.engine.doctor import STAND_IN

ROOT = Path(__file__).parents[1]
WHEELS = sorted((ROOT / "requirements" / "stand-ins").glob("*.whl"))


def test_stand_ins_have_no_module_and_are_those_of_the_constraints():
    assert len(WHEELS) == 2
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    assert {"imaug==0", f"opencv-python=={STAND_IN}"} <= set(lines)
    for wheel in WHEELS:
        names = zipfile.ZipFile(wheel).namelist()
        assert {name.rpartition("/")[2] for name in names} == {"METADATA", "WHEEL", "RECORD"}


def test_the_script_writes_the_stand_ins_that_are_there(tmp_path):
    subprocess.run([sys.executable, ROOT / "tools" / "make_stand_ins.py", tmp_path], check=True)
    written = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert written == {wheel.name: wheel.read_bytes() for wheel in WHEELS}


def test_torch_is_new_enough_for_weights_only():
    lines = (ROOT / "requirements" / "runtime.txt").read_text().splitlines()
    assert "torch>=2.10" in lines
    found = [int(part) for part in importlib.metadata.version("torch").split(".")[:2]]
    assert found >= [2, 10]


def test_the_lock_has_the_versions_of_the_constraints_and_hashes_of_all():
    lock = (ROOT / "requirements" / "lock.txt").read_text()
    assert not re.search("index|://", lock)  # no registry by its name
    entries = re.findall(r"^(\S+==\S+)(?: ;.*?)? \\\n((?:    --hash=.*\n)+)", lock, re.MULTILINE)
    pins = re.findall(r"^\S+==\S+", lock, re.MULTILINE)
    assert [pin for pin, _ in entries] == pins
    locked = {pin.partition("==")[0] for pin in pins}
    runtime = (ROOT / "requirements" / "runtime.txt").read_text().lower()
    assert {*re.findall(r"^([a-z][\w-]*)", runtime, re.MULTILINE)} <= locked
    tested = (ROOT / "requirements" / "constraints.txt").read_text().lower()
    for pin in re.findall(r"^[\w-]+==[\w.+]+", tested, re.MULTILINE):
        assert pin in pins or pin.partition("==")[0] not in locked, "make lock renews it"
    for wheel in WHEELS:
        (hashes,) = [text for pin, text in entries if pin.startswith(f"{_name(wheel)}==")]
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() in hashes


def _name(wheel: Path) -> str:
    return wheel.name.partition("-")[0].replace("_", "-")


@pytest.mark.slow
def test_pip_takes_the_stand_ins_whatever_the_folder(tmp_path):
    """Needs an index only for what is not installed: pip is asked for the two, without the rest."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    done = subprocess.run(
        [
            *(environment / "bin" / "pip", "install", "--no-index", "--no-deps", "--quiet"),
            *("-c", ROOT / "requirements" / "constraints.txt", "opencv-python", "imaug"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    code = "from importlib.metadata import version as v; print(v('imaug'), v('opencv-python'))"
    printed = subprocess.run(
        [environment / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == ["0", STAND_IN]
