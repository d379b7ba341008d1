"""The line ``tiles``: large pictures are trained on in parts."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config

from fldet.data.slicing.tiles import Tiles
from fldet.errors import ConfigError, UsageError, shorten

log = logging.getLogger("fldet")

_IGNORED_SHARE = 0.5  # of an anchor in an ignored region, above which it is not background


def cut_into_tiles(cfg: Config, ours: Sequence[tuple[type, Any]], datasets: Sequence[Any]) -> None:
    """Tells data sets of a training about the tiles, and assigners about ignored parts, in place.

    Args:
        cfg: has ``tiles``, the arguments of ``fldet.data.slicing.tiles.Tiles``.
        ours: class and keywords of the training data sets that are fldet's.
        datasets: keywords of all of them.

    Raises:
        ConfigError: the line cannot be, or a data set is not of fldet.
    """
    expected = "dict(size=640, overlap=0.2), with visible and empty if need be"
    try:
        Tiles(**cfg.tiles)
    except TypeError:
        raise ConfigError(f"tiles is {shorten(cfg.tiles)}", expected=expected) from None
    except UsageError as error:
        raise ConfigError(f"tiles: {error.message}", expected=error.expected) from None
    if len(ours) < len(datasets):
        raise ConfigError(
            "tiles are cut from data sets of fldet alone",
            expected="training data in COCO, VOC or YOLO format",
        )
    for _, dataset in ours:
        dataset["tiles"] = dict(cfg.tiles)
    for assigner in _assigners(cfg.model.get("train_cfg")):
        if assigner.get("ignore_iof_thr", -1) <= 0:
            assigner["ignore_iof_thr"] = _IGNORED_SHARE
            log.info("tiles: %s.ignore_iof_thr -> %g", assigner["type"], _IGNORED_SHARE)
    cfg.tiles = None  # done: the data sets of the config that is saved have them


def _assigners(node: Any) -> Iterator[Any]:
    """Yields the assigners by IoU anywhere in the ``train_cfg`` of a model."""
    if isinstance(node, (list, tuple)):
        for one in node:
            yield from _assigners(one)
    elif isinstance(node, dict):
        if str(node.get("type")).rpartition(".")[2] == "MaxIoUAssigner":
            yield node
        for one in node.values():
            yield from _assigners(one)
