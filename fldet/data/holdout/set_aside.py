"""Sets a share of the training images of a data set aside, to validate on."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fldet.data.annotations import flag_of, id_of, image_path, stated_size
from fldet.data.formats.found import SHOWN, FoundData
from fldet.data.holdout.choice import choose
from fldet.data.holdout.copies import Thumbnails, group_copies, read_thumbnails
from fldet.data.image_files import image_size
from fldet.data.image_lists import ONLY, WITHOUT, list_text, part_of
from fldet.errors import DataError, shorten
from fldet.progress import with_progress

log = logging.getLogger("fldet")


@dataclass(frozen=True)
class SetAside:
    """Images that were training images and are validated on."""

    names: tuple[str, ...]  # of their files, sorted
    share: float  # of the images, that was asked for
    images: int  # that there were for training
    groups: int  # of them, near copies being one

    @property
    def text(self) -> str:
        """The list of them as it is written."""
        return list_text(self.names)

    def applied(self, found: FoundData, file: Path) -> FoundData:
        """Returns a data set with the splits that the list in ``file`` makes."""
        train = found.splits["train"]
        parts = {"train": {**train, WITHOUT: str(file)}, "val": {**train, ONLY: str(file)}}
        return replace(found, splits={**found.splits, **parts})

    def divided(self, content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Returns the content of both splits, of that of all images."""
        names = frozenset(self.names)
        return {
            "train": part_of(content, names, listed=False),
            "val": part_of(content, names, listed=True),
        }


def set_aside(found: FoundData, content: Mapping[str, Any], share: float) -> SetAside:
    """Returns the images to set aside, and says which classes and files are left out of that.

    Near copies stay together (``group_copies``); the same data give the same images
    (``choose``). Images that cannot be read, or are of another size than annotated, stay in
    training: a validation does not go on without them.

    Args:
        found: the data set, with a split ``train``.
        content: of that split, as ``found.read`` gives it.
        share: of its images, above 0 and below 1.

    Raises:
        DataError: the images are too few or too alike.
    """
    groups, unread = near_copies(content, found.image_folder("train"))
    classes = {name: set(boxes) for name, boxes in boxes_by_file(content).items()}
    choice = choose(groups, classes, share, stay=unread)
    if choice.not_on_both_sides:
        log.warning(
            "classes that are not both trained and validated, for their images are too few or too "
            "alike: %s",
            first_of([str(one) for one in choice.not_on_both_sides]),
        )
    return SetAside(choice.names, share, len(groups), choice.groups)


def near_copies(content: Mapping[str, Any], folder: Path) -> tuple[dict[str, int], set[str]]:
    """Returns the group of each image by file name, and those that cannot be read, which it says.

    Near copies are of one group (``group_copies``). ``content`` is that of a COCO file, whose file
    names are relative to ``folder``.
    """
    entries = {
        name: one for one in content["images"] if isinstance(name := one.get("file_name"), str)
    }
    names = sorted(entries)
    seen = read_as_annotated(folder, entries)
    unread = {name for name in names if seen.get(name) is None}
    if unread:
        log.warning(
            "images that cannot be read, or not in the annotated size, stay in training: %s",
            first_of(sorted(unread)),
        )
    groups = group_copies([seen.get(name) for name in names], names)
    return dict(zip(names, groups, strict=True)), unread


def read_as_annotated(
    folder: Path, entries: Mapping[str, Mapping[str, Any]]
) -> dict[str, Thumbnails | None]:
    """Returns what is compared, by file name, of images that can be read as they are annotated."""
    paths = {}
    for name, entry in entries.items():
        with suppress(DataError):
            path = image_path(folder, name, "")
            if image_size(path) == stated_size(entry):
                paths[name] = path
    return dict(zip(paths, read_thumbnails(list(paths.values()), _with_progress), strict=True))


def _with_progress(found: Any, total: int) -> Any:
    return with_progress(found, "images compared", total)


def boxes_by_file(content: Mapping[str, Any]) -> dict[str, Counter[str]]:
    """Returns the number of boxes of each class by file name; crowd regions do not count."""
    files = {id_of(one["id"]): one.get("file_name") for one in content["images"]}
    class_of = {id_of(one["id"]): str(one["name"]) for one in content["categories"]}
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for one in content["annotations"]:
        file, name = (
            files.get(id_of(one.get("image_id"))),
            class_of.get(id_of(one.get("category_id"))),
        )
        if isinstance(file, str) and name is not None and not flag_of(one.get("iscrowd")):
            found[file][name] += 1
    return found


def first_of(names: Sequence[str]) -> str:
    """Returns the first names, and how many there are where not all are shown."""
    more = f", ... ({len(names)})" if len(names) > SHOWN else ""
    return f"{', '.join(map(shorten, names[:SHOWN]))}{more}"
