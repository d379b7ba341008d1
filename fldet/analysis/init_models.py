"""The models that a first config can have: what each starts from, and how long it trains."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

MOST = 90_000  # iterations


@dataclass(frozen=True)
class Recipe:
    """What a first config says of a model."""

    title: str
    bases: tuple[str, ...]  # configs below ``fldet::`` that a config of it inherits
    fragment: str  # the model alone, for one that starts from a trained detector
    largest: tuple[int, int]  # longer and shorter side of images, in pixels, unless they are given
    batch_size: int
    epochs: int
    fewest: int  # iterations
    for_cpus: bool = False  # a training takes minutes there
    enlarges: bool = False  # smaller images are resized to ``largest`` as well
    # size of images in tests over that in training, where augment = 'small' draws 0.6 to 1.6 times
    # the size of each image (decision 72)
    tested_larger: float = 1.0
    validations: int = 10  # during the training
    checkpoints: int = 10  # saved during the training
    warm_up: int | None = None  # iterations before a cosine; None: the paper's steps
    lines: tuple[str, ...] = ()  # of ``model``
    tuned: tuple[str, ...] = ()  # of ``model``, for one that starts from a trained detector
    top: tuple[str, ...] = ()  # of the config itself
    tuned_top: tuple[str, ...] = ()  # besides, for one that starts from a trained detector


_REST = ("datasets/coco_detection", "default_runtime")


def bases(model: str, schedule: str) -> tuple[str, ...]:
    """Returns fragments below ``fldet::`` in the order in which configs list them."""
    names = (f"models/{model}", _REST[0], f"schedules/{schedule}", _REST[1])
    return tuple(f"_base_/{name}.py" for name in names)


def _resnet(depth: int, neck: tuple[str, ...] = ()) -> Recipe:
    return Recipe(
        title=f"RetinaNet-R{depth}",
        bases=(f"retinanet/r{depth}_fpn_1x.py",),
        fragment="retinanet_r50_fpn",
        largest=(1333, 800),  # the paper's scale
        batch_size=8,
        epochs=12,
        fewest=2000,
        lines=(
            "# The backbone starts from ImageNet weights, downloaded once. Offline: give a file,",
            f"# backbone=dict(init_cfg=dict(checkpoint='resnet{depth}.pth')),",
            "# or none, and train all of it.",
            "# backbone=dict(init_cfg=None, frozen_stages=-1, norm_eval=False),",
        ),
        tuned=(f"backbone=dict(depth={depth}, init_cfg=None),", *neck),
    )


RECIPES: Mapping[str, Recipe] = {
    "r18": _resnet(18, ("neck=dict(in_channels=[64, 128, 256, 512]),",)),
    "r50": _resnet(50),
    "lite": Recipe(
        title="A light RetinaNet",
        bases=bases("retinanet_lite0", "light"),
        fragment="retinanet_lite0",
        for_cpus=True,
        largest=(512, 512),
        enlarges=True,
        tested_larger=1.25,
        batch_size=4,
        epochs=6,
        fewest=1000,
        validations=2,  # one of 171 images takes as long as 60 iterations
        checkpoints=4,
        warm_up=100,
        tuned=("backbone=dict(init_cfg=None),",),
        top=(
            "channels_last = fold_batch_norms = True  # twice as fast on a CPU",
            "amp = 'auto'  # faster still where the processor computes in bfloat16",
        ),
        tuned_top=("auto_scale_lr = dict(base_batch_size=4)  # a quarter of the rate of light.py",),
    ),
    "small": Recipe(
        title="A small RetinaNet",
        bases=bases("retinanet_r18_small", "from_nothing"),
        fragment="retinanet_r18_small",
        for_cpus=True,
        largest=(320, 320),
        batch_size=8,
        epochs=12,
        fewest=1000,
        warm_up=50,
    ),
}


def default_model() -> str:
    """Returns the model that suits this machine: ``r18`` with a GPU, else ``lite``."""
    return "r18" if torch.cuda.is_available() else "lite"
