"""The parts of detectors that are not MMDetection's.

Importing this package registers them: each module of the folders below is imported, and each
normalizer of ``fldet.losses``, which knows torch alone, gets the name of its class. So a new part
is one new file.
"""

from importlib import import_module
from inspect import getmembers, isclass
from pathlib import Path
from pkgutil import iter_modules

from torch import nn

from fldet.losses import normalizers
from fldet.moved import moved
from fldet.registry import MODELS

FOLDERS = (
    *("backbones", "necks", "dense_heads", "roi_heads", "detectors", "losses", "task_modules"),
)

for _folder in FOLDERS:
    for _module in iter_modules([str(Path(__file__).parent / _folder)]):
        import_module(f"{__name__}.{_folder}.{_module.name}")

for _, _class in getmembers(normalizers, isclass):
    if _class.__module__ == normalizers.__name__ and issubclass(_class, nn.Module):
        MODELS.register_module(module=_class)

__getattr__ = moved(
    __name__,
    {
        "fldet.models.losses.sigmoid_loss": (
            "FocalLoss",
            "FocalLossStar",
            "CrossEntropyLoss",
            "HingeLoss",
        ),
        "fldet.losses.normalizers": (
            *("CountOverRanks", "CountPerRank", "CountPlusOne", "MovingAverageCount"),
        ),
        "fldet.models.dense_heads.retina_head": ("RetinaHead",),
        "fldet.models.task_modules": ("OHEM", "AnchorGenerator", "HardNegatives", "MaxIoUAssigner"),
    },
)
