"""Non-maximum suppression across classes: one object, one box, whatever its class."""

from typing import Any

from fldet.errors import ConfigError


def suppress_across_classes(model: Any) -> None:
    """Sets ``class_agnostic`` of the last suppression in the config of a model, in place.

    That is ``model.test_cfg.nms``, of two stages ``model.test_cfg.rcnn.nms``.

    Raises:
        ConfigError: the model has no such suppression, or one that goes class by class.
    """
    test_cfg = model.get("test_cfg") or {}
    last = test_cfg.get("rcnn") or test_cfg
    if not last.get("nms") or "nms_pre_per_class" in last:
        raise ConfigError(
            f"--agnostic-nms: a {model.get('type', 'model')} whose test_cfg has "
            + ("nms_pre_per_class" if "nms_pre_per_class" in last else "no nms"),
            expected="test_cfg.nms, or test_cfg.rcnn.nms of two stages, as RetinaNet has",
        )
    last["nms"]["class_agnostic"] = True
