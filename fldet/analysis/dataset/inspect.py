"""``fldet data inspect`` as a function: what a folder or file holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fldet.analysis.dataset.summary import DatasetSummary, summarize_content
from fldet.analysis.dataset.suspicions import near_copies_in, suspicions
from fldet.data.formats.found import oddities, used_classes
from fldet.data.formats.recognise import recognise


@dataclass(frozen=True)
class DataInspection:
    """What a data set is, and what is in it."""

    format: str  # in words
    root: Path  # folder that the paths of its files are relative to
    classes: tuple[str, ...]  # names in the order of their ids
    notes: tuple[str, ...]  # a sentence for each oddity
    splits: Mapping[str, DatasetSummary]  # what is in each of them


def inspect_data(
    path: Path, images: Path | None = None, columns: str | None = None, *, copies: bool = False
) -> DataInspection:
    """Returns what the data set in a folder or file is and what is in it.

    Args:
        path: folder of a data set, or its annotation file.
        images: folder of the images, of all but YOLO; None searches for it.
        columns: of a CSV, as for ``recognise``.
        copies: whether near copies are looked for, for which all images are read.

    Raises:
        DataError: the format is not recognised, or a file is malformed.
    """
    found = recognise(path, images, columns)
    contents = {split: found.read(split) for split in found.splits}
    classes, groups = used_classes(contents.values())
    return DataInspection(
        format=found.format,
        root=found.root,
        classes=classes,
        notes=(
            *oddities(found, contents),
            *suspicions(contents),
            *(near_copies_in(found, contents) if copies else ()),
            *(f"{name!r} only groups other classes" for name in groups),
        ),
        splits={
            split: summarize_content(
                content, found.splits[split]["ann_file"], found.image_folder(split)
            )
            for split, content in contents.items()
        },
    )
