"""The scope ``fldet_example``: which registries it has, and which modules fill them."""

from mmdet import registry as mmdet_registry
from mmengine.registry import Registry

MODELS = Registry(
    "model",
    parent=mmdet_registry.MODELS,
    scope="fldet_example",
    locations=["fldet_example.losses"],
)
TASK_UTILS = Registry(
    "task util",
    parent=mmdet_registry.TASK_UTILS,
    scope="fldet_example",
    locations=["fldet_example.miners"],
)
