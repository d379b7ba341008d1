"""What a time depends on besides the model."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fldet import __version__
from fldet.about import commit
from fldet.ops import active_backend


def machine() -> dict[str, str]:
    """Returns what a time depends on besides the model: processor, cores, versions, operators."""
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
