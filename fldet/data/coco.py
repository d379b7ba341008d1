"""A data set in the COCO format, with the classes that its file has.

Other formats are subclasses: they read their files into what a COCO file holds (``read``), and all
that follows is the same.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mmdet.datasets.base_det_dataset import BaseDetDataset

from fldet.annotations import category_ids, read_annotations, read_class_names
from fldet.errors import DataError, nearest
from fldet.registry import DATASETS


@DATASETS.register_module()
class CocoDataset(BaseDetDataset):
    """Images and boxes of a COCO annotation file.

    Label i is ``metainfo['classes'][i]``, whatever the order and the gaps of the category ids;
    without ``classes`` all categories of the file are used in the order of their ids. Images
    without objects are kept unless ``filter_cfg=dict(filter_empty_gt=True)`` says otherwise.
    Crowd regions become ignored boxes. Boxes without area or outside the image are left out.

    Args:
        **kwargs: of MMEngine's ``BaseDataset``: ``ann_file``, ``data_root``,
            ``data_prefix=dict(img=...)``, ``pipeline``, ``metainfo=dict(classes=...)``,
            ``filter_cfg=dict(filter_empty_gt=..., min_size=...)``, ``indices``, ``test_mode``.

    Raises:
        DataError: the file is missing or malformed, or a class is not in it.
    """

    reads_coco_file: ClassVar[bool] = True

    @classmethod
    def make_files(cls, options: Mapping[str, Any]) -> None:
        """Makes the files of a data set that is drawn rather than found; here there are none.

        Args:
            options: the keywords of the constructor, with ``data_root``.
        """

    @classmethod
    def annotation_file(cls, options: Mapping[str, Any]) -> Path:
        """Returns the path that ``ann_file`` means.

        Args:
            options: keywords of the constructor, here and in the methods below.
        """
        return Path(options.get("data_root") or "", options["ann_file"])

    @classmethod
    def image_folder(cls, options: Mapping[str, Any]) -> Path:
        """Returns the folder that the file names of images are relative to."""
        prefix = (options.get("data_prefix") or {}).get("img", "")
        return Path(options.get("data_root") or "", prefix)

    @classmethod
    def class_names(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the names of all classes that the files have, in the order of their labels.

        Raises:
            DataError: a file is missing or malformed.
        """
        return read_class_names(cls.annotation_file(options))

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the content of the files as a COCO file holds it.

        Raises:
            DataError: a file is missing or malformed.
        """
        return read_annotations(cls.annotation_file(options))

    def load_data_list(self) -> list[dict[str, Any]]:
        """Returns one entry for each image: path, id, size in pixels and instances."""
        path = Path(self.ann_file)
        content = self.read(self._options())
        label_of = self._label_of(category_ids(content["categories"], path), path)
        by_image = defaultdict(list)
        for annotation in content["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        return [
            self._parse_image(image, by_image[image["id"]], label_of, path)
            for image in sorted(content["images"], key=lambda image: image["id"])
        ]

    def filter_data(self) -> list[dict[str, Any]]:
        """Returns the training images that ``filter_cfg`` leaves; all of them in test mode."""
        options = {} if self.test_mode else self.filter_cfg or {}
        smallest, drop_empty = options.get("min_size", 0), options.get("filter_empty_gt", False)
        kept = [
            image
            for image in self.data_list
            if min(image["width"], image["height"]) >= smallest
            and not (drop_empty and all(box["ignore_flag"] for box in image["instances"]))
        ]
        if not kept:
            raise DataError(
                f"{self.ann_file} leaves no image to use, of {len(self.data_list)}",
                expected=f"at least one image that passes filter_cfg={options}",
            )
        return kept

    def _options(self) -> dict[str, Any]:
        """Returns what ``read`` needs; MMEngine has joined the paths to ``data_root``."""
        return {
            "ann_file": self.ann_file,
            "data_prefix": self.data_prefix,
            "metainfo": self._metainfo,
        }

    def _label_of(self, id_of: dict[str, int], path: Path) -> dict[int, int]:
        classes = self.metainfo.get("classes")
        if classes is None:
            classes = tuple(id_of)
            self._metainfo["classes"] = classes
        for name in classes:
            if name not in id_of:
                raise DataError(
                    f"class {name!r} is not in {path}",
                    expected=nearest(name, id_of) or f"one of: {', '.join(id_of)}",
                    hint="leave 'classes' out of the config to use all classes of the file",
                )
        return {id_of[name]: label for label, name in enumerate(classes)}

    def _parse_image(
        self,
        image: Mapping[str, Any],
        annotations: list[dict[str, Any]],
        label_of: dict[int, int],
        path: Path,
    ) -> dict[str, Any]:
        missing = [key for key in ("file_name", "width", "height") if key not in image]
        if missing:
            raise DataError(
                f"{path}: image {image['id']} has no '{missing[0]}'",
                expected="every image has id, file_name, width and height",
            )
        width, height = image["width"], image["height"]
        instances = [parse_instance(one, label_of, width, height) for one in annotations]
        return {
            "img_path": str(Path(self.data_prefix.get("img", "")) / image["file_name"]),
            "img_id": image["id"],
            "width": width,
            "height": height,
            "instances": [instance for instance in instances if instance is not None],
        }


def parse_instance(
    annotation: Mapping[str, Any], label_of: Mapping[int, int], width: int, height: int
) -> dict[str, Any] | None:
    """Returns a box (xyxy, pixels) with its label, or None for one that cannot be learned.

    Left out: other classes, entries marked ``ignore``, boxes that are not finite, thinner than a
    pixel or wholly outside the image.

    Args:
        annotation: with ``bbox`` as x, y, width, height in pixels; ``iscrowd`` may be missing.
        label_of: label by category id.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """
    label = label_of.get(annotation["category_id"])
    x, y, w, h = annotation["bbox"]
    if label is None or annotation.get("ignore", False):
        return None
    inside = min(x + w, width) > max(x, 0) and min(y + h, height) > max(y, 0)
    if not (all(map(math.isfinite, (x, y, w, h))) and inside and w >= 1 and h >= 1):
        return None
    return {
        "bbox": [x, y, x + w, y + h],
        "bbox_label": label,
        "ignore_flag": int(bool(annotation.get("iscrowd", 0))),
    }


def without_unusable(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of a COCO file without the boxes that ``parse_instance`` leaves out."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    labels = {category["id"]: 0 for category in content["categories"]}
    kept = [
        one
        for one in content["annotations"]
        if parse_instance(one, labels, *sizes[one["image_id"]]) is not None
    ]
    return {**content, "annotations": kept}
