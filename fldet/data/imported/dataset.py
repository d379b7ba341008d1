"""The data set of annotations that another tool has written."""

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from os.path import isfile  # unlike pathlib's, false for names that cannot be
from pathlib import Path
from typing import Any, ClassVar

from fldet.data.coco import CocoDataset, numbered
from fldet.data.folders import files_below
from fldet.data.image_files import IMAGE_ENDINGS, image_size
from fldet.data.image_lists import listed_content
from fldet.data.imported import cvat, kitti, label_studio, labelme, table
from fldet.data.imported.labelled import LabelledImage, LeftOut
from fldet.errors import ConfigError, DataError, collect, nearest, shorten
from fldet.registry import DATASETS

log = logging.getLogger("fldet")

READERS = {
    "CVAT": cvat.read,
    "Label Studio": label_studio.read,
    "labelme": labelme.read,
    "KITTI": kitti.read,
    "CSV": table.read,
}


@DATASETS.register_module()
class ImportedDataset(CocoDataset):
    """Images and boxes of CVAT's XML, Label Studio's or labelme's JSON, KITTI's text, or a CSV.

    Polygons, ellipses, masks and turned boxes become the upright boxes around them. Classes are
    those that the files list, else the labels in them, sorted.

    Args:
        format: of ``READERS``.
        columns: of a CSV whose columns have other names: ``dict(image='file', xmin='left', ...)``.
        **kwargs: as ``fldet.CocoDataset``; ``ann_file`` is the file or the folder of files.

    Raises:
        DataError: a file is missing or malformed; the message names it and the place in it.
    """

    reads_coco_file: ClassVar[bool] = False

    def __init__(
        self, *, format: str, columns: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        self.format, self.columns = format, columns
        super().__init__(**kwargs)

    @classmethod
    def class_names(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the labels that the files list, else those in them, sorted."""
        return _classes(options, [*_labelled(options, None, LeftOut({}))])

    @classmethod
    def read(
        cls, options: Mapping[str, Any], faults: list[DataError] | None = None
    ) -> dict[str, Any]:
        """Returns the content of the files as a COCO file holds it; ids count from 1."""
        left_out = LeftOut({})
        labelled = [*_labelled(options, faults, left_out)]
        if left_out.counts:
            log.warning("%s: left out: %s", cls.annotation_file(options), left_out)
        names = ImageNames(cls.image_folder(options))
        entries = [*collect(partial(_entry, names=names), labelled, faults)]
        given = (options.get("metainfo") or {}).get("classes")
        classes = tuple(given or _classes(options, labelled))
        return listed_content(numbered(entries, classes), options)

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "format": self.format, "columns": self.columns}


class ImageNames:
    """The images in a folder and those below it, by the names that annotations have for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str) -> str | None:
        """Returns the image of a name, relative to the folder; None if there is none or several.

        A name may have folders of another machine in front, or another ending.
        """
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        for start in range(len(parts) if ".." not in parts else 0):
            tail = "/".join(parts[start:])
            if isfile(self.folder / tail):
                return tail
        last = Path(parts[-1] if parts else "")
        return self._by_name.get(last.name) or self._by_name.get(last.stem)

    @cached_property
    def _by_name(self) -> dict[str, str]:
        """Paths by name with and without its ending, where it is the only one."""
        found: dict[str, list[str]] = {}
        for file in files_below(self.folder, IMAGE_ENDINGS) if self.folder.is_dir() else ():
            for key in (file.name, file.stem):
                found.setdefault(key, []).append(file.relative_to(self.folder).as_posix())
        return {key: paths[0] for key, paths in found.items() if len(paths) == 1}


def labelled_images(
    format: str, path: Path, columns: Mapping[str, str] | None = None
) -> Iterator[LabelledImage]:
    """Yields what the files of a format say, those that are malformed left out."""
    options = {"format": format, "ann_file": str(path), "columns": columns}
    return _labelled(options, [], LeftOut({}))


def _labelled(
    options: Mapping[str, Any], faults: list[DataError] | None, left_out: LeftOut
) -> Iterator[LabelledImage]:
    name, path = options.get("format"), ImportedDataset.annotation_file(options)
    if name not in READERS:
        raise ConfigError(
            f"fldet.ImportedDataset: format is {shorten(name)}",
            expected=nearest(str(name), READERS) or f"one of {', '.join(READERS)}",
        )
    if not path.exists():
        raise DataError(f"annotation file not found: {path}", expected=f"annotations of {name}")
    more = {"columns": options.get("columns")} if name == "CSV" else {}
    return READERS[name](path, faults, left_out, **more)


def _classes(options: Mapping[str, Any], labelled: list[LabelledImage]) -> tuple[str, ...]:
    path = ImportedDataset.annotation_file(options)
    listed = cvat.classes(path) if options["format"] == "CVAT" else []
    found = {one.label for image in labelled for one in image.shapes}
    return (*dict.fromkeys(listed), *sorted(found - {*listed}))


def _entry(image: LabelledImage, names: ImageNames) -> dict[str, Any]:
    """Returns ``file_name``, ``width``, ``height``, and ``objects`` without ids."""
    file = names.find(image.name)
    if file is None and image.size is None:
        raise DataError(
            f"{image.where}: there is no image {shorten(image.name)} in {names.folder}",
            expected="one file of that name",
            hint="--images FOLDER names the folder",
        )
    width, height = image.size or image_size(names.folder / str(file))
    objects = []
    for one in image.shapes:
        x1, y1, x2, y2 = (round(value, 3) for value in one.corners)
        box = [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)]
        area = max(0.0, box[2]) * max(0.0, box[3])
        objects.append({"name": one.label, "bbox": box, "area": area, "iscrowd": int(one.ignored)})
    name = file or Path(image.name.replace("\\", "/")).name
    return {"file_name": name, "width": width, "height": height, "objects": objects}
