"""What makes the figures of a data set doubtful, though nothing in it is malformed."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from fldet.data.formats.found import SHOWN, FoundData
from fldet.data.holdout.copies import group_copies
from fldet.data.holdout.set_aside import boxes_by_file, first_of, read_as_annotated
from fldet.errors import shorten
from fldet.text import counted

FEW_IMAGES = 5  # of a class in training: with fewer it is hardly learned
FEW_TO_VALIDATE = 30  # images: with fewer, chance decides the figures

Contents = Mapping[str, Mapping[str, Any]]  # by split, as COCO files


def suspicions(contents: Contents) -> list[str]:
    """Returns what is doubtful by the annotations alone, one sentence each."""
    images_of = {
        split: _images_of_classes(content)
        for split, content in contents.items()
        if content["annotations"]  # COCO's own test files have no boxes
    }
    training = images_of.get("train", Counter())
    notes = []
    if few := [name for name, count in training.items() if count < FEW_IMAGES]:
        few.sort(key=lambda name: (training[name], name))
        on = ", ".join(str(training[name]) for name in few[:SHOWN])
        notes.append(
            f"classes that train hardly shows: {first_of(few)}, on {on} image{'s' * (on != '1')}"
        )
    for split in (split for split in ("val", "test") if training and split in images_of):
        if lacking := sorted(training.keys() - images_of[split].keys()):
            notes.append(f"classes of train that {split} lacks: {first_of(lacking)}")
        if unknown := sorted(images_of[split].keys() - training.keys()):
            notes.append(f"classes of {split} that train lacks: {first_of(unknown)}")
    for split in ("val", "test"):
        if split in images_of and (count := len(contents[split]["images"])) < FEW_TO_VALIDATE:
            notes.append(f"{split} has {counted(count, 'image')}: chance decides its figures")
    return notes


def near_copies_in(found: FoundData, contents: Contents) -> list[str]:
    """Returns where images are near copies of others, in a split and between two; reads them all.

    What is between training images and others makes figures too good.
    """
    seen: list[Any] = []
    names: list[str] = []
    splits: list[str] = []
    for split, content in contents.items():
        entries = {str(one.get("file_name")): one for one in content["images"]}
        thumbnails = read_as_annotated(found.image_folder(split), entries)
        seen += [thumbnails.get(name) for name in entries]
        names += entries
        splits += [split] * len(entries)
    groups: dict[int, list[int]] = {}
    for index, group in enumerate(group_copies(seen, names)):
        groups.setdefault(group, []).append(index)
    together = [members for members in groups.values() if len(members) > 1]
    return [*_within(together, names, splits), *_between(together, names, splits)]


def _within(
    together: Sequence[Sequence[int]], names: Sequence[str], splits: Sequence[str]
) -> Iterator[str]:
    for split in dict.fromkeys(splits):
        here = [[i for i in members if splits[i] == split] for members in together]
        copies = [members for members in here if len(members) > 1]
        if count := sum(len(members) - 1 for members in copies):
            a, b = copies[0][:2]
            yield (
                f"near copies in {split}: {counted(count, 'image')}, as {shorten(names[b])} of "
                f"{shorten(names[a])}"
            )


def _between(
    together: Sequence[Sequence[int]], names: Sequence[str], splits: Sequence[str]
) -> Iterator[str]:
    for one, other in combinations(dict.fromkeys(splits), 2):
        both = [
            ([i for i in members if splits[i] == one], [i for i in members if splits[i] == other])
            for members in together
        ]
        both = [(a, b) for a, b in both if a and b]
        if count := sum(len(b) for _, b in both):
            a, b = both[0]
            yield (
                f"near copies of images of {one} in {other}: {counted(count, 'image')}, as "
                f"{shorten(names[b[0]])} of {shorten(names[a[0]])}; figures are too good"
            )


def _images_of_classes(content: Mapping[str, Any]) -> Counter[str]:
    """Returns on how many images each class has a box; crowd regions do not count."""
    return Counter(name for boxes in boxes_by_file(content).values() for name in boxes)
