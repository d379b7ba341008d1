"""A data set in the COCO format, with the classes that its file has.

Other formats are subclasses: they read their files into what a COCO file holds (``read``), and all
that follows is the same.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmdet.datasets.base_det_dataset import BaseDetDataset

from fldet.data.annotations import (
    annotation_faults,
    box_of,
    category_ids,
    flag_of,
    id_of,
    image_faults,
    image_path,
    images_by_id,
    is_usable,
    missing_classes,
    read_annotations,
    read_class_names,
)
from fldet.data.image_files import missing_files
from fldet.data.image_lists import ONLY, WITHOUT, listed_content
from fldet.data.images import BrokenImages
from fldet.data.slicing.tiles import Tiles, tiled
from fldet.errors import BrokenImageError, DataError, shorten
from fldet.registry import DATASETS

log = logging.getLogger("fldet")

_KEPT = "box partly outside the image"


@DATASETS.register_module()
class CocoDataset(BaseDetDataset):
    """Images and boxes of a COCO annotation file.

    Label i is ``metainfo['classes'][i]``, whatever the order and the gaps of the category ids;
    without ``classes`` all categories of the file are used in the order of their ids. Images
    without objects are kept unless ``filter_cfg=dict(filter_empty_gt=True)`` says otherwise.
    Crowd regions become ignored boxes. Boxes without area or outside the image are left out, with
    one warning for all of them.

    A broken image (see ``fldet.LoadImage``) of a training set is left out by name, and the next
    image takes its place; in test mode it is an error, for figures must not lose images.

    Args:
        max_broken_images: broken images that training goes on without; 0 stops at the first.
        broken_images_file: where all processes of a run list them, so that each is counted once;
            None counts those that this object meets.
        only_images: JSON list of file names as the annotations have them, relative to
            ``data_root``: all others are left out.
        without_images: such a list: its images are left out.
        tiles: ``fldet.data.slicing.tiles.Tiles`` as a dict: pictures are listed tile by tile.
        **kwargs: of MMEngine's ``BaseDataset``: ``ann_file``, ``data_root``,
            ``data_prefix=dict(img=...)``, ``pipeline``, ``metainfo=dict(classes=...)``,
            ``filter_cfg=dict(filter_empty_gt=..., min_size=...)``, ``indices``, ``test_mode``.

    Raises:
        DataError: the file is missing or malformed, a class is not in it, or the name of an image
            leads out of the folder of images.
    """

    reads_coco_file: ClassVar[bool] = True

    def __init__(
        self,
        *args: Any,
        max_broken_images: int = 10,
        broken_images_file: str | None = None,
        only_images: str | None = None,
        without_images: str | None = None,
        tiles: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.tiles = Tiles(**tiles) if tiles else None
        file = None if broken_images_file is None else Path(broken_images_file)
        self.broken = BrokenImages(max_broken_images, file)
        self.missing_classes: frozenset[str] = frozenset()
        self.lists = {ONLY: only_images, WITHOUT: without_images}
        super().__init__(*args, **kwargs)

    @classmethod
    def make_files(cls, options: Mapping[str, Any]) -> None:
        """Makes the files of a data set that is drawn rather than found; here there are none."""

    @classmethod
    def annotation_file(cls, options: Mapping[str, Any]) -> Path:
        """Returns the path that ``ann_file`` means; the options are those of the constructor."""
        return Path(options.get("data_root") or "", options["ann_file"])

    @classmethod
    def image_folder(cls, options: Mapping[str, Any]) -> Path:
        """Returns the folder that the file names of images are relative to."""
        prefix = (options.get("data_prefix") or {}).get("img", "")
        return Path(options.get("data_root") or "", prefix)

    @classmethod
    def class_names(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the names of all classes that the files have, in the order of their labels."""
        return read_class_names(cls.annotation_file(options))

    @classmethod
    def read(
        cls, options: Mapping[str, Any], faults: list[DataError] | None = None
    ) -> dict[str, Any]:
        """Returns the content of the files as a COCO file holds it.

        ``faults`` takes what is wrong with single files, which are then left out; here it is one.
        """
        del faults
        return listed_content(read_annotations(cls.annotation_file(options)), options)

    @classmethod
    def read_truth(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what the figures count: of a COCO file all its content.

        Of another format, without the boxes that the data set leaves out: no area, or outside the
        image.
        """
        content = cls.read(options)
        return content if cls.reads_coco_file else without_unusable(content)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Returns one entry for each image: path, id, size in pixels and instances."""
        path = Path(self.ann_file)
        content = self.read(self._options())
        id_by_name = category_ids(content["categories"], path)
        label_of = self._label_of(id_by_name, path)
        images = _checked_images(content["images"], path)
        by_image = defaultdict(list)
        for annotation in content["annotations"]:
            if (key := id_of(annotation.get("image_id"))) is None:
                raise _malformed(annotation, path)
            by_image[key].append(annotation)
        left_out: list[Mapping[str, Any]] = []
        entries = [
            self._parse_image(image, by_image.pop(key, []), label_of, left_out)
            for key, image in images.items()
        ]
        for annotations in by_image.values():  # of images that the file does not list
            left_out += annotations
        sizes = {key: (image["width"], image["height"]) for key, image in images.items()}
        names = {number: name for name, number in id_by_name.items()}
        worst = (_worst_fault(annotation, sizes, names) for annotation in left_out)
        _tell_of_left_out(Counter(filter(None, worst)), len(content["annotations"]), path)
        return tiled(entries, self.tiles) if self.tiles else entries

    def prepare_data(self, idx: int) -> Any:
        """Returns an image through the pipeline, or the next image that is not broken.

        Raises:
            BrokenImageError: the image is broken, in test mode.
            DataError: more than ``max_broken_images`` are, or all of the data set.
        """
        for step in range(len(self)):
            try:
                return super().prepare_data((idx + step) % len(self))
            except BrokenImageError as error:
                if self.test_mode:
                    raise
                self.broken.add(error)
        raise DataError(f"all {len(self)} images of {self.ann_file} are broken")

    def check_files(self) -> None:
        """Warns of image files that are not there, by one listing of each folder.

        Raises:
            DataError: they are more than training goes on without; in test mode, one is missing.
        """
        paths = (self.get_data_info(i)["img_path"] for i in range(len(self)))
        missing = missing_files(paths if self.tiles is None else dict.fromkeys(paths))
        if not missing:
            return
        allowed = 0 if self.test_mode else self.broken.limit
        count = f"{len(missing)} of {len(self)} image files of {self.ann_file} are missing"
        text = f"{count}: {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        if len(missing) > allowed:
            raise DataError(
                text,
                expected="every image"
                if self.test_mode
                else f"at most {allowed} (max_broken_images of the training data set)",
                hint="fldet data check CONFIG lists all of them",
            )
        log.warning("%s; training goes on without", text)

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
            **{key: str(Path(self.data_root, file)) for key, file in self.lists.items() if file},
        }

    def _label_of(self, id_by_name: dict[str, int], path: Path) -> dict[int, int]:
        """Returns the label by category id.

        A file may lack a class that another one has. It is a mistake where it looks like one.
        """
        classes = self.metainfo.get("classes")
        if classes is None:
            classes = tuple(id_by_name)
            self._metainfo["classes"] = classes
        missing = missing_classes(classes, id_by_name, path)
        if missing:
            named = ", ".join(missing[:20])
            log.warning("%s lacks %d of the classes: %s", path, len(missing), named)
        self.missing_classes = frozenset(missing)
        return {id_by_name[name]: i for i, name in enumerate(classes) if name in id_by_name}

    def _parse_image(
        self,
        image: Mapping[str, Any],
        annotations: list[dict[str, Any]],
        label_of: dict[int, int],
        left_out: list[Mapping[str, Any]],
    ) -> dict[str, Any]:
        folder = Path(self.data_prefix.get("img", ""))
        name = f"{self.ann_file}: image {shorten(image['id'])}"
        width, height = image["width"], image["height"]
        instances = []
        for annotation in annotations:
            try:
                instance = parse_instance(annotation, label_of, width, height)
            except ValueError:
                raise _malformed(annotation, Path(self.ann_file)) from None
            if instance is None:
                left_out.append(annotation)
            else:
                instances.append(instance)
        return {
            "img_path": str(image_path(folder, image["file_name"], name)),
            "img_id": id_of(image["id"]),
            "width": width,
            "height": height,
            "instances": instances,
        }


