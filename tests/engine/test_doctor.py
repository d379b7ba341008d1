import os
import re
import subprocess
import sys

import pytest

from fldet.engine import doctor as environment
from fldet.engine.doctor import diagnose


def findings(name):
    return [finding for finding in diagnose() if finding.name == name]


def test_a_healthy_machine_has_no_error():
    assert [finding for finding in diagnose() if finding.level == "error"] == []
    assert "onedl-mmdetection" in findings("mmdet")[0].value
    assert findings("operator nms")[0].value


def test_two_kinds_of_one_package_are_named_with_the_way_out(monkeypatch):
    versions = {"mmengine": "0.10.7", "onedl-mmengine": "0.10.12"}
    monkeypatch.setattr(environment, "installed", lambda name: versions.get(name, ""))
    (conflict,) = findings("conflict")
    assert conflict.level == "error"
    assert conflict.value == "mmengine 0.10.7 and onedl-mmengine 0.10.12 share files"
    assert conflict.remedy.startswith("pip uninstall -y mmengine onedl-mmengine && pip install")


def test_the_stand_in_of_opencv_python_is_no_conflict(monkeypatch):
    versions = {"opencv-python": environment.STAND_IN, "opencv-python-headless": "4.12.0.88"}
    monkeypatch.setattr(environment, "installed", lambda name: versions.get(name, ""))
    assert findings("conflict") == []
    versions["opencv-python"] = "4.11.0.86"
    assert [one.level for one in findings("conflict")] == ["warning"]


AGAIN = "pip install --force-reinstall --no-deps"


@pytest.mark.parametrize(
    ("module", "has", "error", "value", "remedy"),
    [
        (
            "pycocotools",
            "pycocotools",
            ImportError("x.so"),
            "ImportError: x.so",
            f"{AGAIN} {{}}==1",
        ),
        ("torch", "torch", OSError("x.so"), "OSError: x.so", f"{AGAIN} torch==1"),
        ("numpy", "numpy", AttributeError(), "imported: AttributeError", f"{AGAIN} numpy==1"),
        ("mmcv", "onedl-mmcv", SystemExit(3), "SystemExit: 3", f"{AGAIN} onedl-mmcv==1"),
        ("mmdet", "", ModuleNotFoundError("no x"), "no x", environment.INSTALL),
        ("matplotlib", "matplotlib", ImportError("\n\nREAD\nthis"), "ImportError: READ", "pip"),
        (
            *("cv2", "opencv-python", ImportError("libGL.so.1"), "libGL.so.1"),
            f"pip uninstall -y opencv-python && {AGAIN} opencv-python-headless==1",
        ),
        (
            "torchvision",
            "torchvision",
            RuntimeError("no nms"),
            "1 does not fit .*: .* no nms",
            "pip",
        ),
        ("torchvision", "torchvision", ImportError(), "does not fit .*: ImportError", "pip uninst"),
    ],
)
def test_a_package_that_does_not_import(monkeypatch, module, has, error, value, remedy):
    real = environment.import_module

    def broken(wanted):
        if wanted == module:
            raise error
        return real(wanted)

    monkeypatch.setattr(environment, "import_module", broken)
    monkeypatch.setattr(environment, "installed", lambda name: "1" if name == has else "")
    (finding,) = findings(module)
    assert finding.level == "error"
    assert re.search(value, finding.value)
    assert finding.remedy.startswith(remedy.format(module))


BROKEN = {
    "torch": "raise ImportError('libcudart.so.13: cannot open shared object file')",
    "numpy": "raise AttributeError('_ARRAY_API not found')",
    "cv2": "import cv2.missing",
    "mmengine": "import sys\nsys.exit(3)",
    "mmcv": "raise OSError()",
    "shapely": "1 / 0",
}


@pytest.mark.parametrize("package", BROKEN)
def test_commands_name_the_package_that_is_broken(tmp_path, package):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(BROKEN[package])
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    for words in (["doctor", "--json"], ["train", "shapes/retinanet_r18_shapes.py"]):
        done = subprocess.run(
            [sys.executable, "-m", "fldet", *words],
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
        if words[0] == "train":
            assert re.search(rf"^Error: {package} cannot be imported", done.stderr, re.MULTILINE)
            assert "Hint: fldet doctor" in done.stderr
        else:
            assert "cannot be imported" in done.stdout
            assert package in done.stdout


def needs_a_package():
    try:
        import no_such_package  # noqa: F401
    except ImportError:
        raise ImportError("pip install it") from None


def test_an_error_of_our_own_is_no_broken_package():
    for text in ("import fldet.nothing", "from fldet.errors import nothing", "int('x')"):
        with pytest.raises((ImportError, ValueError)) as caught:
            exec(text, {"__name__": "fldet.somewhere"})
        assert environment.culprit(caught.value) == ""
    with pytest.raises(ImportError) as caught:
        needs_a_package()
    assert environment.culprit(caught.value) == "no_such_package"


def test_little_shared_memory_is_a_warning(monkeypatch):
    class Usage:
        free = 64 * 2**20

    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: Usage)
    monkeypatch.setattr(environment.os.path, "isdir", lambda path: True)
    (finding,) = findings("shared memory")
    assert (finding.level, finding.value) == ("warning", "64 MiB free")
    assert "--shm-size" in finding.remedy


def test_without_a_compiler_it_is_said_what_one_is_for(monkeypatch):
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    (finding,) = findings("c++ compiler")
    assert finding.level == "ok"
    assert "torch.compile needs one" in finding.value
    assert "Triton" in finding.value
