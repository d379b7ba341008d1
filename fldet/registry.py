"""Where names in a config become classes: children of MMDetection's registries.

Write ours with the scope prefix, ``type='fldet.FocalLoss'``; MMEngine then imports this module
by itself and looks in the locations given here.
"""

from typing import Any

from fldet import _compat

_compat.install()

from mmdet import registry as mmdet_registry  # noqa: E402
from mmengine.registry import Registry  # noqa: E402


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope="fldet", locations=[*locations])


# losses, heads, necks, detectors, preprocessors
MODELS = _child("model", mmdet_registry.MODELS, "fldet.models", "fldet.data.preprocessor")
# anchor generators, assigners, miners
TASK_UTILS = _child("task util", mmdet_registry.TASK_UTILS, "fldet.models.task_modules")
# data sets: annotation files in, samples out
DATASETS = _child(
    "dataset",
    mmdet_registry.DATASETS,
    *(
        f"fldet.data.{module}"
        for module in ("balanced", "coco", "voc", "yolo", "imported.dataset", "shapes.dataset")
    ),
)
# steps of a pipeline: what happens to one image and its boxes
TRANSFORMS = _child(
    "transform",
    mmdet_registry.TRANSFORMS,
    *(f"fldet.data.{module}" for module in ("images", "transforms", "slicing.make_views")),
)
# what turns detections into figures
METRICS = _child("metric", mmdet_registry.METRICS, "fldet.evaluation.metrics")
# what is watched or guarded while a loop runs
HOOKS = _child("hook", mmdet_registry.HOOKS, "fldet.engine.hooks")
# how one optimizer step is taken (mixed precision)
OPTIM_WRAPPERS = _child(
    "optimizer wrapper", mmdet_registry.OPTIM_WRAPPERS, "fldet.models.fast.bfloat16"
)
# how weights start, besides MMEngine's ways
WEIGHT_INITIALIZERS = _child(
    "weight initializer", mmdet_registry.WEIGHT_INITIALIZERS, "fldet.checkpoints.packaged"
)


def dataset_class(name: str) -> Any:
    """Returns what the type of a data set stands for, or None.

    A name without a prefix is ours first. ``DATASETS.get`` alone would not find the scopes of
    plug-ins, which hang beside ours.
    """
    return DATASETS.get(name) or mmdet_registry.DATASETS.get(name)
