"""Everything that is wrong with a data set in COCO format, found before a training finds it.

Nothing here builds a data set or a model; images are looked at in processes that start fast.
"""

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fldet.data.annotations import (
    FIELDS,
    Fault,
    annotation_faults,
    box_of,
    id_of,
    image_faults,
    image_path,
    name_fault,
    stated_size,
)
from fldet.data.image_files import ImageFacts, inspect_image, missing_files
from fldet.errors import DataError, shorten
from fldet.files import read_json
from fldet.processes import leave_signals_to_parent

UNREADABLE = "annotation file unreadable"

Entries = list[tuple[int, Mapping[str, Any]]]
Track = Callable[[Iterable[ImageFacts], int], Iterable[ImageFacts]]
Seen = dict[str, tuple[Path, str]]


@dataclass(frozen=True)
class DataProblem:
    """One thing that is wrong."""

    kind: str  # the same words for each of its kind
    file: Path  # the annotation file, or the image file
    entry: str = ""  # place in the annotation file, annotations[3]; empty for the file itself
    id: Any = None  # of the entry
    field: str = ""  # of the entry; empty where the file is meant
    detail: str = ""  # the value that stands there, or what was found


@dataclass(frozen=True)
class DataCheck:
    """What is wrong with an annotation file and its images."""

    ann_file: Path
    image_dir: Path | None  # None if the images were not looked at
    deep: bool  # whether the images were decoded
    images: int  # entries, as are the next two
    annotations: int
    categories: int
    images_read: int  # image files that were looked at
    images_turned: int  # of them, those that EXIF data turn by a quarter
    counts: dict[str, int]  # of problems by kind, the most frequent first
    problems: tuple[DataProblem, ...]


def check_data(
    ann_file: Path,
    image_dir: Path | None = None,
    *,
    deep: bool = False,
    workers: int = 0,
    track: Track = lambda facts, _: facts,
    read: Callable[[list[DataError]], Any] | None = None,
    seen: Seen | None = None,
) -> DataCheck:
    """Returns everything that is wrong with an annotation file and its images.

    A file that cannot be read is a problem like others. Without ``image_dir``, which ``file_name``
    is relative to, no image is looked at; ``deep`` decodes every image instead of reading its
    header and its end, in so many ``workers`` (0: in this process). ``track`` wraps the images'
    facts as they come, with their number, to show progress. ``read`` returns the content of
    annotations in another format, as a COCO file holds it; what is wrong with single files is put
    into its list. ``seen`` are the images of other annotation files, so that one that is in both is
    named; these are put into it.

    Raises:
        DataError: a process that reads images died.
    """
    lists, problems = _read_lists(
        ann_file, read or (lambda _: read_json(ann_file, "annotation file"))
    )
    paths = _image_paths(lists["images"], image_dir)
    facts = _look_at(sorted(set(paths.values())), deep, workers, track)
    sizes = _sizes(lists["images"], paths, facts)
    names = _names(lists["categories"], problems)
    problems += [
        *_category_problems(lists["categories"], ann_file),
        *_id_problems("images", lists["images"], ann_file),
        *_entry_problems("images", lists["images"], image_faults, ann_file),
        *_file_problems(lists["images"], paths, facts),
        *_repeated_images(lists["images"], paths, facts, {} if seen is None else seen, ann_file),
        *_id_problems("annotations", lists["annotations"], ann_file),
        *_entry_problems(
            "annotations",
            lists["annotations"],
            lambda entry: annotation_faults(entry, sizes, names),
            ann_file,
        ),
        *_repeated_annotations(lists["annotations"], ann_file),
    ]
    found = [one for one in facts.values() if one is not None]
    return DataCheck(
        ann_file=ann_file,
        image_dir=image_dir,
        deep=deep,
        images=len(lists["images"]),
        annotations=len(lists["annotations"]),
        categories=len(lists["categories"]),
        images_read=len(found),
        images_turned=sum(one.turned for one in found),
        counts=dict(Counter(problem.kind for problem in problems).most_common()),
        problems=tuple(problems),
    )


# --- the annotation file -------------------------------------------------------------------------


