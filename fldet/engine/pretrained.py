"""Pretrained weights of backbones: where ``torchvision://`` leads, and what to do offline."""

import contextlib
import json
from collections.abc import Iterator
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError

import mmengine
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from fldet.errors import CheckpointError, nearest

PREFIX = "torchvision://"


@CheckpointLoader.register_scheme(prefixes=PREFIX, force=True)
def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    """Returns the weights that ``torchvision://NAME`` means; torchvision need not be installed.

    MMEngine asks torchvision for the addresses, although it has a list of those with plain names.

    Raises:
        CheckpointError: the name is unknown.
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
def explained_downloads() -> Iterator[None]:
    """Says what to do when pretrained weights cannot be downloaded.

    Raises:
        CheckpointError: in place of the errors of the network.
    """
    try:
        yield
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        raise CheckpointError(
            f"cannot download the pretrained weights: {error}",
            expected="a connection, or the weights in torch's cache of downloads",
            hint="a file instead: --cfg-options model.backbone.init_cfg.checkpoint=FILE; "
            "none: model.backbone.init_cfg=None",
        ) from error