def _checked_images(images: Sequence[Mapping[str, Any]], path: Path) -> dict[Any, Any]:
    """Returns the entries of images by id, in the order of the ids; warns of those listed twice."""
    by_id = images_by_id(images, path)
    for image in images:
        for fault in image_faults(image):
            if fault.field != "file_name" or fault.detail == "missing":
                is_what = "no" if fault.detail == "missing" else f"{fault.detail} for"
                raise DataError(
                    f"{path}: image {shorten(id_of(image['id']))} has {is_what} '{fault.field}'",
                    expected="every image has id, file_name, width and height",
                )
    # a name that is no text is refused with its path
    counts = Counter(image["file_name"] for image in images if isinstance(image["file_name"], str))
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        log.warning(
            "%s lists %d images under more than one id, such as %s; fldet data check %s names them",
            *(path, len(twice), shorten(twice[0]), path),
        )
    return by_id


def _malformed(annotation: Mapping[str, Any], path: Path) -> DataError:
    return DataError(
        f"{path}: an annotation is malformed: {shorten(annotation)}",
        expected="image_id, category_id as a whole number, bbox as four numbers x, y, width, "
        "height, and iscrowd, if it is there, 0 or 1",
        hint=f"fldet data check {path} lists everything that is wrong",
    )


def _worst_fault(
    entry: Mapping[str, Any], sizes: Mapping[Any, tuple[float, float]], names: Mapping[Any, str]
) -> str:
    """Returns why an annotation is left out, empty if that is no fault."""
    kinds = (fault.kind for fault in annotation_faults(entry, sizes, names))
    return next((kind for kind in kinds if kind != _KEPT), "")


