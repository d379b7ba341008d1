"""What this machine offers, and the known troubles of the dependencies with their remedies."""

import dataclasses
import os
import platform
import shutil
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from fldet import __version__

INSTALL = "pip install -c requirements/constraints.txt -e ."

# Distributions that install the same files: (name, its twin, how to keep one of them).
TWINS = (
    ("mmengine", "onedl-mmengine"),
    ("mmcv", "onedl-mmcv"),
    ("mmcv-lite", "onedl-mmcv"),
    ("mmcv", "mmcv-lite"),
    ("mmdet", "onedl-mmdetection"),
    ("opencv-python", "opencv-python-headless"),
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        value: what was found.
        level: ``ok``, ``warning`` (works, but) or ``error`` (something will fail).
        remedy: the line that mends it, empty where nothing is wrong.
    """

    name: str
    value: str
    level: Literal["ok", "warning", "error"] = "ok"
    remedy: str = ""


def diagnose() -> list[Finding]:
    """Returns what is installed and in use, troubles included."""
    return [
        Finding("fldet", __version__),
        Finding(
            "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
        ),
        *_packages(),
        *_twins(),
        _torchvision(),
        *_operators(),
        *_devices(),
        _shared_memory(),
        _compiler(),
    ]


def _packages() -> list[Finding]:
    packages = {
        "torch": ("torch",),
        "mmengine": ("onedl-mmengine", "mmengine"),
        "mmcv": ("onedl-mmcv", "mmcv", "mmcv-lite"),
        "mmdet": ("onedl-mmdetection", "mmdet"),
        "numpy": ("numpy",),
        "cv2": ("opencv-python-headless", "opencv-python"),
        "pycocotools": ("pycocotools",),
        "faster_coco_eval": ("faster-coco-eval",),
        "matplotlib": ("matplotlib",),
    }
    return [_package(module, names) for module, names in packages.items()]


def _package(module: str, distributions: tuple[str, ...]) -> Finding:
    found = [f"{name} {installed(name)}" for name in distributions if installed(name)]
    try:
        import_module(module)
    except Exception as error:  # whatever a broken package raises at import, it is the finding
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return Finding(module, f"cannot be imported: {reason}", "error", INSTALL)
    return Finding(module, ", ".join(found) or "installed without metadata")


def installed(distribution: str) -> str:
    """Returns the version of a distribution, the empty string if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _twins() -> list[Finding]:
    """Two distributions with the same files break each other when one is removed or upgraded."""
    findings = []
    for first, second in TWINS:
        if not (installed(first) and installed(second)):
            continue
        harmless = first == "opencv-python" and installed(first) == installed(second)
        if not harmless:
            findings.append(
                Finding(
                    "conflict",
                    f"{first} {installed(first)} and {second} {installed(second)} share files",
                    "error" if first.startswith("mm") else "warning",
                    f"pip uninstall -y {first} {second} && {INSTALL}",
                )
            )
    return findings


def _torchvision() -> Finding:
    """A torchvision that does not fit torch ends every run, because MMEngine imports it."""
    if not installed("torchvision"):
        return Finding("torchvision", "not installed, not needed")
    try:
        import_module("torchvision")
    except Exception as error:
        reason = str(error).splitlines()[0]
        return Finding(
            "torchvision",
            f"{installed('torchvision')} does not fit this torch: {reason}",
            "error",
            "pip uninstall -y torchvision",
        )
    return Finding("torchvision", installed("torchvision"))


def _operators() -> list[Finding]:
    from fldet.ops import active_backend

    return [Finding(f"operator {name}", used) for name, used in active_backend().items()]


def _devices() -> list[Finding]:
    import torch

    cpu = f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        built = torch.version.cuda
        reason = f"torch is built for CUDA {built}, but sees no device" if built else "a CPU build"
        return [Finding("cpu", cpu), Finding("cuda", f"none ({reason})")]
    return [
        Finding("cpu", cpu),
        *(
            Finding(f"cuda:{index}", torch.cuda.get_device_name(index))
            for index in range(torch.cuda.device_count())
        ),
    ]


def _shared_memory() -> Finding:
    """Loader processes hand over batches in shared memory; containers often have 64 MiB of it."""
    if not os.path.isdir("/dev/shm"):
        return Finding("shared memory", "no /dev/shm on this system")
    free_mib = shutil.disk_usage("/dev/shm").free // 2**20
    if free_mib < 512:
        return Finding(
            "shared memory",
            f"{free_mib} MiB free",
            "warning",
            "start the container with --shm-size 8g, or train with "
            "--cfg-options train_dataloader.num_workers=0 val_dataloader.num_workers=0",
        )
    return Finding("shared memory", f"{free_mib} MiB free")


def _compiler() -> Finding:
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    nothing = "none; torch.compile needs one, and Triton, for a faster loss on a GPU, a C compiler"
    return Finding("c++ compiler", found or nothing)
