"""The drawn data set Shapes behind the registry."""

import logging
from collections.abc import Mapping
from typing import Any

from fldet.data.coco import CocoDataset
from fldet.data.shapes.files import generate_shapes
from fldet.registry import DATASETS

log = logging.getLogger("fldet")


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """Images drawn by ``fldet.data.shapes.files`` below ``data_root``, at the first use.

    Args:
        data_root: folder to draw into, or that holds Shapes drawn with the same numbers.
        num_train: images in the training split.
        num_val: images in the validation split.
        image_size: longer side of the images, in pixels.
        seed: of the drawing.
        **kwargs: of ``fldet.CocoDataset``.

    Raises:
        DataError: ``data_root`` holds something else.
    """

    def __init__(
        self,
        *,
        data_root: str,
        num_train: int = 1600,
        num_val: int = 200,
        image_size: int = 160,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        counts = {"num_train": num_train, "num_val": num_val}
        self.make_files({"data_root": data_root, **counts, "image_size": image_size, "seed": seed})
        super().__init__(data_root=data_root, **kwargs)

    @classmethod
    def make_files(cls, options: Mapping[str, Any]) -> None:
        """Draws the data set unless it is there."""
        names = ("num_train", "num_val", "image_size", "seed")
        generate_shapes(
            options["data_root"],
            **{name: options[name] for name in names if name in options},
            on_progress=_log_progress,
        )


def _log_progress(done: int, total: int) -> None:
    if done % max(1, total // 5) == 0:
        log.info("drawing Shapes: %d/%d images", done, total)
