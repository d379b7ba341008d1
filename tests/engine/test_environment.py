import pytest

from fldet.engine import environment
from fldet.engine.environment import diagnose


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


@pytest.mark.parametrize(
    ("module", "name", "remedy"),
    [
        ("torchvision", "torchvision", "pip uninstall -y torchvision"),
        ("pycocotools", "pycocotools", environment.INSTALL),
    ],
)
def test_a_package_that_does_not_import(monkeypatch, module, name, remedy):
    real = environment.import_module

    def broken(wanted):
        if wanted == module:
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(wanted)

    monkeypatch.setattr(environment, "import_module", broken)
    monkeypatch.setattr(environment, "installed", lambda name: "1.0" if name == module else "")
    (finding,) = findings(name)
    assert (finding.level, finding.remedy) == ("error", remedy)
    assert "operator torchvision::nms does not exist" in finding.value


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
