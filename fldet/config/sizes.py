"""The sizes that a network gets its images in, as the pipelines of a config say."""

from collections.abc import Mapping, Sequence
from typing import Any

from fldet.errors import ConfigError


def warped_size(pipeline: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """Returns the height and width that all images get, whatever they have; None if they differ."""
    resizes = [step for step in pipeline if str(step["type"]).rpartition(".")[2] == "Resize"]
    last = resizes[-1] if resizes else {}
    scale = last.get("scale")
    if last.get("keep_ratio") or not isinstance(scale, (tuple, list)):
        return None
    return int(scale[1]), int(scale[0])


def require_size(pipeline: Sequence[Mapping[str, Any]] | None, shape: tuple[int, int]) -> None:
    """Does nothing where a pipeline may give images of a (height, width), as most may.

    Raises:
        ConfigError: it warps all images to another size, the only one that the network is for.
    """
    size = warped_size(pipeline or ())
    if size in (None, shape):
        return
    (height, width), (wanted, across) = size, shape
    raise ConfigError(
        f"the network never gets an image of {wanted}x{across}: the config warps all of them to "
        f"{height}x{width}",
        expected=f"--shape {height}x{width}, or none",
        hint="another size takes another config: Resize in its pipeline, and the default boxes",
    )
