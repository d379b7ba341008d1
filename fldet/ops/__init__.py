"""The few operators that the detectors need, on whatever is installed.

``nms``, ``batched_nms`` and ``roi_align`` use the compiled operators of mmcv if there are any,
else those of a torchvision that works, else fldet's own, which need torch and NumPy only.
"""

from fldet.ops.nms import batched_nms, has_compiled_mmcv, nms, nms_backend
from fldet.ops.roi_align import roi_align

__all__ = ["active_backend", "batched_nms", "nms", "roi_align"]

_NAMES = {"mmcv": "mmcv (compiled)", "torchvision": "torchvision", "fldet": "fldet"}


def active_backend(device: str = "cpu") -> dict[str, str]:
    """Returns which implementation each operator uses on a type of device, by the operator's name.

    The values are ``mmcv (compiled)``, ``torchvision`` and ``fldet``. ``roi_align`` and
    ``sigmoid_focal_loss`` are those behind ``mmcv.ops``, which MMDetection's detectors call.
    """
    behind_mmcv = _NAMES["mmcv" if has_compiled_mmcv() else "fldet"]
    return {
        "nms": _NAMES[nms_backend(device)],
        "roi_align": behind_mmcv,
        "sigmoid_focal_loss": behind_mmcv,
    }