def _read_lists(
    path: Path, read: Callable[[list[DataError]], Any]
) -> tuple[dict[str, Entries], list[DataProblem]]:
    """Returns the three lists as far as they are there, and what is wrong with their frame."""
    lists: dict[str, Entries] = {key: [] for key in FIELDS}
    errors: list[DataError] = []
    try:
        content = read(errors)
    except DataError as error:
        return lists, [DataProblem(UNREADABLE, path, detail=error.message)]
    problems = [DataProblem("malformed file", path, detail=error.message) for error in errors]
    for key in FIELDS:
        found = content.get(key) if isinstance(content, Mapping) else None
        if not isinstance(found, list):
            problems.append(DataProblem("missing list", path, field=key, detail="none in the file"))
            continue
        for index, entry in enumerate(found):
            if isinstance(entry, Mapping):
                lists[key].append((index, entry))
            else:
                detail = shorten(entry)
                problems.append(
                    DataProblem("entry that is no object", path, f"{key}[{index}]", detail=detail)
                )
    return lists, problems


def _names(categories: Entries, problems: Iterable[DataProblem]) -> dict[Any, str] | None:
    """Returns class names by category id, None if the file has no list of them."""
    if any(one.kind == "missing list" and one.field == "categories" for one in problems):
        return None
    return {
        key: str(entry.get("name"))
        for _, entry in categories
        if isinstance(key := id_of(entry.get("id")), int)
    }


def _category_problems(entries: Entries, path: Path) -> Iterator[DataProblem]:
    yield from _id_problems("categories", entries, path)
    seen: set[str] = set()
    for index, entry in entries:
        name = entry.get("name")
        plain = " ".join(name.split()).casefold() if isinstance(name, str) else ""
        if not isinstance(name, str):
            kind = "category without name"
        elif name_fault(name):
            kind = f"category name that {name_fault(name)}"
        elif name in seen:
            kind = "category name given twice"
        elif plain in seen:
            kind = "category names that differ in case or spaces only"
        else:
            kind = ""
        seen |= {name, plain} if isinstance(name, str) else set()
        if kind:
            place = f"categories[{index}]"
            yield DataProblem(kind, path, place, entry.get("id"), "name", shorten(name))


def _id_problems(key: str, entries: Entries, path: Path) -> Iterator[DataProblem]:
    """Yields ids that are missing, of the wrong type or given twice."""
    word = "category" if key == "categories" else key.removesuffix("s")
    seen: set[Any] = set()
    for index, entry in entries:
        stated = entry.get("id")
        value = id_of(stated)
        if key == "categories" and isinstance(value, str):
            kind = "category id that is no number"
        elif value is None:
            # Nothing needs the ids of annotations, and home-made files often lack them.
            kind = "" if key == "annotations" and stated is None else f"{word} without id"
        else:
            kind = f"{word} id given twice" if value in seen else ""
            seen.add(value)
        if kind:
            yield DataProblem(kind, path, f"{key}[{index}]", stated, "id", shorten(stated))


def _repeated_annotations(entries: Entries, path: Path) -> Iterator[DataProblem]:
    """Yields annotations with image, class and box of an earlier one."""
    seen: dict[Any, int] = {}
    for index, entry in entries:
        box = box_of(entry)
        image, category = id_of(entry.get("image_id")), id_of(entry.get("category_id"))
        if box is None or image is None or category is None:
            continue
        first = seen.setdefault((image, category, box), index)
        if first != index:
            kind, place = "annotation given twice", f"annotations[{index}]"
            detail = f"{shorten(entry['bbox'])}, as annotations[{first}]"
            yield DataProblem(kind, path, place, entry.get("id"), "bbox", detail)


def _entry_problems(
    key: str,
    entries: Entries,
    faults_of: Callable[[Mapping[str, Any]], Iterable[Fault]],
    path: Path,
) -> Iterator[DataProblem]:
    for index, entry in entries:
        for fault in faults_of(entry):
            place = f"{key}[{index}]"
            yield DataProblem(fault.kind, path, place, entry.get("id"), fault.field, fault.detail)


# --- the images ----------------------------------------------------------------------------------


