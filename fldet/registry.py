"""Where names in a config become classes: children of MMDetection's registries.

Write ours with the scope prefix, ``type='fldet.FocalLoss'``; MMEngine then imports this module
by itself and looks in the locations given here.
"""

from typing import Any

from fldet import _compat

_compat.install()

from mmdet import registry as mmdet_registry  # noqa: E402
from mmengine.registry import Registry  # noqa: E402

# losses, heads, necks, detectors, preprocessors
MODELS = Registry(
    "model",
    parent=mmdet_registry.MODELS,
    scope="fldet",
    locations=["fldet.models", "fldet.data.preprocessor"],
)
# anchor generators, assigners, miners
TASK_UTILS = Registry(
    "task util",
    parent=mmdet_registry.TASK_UTILS,
    scope="fldet",
    locations=["fldet.models.task_modules"],
)
# data sets: annotation files in, samples out
DATASETS = Registry(
    "dataset",
    parent=mmdet_registry.DATASETS,
    scope="fldet",
    locations=["fldet.data.coco", "fldet.data.voc", "fldet.data.yolo", "fldet.data.shapes.dataset"],
)
# steps of a pipeline: what happens to one image and its boxes
TRANSFORMS = Registry(
    "transform",
    parent=mmdet_registry.TRANSFORMS,
    scope="fldet",
    locations=["fldet.data.images", "fldet.data.transforms"],
)
# what turns detections into figures
METRICS = Registry(
    "metric",
    parent=mmdet_registry.METRICS,
    scope="fldet",
    locations=["fldet.evaluation.metrics"],
)
# what is watched or guarded while a loop runs
HOOKS = Registry(
    "hook", parent=mmdet_registry.HOOKS, scope="fldet", locations=["fldet.engine.hooks"]
)
# how one optimizer step is taken (mixed precision)
OPTIM_WRAPPERS = Registry(
    "optimizer wrapper",
    parent=mmdet_registry.OPTIM_WRAPPERS,
    scope="fldet",
    locations=["fldet.models.fast.bfloat16"],
)


def dataset_class(name: str) -> Any:
    """Returns what the type of a data set stands for, or None.

    A name without a prefix is ours first. ``DATASETS.get`` alone would not find the scopes of
    plug-ins, which hang beside ours.
    """
    return DATASETS.get(name) or mmdet_registry.DATASETS.get(name)
