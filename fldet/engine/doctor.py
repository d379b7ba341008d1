"""What this machine offers, and the known troubles of the dependencies with their remedies.

Whatever a package raises when it is imported is a finding; nothing is imported with this module.
"""

import dataclasses
import os
import platform
import shutil
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from fldet import __version__
from fldet._compat import silence_imports
from fldet.about import commit

INSTALL = "pip install -c requirements/constraints.txt -e ."

# Modules and the distributions that have them.
PACKAGES = {
    "torch": ("torch",),
    "numpy": ("numpy",),
    "cv2": ("opencv-python-headless", "opencv-python"),
    "mmengine": ("onedl-mmengine", "mmengine"),
    "mmcv": ("onedl-mmcv", "mmcv", "mmcv-lite"),
    "mmdet": ("onedl-mmdetection", "mmdet"),
    "pycocotools": ("pycocotools",),
    "hotcoco": ("hotcoco",),
    "matplotlib": ("matplotlib",),
}

# The empty package that requirements/constraints.txt has in the place of opencv-python.
STAND_IN = "4.12.0.88+headless"

# Distributions that install the same files.
TWINS = (
    ("mmengine", "onedl-mmengine"),
    ("mmcv", "onedl-mmcv"),
    ("mmcv-lite", "onedl-mmcv"),
    ("mmcv", "mmcv-lite"),
    ("mmdet", "onedl-mmdetection"),
    ("opencv-python", "opencv-python-headless"),
)