def _tell_of_left_out(faults: Counter[str], total: int, path: Path) -> None:
    """Logs one line for all annotations that are left out, unless they are all that there are."""
    count, lists_them = faults.total(), f"fldet data check {path} lists them"
    if not count:
        return
    kinds = ", ".join(f"{kind}: {number}" for kind, number in faults.most_common())
    if count == total:
        raise DataError(
            f"{path}: none of the {total} annotations can be used ({kinds})",
            expected="bbox as x, y, width, height in pixels, not in shares of the image; ids of "
            "images and categories as the file lists them",
            hint=lists_them,
        )
    log.warning("%s: %d annotations are left out (%s); %s", path, count, kinds, lists_them)


def parse_instance(
    annotation: Mapping[str, Any], label_of: Mapping[int, int], width: int, height: int
) -> dict[str, Any] | None:
    """Returns a box (xyxy, pixels) with its label, or None for one that cannot be learned.

    Left out: other classes, entries marked ``ignore``, boxes that are not finite, thinner than a
    pixel or wholly outside the image. ``label_of`` is by category id, the size in pixels.

    Raises:
        ValueError: the category is no whole number, the box not four numbers, or ``iscrowd`` or
            ``ignore`` neither yes nor no.
    """
    category, box = id_of(annotation.get("category_id")), box_of(annotation)
    crowd, ignored = flag_of(annotation.get("iscrowd")), flag_of(annotation.get("ignore"))
    if not isinstance(category, int) or box is None or crowd is None or ignored is None:
        raise ValueError("malformed annotation")
    label = label_of.get(category)
    if label is None or ignored or not is_usable(box, width, height):
        return None
    x, y, w, h = box
    return {"bbox": [x, y, x + w, y + h], "bbox_label": label, "ignore_flag": int(crowd)}


def require_boxes(datasets: Sequence[CocoDataset]) -> None:
    """Does nothing if the data sets of a training have boxes to learn from.

    Raises:
        DataError: they have none, or none of a class has ever been listed.
    """
    files = ", ".join(str(dataset.ann_file) for dataset in datasets)
    missing = frozenset.intersection(*(dataset.missing_classes for dataset in datasets))
    if missing:
        raise DataError(
            f"class {shorten(min(missing))} is not in {files}",
            expected="every class in a training data set",
            hint="leave 'classes' out of the config to use all classes of the files",
        )
    instances = (
        one
        for dataset in datasets
        for index in range(len(dataset))
        for one in dataset.get_data_info(index)["instances"]
    )
    if all(one["ignore_flag"] for one in instances):
        raise DataError(
            f"there is no box to learn from in {files}",
            expected="at least one box of a class that is trained, not marked iscrowd",
            hint=f"fldet data check {datasets[0].ann_file} lists what is wrong",
        )


def without_unusable(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of a COCO file without the boxes that ``parse_instance`` leaves out."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    kept = [
        one
        for one in content["annotations"]
        if (box := box_of(one)) and is_usable(box, *sizes[one["image_id"]])
    ]
    return {**content, "annotations": kept}


def numbered(entries: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """Returns images with their ``objects`` as a COCO file holds them; ids count from 1.

    An object has the ``name`` of its class; those of other classes are left out.
    """
    category_of = {name: number for number, name in enumerate(classes, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, entry in enumerate(entries, start=1):
        images.append({"id": number, **_without(entry, "objects")})
        for one in entry["objects"]:
            if category := category_of.get(one["name"]):
                ids = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
                annotations.append({**ids, **_without(one, "name")})
    categories = [{"id": number, "name": name} for name, number in category_of.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _without(entry: Mapping[str, Any], left_out: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != left_out}
