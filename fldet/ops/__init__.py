"""The few operators that the detectors need, on whatever is installed.

``nms``, ``batched_nms`` and ``roi_align`` use the compiled operators of mmcv if there are any,
else those of a torchvision that works, else fldet's own, which need torch and NumPy only.
"""

from fldet.ops.nms import batched_nms, has_compiled_mmcv, nms, nms_backend
from fldet.ops.roi_align import roi_align, roi_align_backend

__all__ = ["active_backend", "batched_nms", "nms", "roi_align"]

_NAMES = {"mmcv": "mmcv (compiled)", "torchvision": "torchvision", "fldet": "fldet"}


def active_backend(device: str = "cpu") -> dict[str, str]:
    """Returns which implementation each operator uses, by the name of the operator.

    The values are ``mmcv (compiled)``, ``torchvision`` and ``fldet``. ``sigmoid_focal_loss`` is
    the one behind ``mmcv.ops``, which mmdet's own ``FocalLoss`` calls on CUDA.

    Args:
        device: type of device, such as ``cpu`` or ``cuda``.
    """
    return {
        "nms": _NAMES[nms_backend(device)],
        "roi_align": _NAMES[roi_align_backend(device)],
        "sigmoid_focal_loss": _NAMES["mmcv" if has_compiled_mmcv() else "fldet"],
    }