Level = Literal["ok", "warning", "error"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    value: str
    level: Level = "ok"  # warning: works, but; error: something will fail
    remedy: str = ""  # the line that mends it


def diagnose() -> list[Finding]:
    """Returns what is installed and in use, troubles included."""
    return [
        Finding("fldet", __version__),
        Finding(
            "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
        ),
        *(_package(module, distributions) for module, distributions in PACKAGES.items()),
        *_twins(),
        _torchvision(),
        *_unless_broken("operators", _operators),
        *_unless_broken("devices", _devices),
        _shared_memory(),
        _compiler(),
    ]


def culprit(error: BaseException | None) -> str:
    """Returns the package of others whose import raised an error, '' if it was another error."""
    if isinstance(error, ImportError):
        name = error.name or _innermost_module(error) or culprit(error.__context__)
    else:
        name = _innermost_module(error)
    package = name.partition(".")[0]
    return "" if package in ("fldet", "__main__") else package


def reason(error: BaseException) -> str:
    """Returns the kind of an error and the first line of what it says."""
    said = str(error.__cause__ or error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _innermost_module(error: BaseException | None) -> str:
    """Returns the name of the last module whose own lines ran when an error was raised, or ''."""
    frames = traceback.walk_tb(error.__traceback__ if error else None)
    modules = [one.f_globals["__name__"] for one, _ in frames if one.f_code.co_name == "<module>"]
    return str(modules[-1]) if modules else ""


def _import_error(module: str) -> BaseException | None:
    """Returns what a module raises when it is imported, the end of the process included."""
    try:
        with silence_imports():
            import_module(module)
    except (Exception, SystemExit) as error:
        return error
    return None


def _unless_broken(name: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except (Exception, SystemExit) as error:
        return [Finding(name, f"not known: {reason(error)}", "error")]


def _package(module: str, distributions: tuple[str, ...]) -> Finding:
    found = [name for name in distributions if installed(name)]
    error = _import_error(module)
    if error is None and module == "mmdet":  # all of it, with what it needs in turn
        error = _import_error("mmdet.models") or _import_error("mmdet.datasets")
    if error is not None:
        value = f"cannot be imported: {reason(error)}"
        other = culprit(error)
        if other not in ("", module):  # which has a line of its own, or not
            remedy = "" if other in PACKAGES else _remedy([other] if installed(other) else [])
            return Finding(module, f"{value} (in {other})", "error", remedy)
        return Finding(module, value, "error", _remedy(found))
    names = ", ".join(f"{name} {installed(name)}" for name in found)
    return Finding(module, names or "installed without metadata")


def _remedy(found: list[str]) -> str:
    """Returns how to install once more what is there already; pip alone would leave it."""
    if not found:
        return INSTALL
    name, again = found[0], "pip install --force-reinstall --no-deps"
    if "opencv-python" in name:  # both have the module cv2; one of them needs libGL, X11 and Qt
        again, name = f"pip uninstall -y opencv-python && {again}", "opencv-python-headless"
    return f"{again} {name}=={installed(found[0])}"


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
        before, after = installed(first), installed(second)
        is_harmless = first == "opencv-python" and before in (after, STAND_IN)
        if before and after and not is_harmless:
            value = f"{first} {before} and {second} {after} share files"
            level: Level = "error" if first.startswith("mm") else "warning"
            remedy = f"pip uninstall -y {first} {second} && {INSTALL}"
            findings.append(Finding("conflict", value, level, remedy))
    return findings


def _torchvision() -> Finding:
    """A torchvision that does not fit torch ends every run, because MMEngine imports it."""
    found = installed("torchvision")
    if not found:
        return Finding("torchvision", "not installed, not needed")
    if (error := _import_error("torchvision")) is None:
        return Finding("torchvision", found)
    value = f"{found} does not fit this torch: {reason(error)}"
    return Finding("torchvision", value, "error", "pip uninstall -y torchvision")


def _operators() -> list[Finding]:
    from fldet.ops import active_backend

    return [Finding(f"operator {name}", used) for name, used in active_backend().items()]


def _devices() -> list[Finding]:
    import torch

    threads = torch.get_num_threads()
    cpu = Finding("cpu", f"{os.cpu_count()} cores, torch uses {threads} threads")
    if torch.cuda.is_available():
        names = map(torch.cuda.get_device_name, range(torch.cuda.device_count()))
        return [cpu, *(Finding(f"cuda:{index}", name) for index, name in enumerate(names))]
    if torch.backends.mps.is_available():
        return [cpu, Finding("mps", "Apple's GPU; --device mps takes it, auto does not")]
    built = torch.version.cuda
    why = f"torch is built for CUDA {built}, but sees no device" if built else "a CPU build"
    return [cpu, Finding("cuda", f"none ({why})")]


def _shared_memory() -> Finding:
    """Loader processes hand over batches in shared memory; containers often have 64 MiB of it."""
    if not os.path.isdir("/dev/shm"):
        return Finding("shared memory", "no /dev/shm on this system")
    free_mib = shutil.disk_usage("/dev/shm").free // 2**20
    if free_mib >= 512:
        return Finding("shared memory", f"{free_mib} MiB free")
    remedy = (
        "start the container with --shm-size 8g, or train with "
        "--cfg-options train_dataloader.num_workers=0 val_dataloader.num_workers=0"
    )
    return Finding("shared memory", f"{free_mib} MiB free", "warning", remedy)


def _compiler() -> Finding:
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    nothing = "none; torch.compile needs one, and Triton, for a faster loss on a GPU, a C compiler"
    return Finding("c++ compiler", found or nothing)


def machine() -> dict[str, str]:
    """Returns what a time depends on besides the model: processor, cores, versions, operators."""
    import torch

    from fldet.ops import active_backend

    facts = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mmdet": version("onedl-mmdetection"),
        "fldet": __version__,
        "nms": active_backend()["nms"],
    }
    if state := commit():
        facts["commit"] = state
    if torch.cuda.is_available():
        cudnn: Any = torch.backends.cudnn
        facts["cuda"], facts["cudnn"] = str(torch.version.cuda), str(cudnn.version())
        facts["tf32 convolutions"] = str(cudnn.allow_tf32)
        facts["tf32 products"] = str(torch.backends.cuda.matmul.allow_tf32)
    return facts


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