def _image_paths(images: Entries, image_dir: Path | None) -> dict[int, str]:
    """Returns the path of an image by the index of its entry, where it has a usable name."""
    paths: dict[int, str] = {}
    if image_dir is not None:
        for index, entry in images:
            with suppress(DataError):  # a problem of the entry
                paths[index] = str(image_path(image_dir, entry.get("file_name"), ""))
    return paths


def _look_at(
    paths: Sequence[str], deep: bool, workers: int, track: Track
) -> dict[str, ImageFacts | None]:
    """Returns what is known of each file by its path, None for one that is missing."""
    missing = set(missing_files(paths))
    there = [path for path in paths if path not in missing]
    with _inspected(there, deep, workers) as found:
        facts = zip(there, track(found, len(there)), strict=True)
        return {**dict.fromkeys(missing), **dict(facts)}


@contextmanager
def _inspected(paths: Sequence[str], deep: bool, workers: int) -> Iterator[Iterable[ImageFacts]]:
    """Gives what ``inspect_image`` returns for each path, in their order."""
    inspect = partial(inspect_image, deep=deep)
    if not workers or not paths:
        yield map(inspect, paths)
        return
    # Spawned, not forked: this process may have threads and has imported torch.
    pool = ProcessPoolExecutor(
        min(workers, len(paths)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=leave_signals_to_parent,
    )
    try:
        yield pool.map(inspect, paths, chunksize=max(1, min(64, len(paths) // (4 * workers))))
    except BrokenProcessPool:
        raise DataError(
            "a process that read images died: a decoder crashed, or memory ran out",
            hint="try --workers 1, and without --deep",
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _sizes(
    images: Entries, paths: Mapping[int, str], facts: Mapping[str, ImageFacts | None]
) -> dict[Any, tuple[float, float] | None]:
    """Returns (width, height) by image id: as the entry says, else as the file is, else None."""
    sizes: dict[Any, tuple[float, float] | None] = {}
    for index, entry in images:
        key = id_of(entry.get("id"))
        if key is None:
            continue
        size = stated_size(entry)
        if size is None and (file := facts.get(paths.get(index, ""))) and not file.fault:
            size = (file.width, file.height)
        sizes[key] = size
    return sizes


def _file_problems(
    images: Entries, paths: Mapping[int, str], facts: Mapping[str, ImageFacts | None]
) -> Iterator[DataProblem]:
    for index, entry in images:
        path = paths.get(index)
        if path is None:
            continue
        for fault in _file_faults(entry, facts[path]):
            file, place = Path(path), f"images[{index}]"
            yield DataProblem(fault.kind, file, place, entry.get("id"), fault.field, fault.detail)


def _repeated_images(
    images: Entries,
    paths: Mapping[int, str],
    facts: Mapping[str, ImageFacts | None],
    seen: Seen,
    ann_file: Path,
) -> Iterator[DataProblem]:
    """Yields images that an earlier entry has, here or in another annotation file.

    The same is a file of the same path and, where the files were read, of the same bytes.
    """
    for index, entry in images:
        name = entry.get("file_name")
        path = paths.get(index) or (os.path.normpath(name) if isinstance(name, str) else None)
        if path is None:
            continue
        file = facts.get(path)
        key = file.digest if file and file.digest else os.path.abspath(path)
        place = f"images[{index}]"
        other, where = seen.setdefault(key, (ann_file, place))
        if (other, where) != (ann_file, place):
            kind = "image listed twice" if other == ann_file else "image of two splits"
            detail = f"{shorten(name)}, as {where}" + f" of {other}" * (other != ann_file)
            yield DataProblem(kind, ann_file, place, entry.get("id"), "file_name", detail)


def _file_faults(entry: Mapping[str, Any], file: ImageFacts | None) -> Iterator[Fault]:
    if file is None:
        yield Fault("image file missing", "file_name", shorten(entry["file_name"]))
        return
    if file.fault:
        yield Fault(file.fault, "file_name", file.detail)
    said, found = stated_size(entry), (file.width, file.height)
    if not file.width or said is None or said == found:
        return
    detail = f"annotation {said[0]:g} x {said[1]:g}, file {found[0]} x {found[1]}"
    if file.turned and said == found[::-1]:
        detail += " when turned upright by its EXIF data, as training does"
    yield Fault("image size differs from the annotation", "width, height", detail)
