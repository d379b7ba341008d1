"""Training images as the network sees them: after the augmentation of a config."""

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope

from fldet.anchors.boxes import anchor_scheme, assign_rule
from fldet.anchors.cover import AnchorScheme, AssignRule, Floats, SeenImage, best_ious
from fldet.config.prepare import prepare_config
from fldet.data.sizes import padded, seeded
from fldet.errors import DataError
from fldet.pictures.boxes import read_image
from fldet.registry import DATASETS


def augmented_images(
    cfg: Config, *, count: int = 16, seed: int = 0
) -> tuple[list[SeenImage], tuple[str, ...], AssignRule]:
    """Returns random training images after the config's pipeline, class names, and the assigner.

    At most ``count``; images that cannot be read are passed over. ``seed`` is that of the choice
    and of the augmentation.

    Raises:
        ConfigError: the anchors or the assigner are of another kind than RetinaNet's.
        DataError: files are missing or malformed, or no image can be read.
    """
    prepared = prepare_config(cfg, phases=("train",))
    init_default_scope(prepared.get("default_scope", "mmdet"))
    scheme, rule = anchor_scheme(prepared), assign_rule(prepared)
    divisor = (prepared.model.get("data_preprocessor") or {}).get("pad_size_divisor", 1)
    dataset = DATASETS.build(prepared.train_dataloader.dataset)
    seen: list[SeenImage] = []
    with seeded(seed):
        for index in np.random.permutation(len(dataset)).tolist():
            if len(seen) == count:
                break
            if _can_be_read(dataset, index):
                seen.append(_seen(dataset[index], scheme, divisor))
    if not seen:
        raise DataError("no image of the training split can be read")
    return seen, tuple(dataset.metainfo["classes"]), rule


def _can_be_read(dataset: Any, index: int) -> bool:
    try:
        read_image(Path(dataset.get_data_info(index)["img_path"]))
    except DataError:
        return False
    return True


def _seen(packed: dict[str, Any], scheme: AnchorScheme, divisor: int) -> SeenImage:
    """Returns what ``PackDetInputs`` packed."""
    image = np.ascontiguousarray(packed["inputs"].numpy().transpose(1, 2, 0))
    sample = packed["data_samples"]
    parts = sample.gt_instances, sample.ignored_instances
    boxes = np.concatenate([_boxes(part) for part in parts])
    crowd = np.repeat([False, True], [len(part) for part in parts])
    size = np.array([image.shape[1::-1]], np.int64)
    padded_wh = np.repeat(padded(size, divisor), len(boxes), axis=0)
    return SeenImage(
        name=Path(sample.img_path).name,
        image=np.clip(image, 0, 255).astype(np.uint8),
        boxes=boxes,
        labels=np.concatenate([part.labels.numpy() for part in parts]).astype(np.int64),
        crowd=crowd,
        best_iou=best_ious(boxes, padded_wh, scheme),
    )


def _boxes(instances: Any) -> Floats:
    boxes = instances.bboxes
    return np.asarray(getattr(boxes, "tensor", boxes), np.float32).reshape(-1, 4)
