"""Pretrained weights of backbones: where ``torchvision://`` leads, and what to do without them."""

import contextlib
import inspect
import json
import logging
from collections.abc import Iterator
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError

import mmengine
from mmengine.config import Config
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from fldet.checkpoints.packaged import MissingPackageError
from fldet.errors import CheckpointError, nearest
from fldet.registry import MODELS

log = logging.getLogger("fldet")

PREFIX = "torchvision://"
PRETRAINED = ("Pretrained", "PretrainedInit", "fldet.PackagedWeights")  # types of an init_cfg


@CheckpointLoader.register_scheme(prefixes=PREFIX, force=True)
def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    """Returns the weights that ``torchvision://NAME`` means; torchvision need not be installed.

    MMEngine asks torchvision for the addresses, although it has a list of those with plain names.
    """
    if find_spec("torchvision"):
        return mmengine_checkpoint.load_from_torchvision(filename, map_location)
    path = Path(mmengine.__path__[0], "hub", "torchvision_0.12.json")
    addresses: dict[str, str] = json.loads(path.read_text())
    name = filename.removeprefix(PREFIX)
    if name not in addresses:
        raise CheckpointError(
            f"no pretrained weights are known by the name {filename}",
            expected=nearest(name, addresses),
            hint="newer names need torchvision installed; a file or an address works as well",
        )
    return mmengine_checkpoint.load_from_http(addresses[name], map_location)


@contextlib.contextmanager
def explained_downloads(cfg: Config) -> Iterator[None]:
    """Says what to do when pretrained weights cannot be downloaded, or are not installed."""
    try:
        yield
    except MissingPackageError as error:
        raise MissingPackageError(
            error.message,
            hint=f"{error.hint}; without them: --cfg-options {' '.join(_doing_without(cfg))}",
        ) from error
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        raise CheckpointError(
            f"cannot download the pretrained weights: {error}",
            expected="a connection, or the weights in torch's cache of downloads",
            hint="a file instead: --cfg-options model.backbone.init_cfg.checkpoint=FILE; "
            f"none: {' '.join(_doing_without(cfg))}",
        ) from error


def _doing_without(cfg: Config) -> list[str]:
    """Returns the overrides for a training without pretrained weights."""
    places = {"model.backbone": cfg.model.get("backbone")}
    shared = (cfg.model.get("roi_head") or {}).get("shared_head")
    if _is_pretrained(shared):  # the last stage of the backbone, computed for each region
        places["model.roi_head.shared_head"] = shared
    return [
        override
        for name, part in places.items()
        for override in (f"{name}.init_cfg=None", *_training_all(part, name))
    ]


def _training_all(part: Any, name: str = "model.backbone") -> list[str]:
    """Returns the overrides with which random weights of a part are trained, all of them."""
    part, norm = part or {}, {}
    if isinstance(part.get("norm_cfg"), dict):
        norm = part["norm_cfg"]
    overrides = {
        f"{name}.frozen_stages=-1": part.get("frozen_stages", -1) != -1,
        f"{name}.norm_eval=False": part.get("norm_eval", False),
        f"+{name}.norm_eval=False": "norm_eval" not in part and _fixes_norms(part.get("type")),
        f"{name}.norm_cfg.requires_grad=True": not norm.get("requires_grad", True),
    }
    return [override for override, needed in overrides.items() if needed]


def _fixes_norms(kind: Any) -> bool:
    """Returns whether a backbone keeps the statistics of its norms unless it is told otherwise."""
    cls = MODELS.get(kind) if isinstance(kind, str) else None
    option = inspect.signature(cls).parameters.get("norm_eval") if cls else None
    return option is not None and option.default is True


def warn_of_frozen_random_weights(cfg: Config, model: nn.Module) -> None:
    """Names weights of a backbone that are random and stay so, as none were loaded into it."""
    backbone = getattr(model, "backbone", None)
    if backbone is None or _is_pretrained(cfg.model) or _is_pretrained(cfg.model.get("backbone")):
        return
    # one number for each channel, of a norm, is no random one
    frozen = [one for one in backbone.parameters() if not one.requires_grad and one.ndim > 1]
    if frozen:
        log.warning(
            "%d tensors of the backbone are random and frozen, so they are never trained; "
            "to train them: --cfg-options %s",
            *(len(frozen), " ".join(_training_all(cfg.model.backbone))),
        )


def drop_pretrained(part: Any) -> None:
    """Has all parts of a model's config start without pretrained weights."""
    if isinstance(part, dict):
        if _is_pretrained(part):
            part["init_cfg"] = None
        for value in part.values():
            drop_pretrained(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            drop_pretrained(value)


def _is_pretrained(part: Any) -> bool:
    init = (part or {}).get("init_cfg")
    return any(
        isinstance(one, dict) and one.get("type") in PRETRAINED
        for one in (init if isinstance(init, (list, tuple)) else [init])
    )
