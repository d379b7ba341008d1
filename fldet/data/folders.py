"""What lies in the folders of a data set, without what systems and editors put there."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fldet.data.image_files import IMAGE_ENDINGS
from fldet.errors import DataError
from fldet.files import MOST_OF_TEXT, read_text

SPLITS = ("train", "val", "test")
_SPLIT_OF = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "minival"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_OR = dict.fromkeys(("eval", "evaluation", "dev"), "val")  # where none of these stands

MOST_FOLDERS, MOST_ENTRIES, DEEPEST = 10_000, 5_000_000, 32  # below one folder

# Beside names that begin with a dot: .ipynb_checkpoints, .DS_Store, ._a.jpg of macOS.
_OF_THE_SYSTEM = ("__macosx", "@eadir", "$recycle.bin", "lost+found")


def files_below(folder: Path, endings: Iterable[str], *, deepest: int = DEEPEST) -> list[Path]:
    """Returns the regular files with one of the endings in a folder and those in it, sorted.

    Endings are in lower case, those of files may be in any. Hidden files are left out, but the
    folder may be hidden itself. Symbolic links are followed, but not back into a folder above.

    Raises:
        DataError: a folder cannot be read, or there are too many.
    """
    wanted = tuple(endings)
    found = (
        Path(entry.path)
        for entry in _walk(folder, deepest)
        if entry.name.lower().endswith(wanted) and os.path.isfile(entry.path)
    )
    return sorted(found)


def folders_below(folder: Path, *, deepest: int) -> list[Path]:
    """Returns the folders in a folder, the upper ones first, then by name; as ``files_below``."""
    found = (Path(entry.path) for entry in _walk(folder, deepest - 1) if _is_folder(entry))
    return sorted(found, key=lambda path: (len(path.parts), path))


def _walk(folder: Path, deepest: int) -> Iterator[os.DirEntry[str]]:
    """Yields what is in a folder and in those below it, but for what is hidden."""
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(str(folder), ())]
    folders = files = 0
    while waiting:
        path, above = waiting.pop()
        folders += 1
        if folders > MOST_FOLDERS or files > MOST_ENTRIES:
            raise DataError(
                f"{folder} has too much in it for a data set",
                expected=f"at most {MOST_FOLDERS:,} folders and {MOST_ENTRIES:,} files",
                hint="name the folder of the images themselves",
            )
        try:
            facts = os.stat(path)
            with os.scandir(path) as listing:
                entries = [one for one in listing if not _is_hidden(one.name)]
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}", expected="a folder") from None
        here = (facts.st_dev, facts.st_ino)
        if here in above:
            continue
        files += len(entries)
        yield from entries
        if len(above) < deepest:
            waiting += [(one.path, (*above, here)) for one in entries if _is_folder(one)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _OF_THE_SYSTEM


def listing(folder: Path) -> list[Path]:
    """Returns what is in a folder, sorted, without what is hidden; nothing if it is no folder."""
    return sorted(Path(one.path) for one in _walk(folder, 0)) if folder.is_dir() else []


def folder_named(root: Path, names: Iterable[str]) -> Path | None:
    """Returns the first of the named folders below ``root`` ("" is itself), in whatever case."""
    return next((found for name in names if (found := _in_any_case(root, name))), None)


def _in_any_case(root: Path, name: str) -> Path | None:
    if os.path.isdir(root / name):
        return root / name
    found = root
    for part in Path(name).parts:
        same = (one for one in listing(found) if one.name.lower() == part.lower())
        below = next((one for one in same if one.is_dir()), None)
        if below is None:
            return None
        found = below
    return found


def split_of(name: str) -> str | None:
    """Returns the split that words of a name speak of: ``instances_val2017``; or None."""
    words = re.findall(r"[a-z]+", name.lower())
    return next(
        (table[word] for table in (_SPLIT_OF, _OR) for word in words if word in table), None
    )


def split_named(name: str) -> str | None:
    """Returns the split that a name means as a whole: ``Train``, ``val2017``, ``test_1``."""
    word = re.fullmatch(r"([a-z]+)[-_ ]?\d*", name.lower())
    return split_of(name) if word and split_of(word[1]) else None


def split_folders(path: Path, has: Callable[[Path], bool]) -> dict[str, Path]:
    """Returns the folders in a folder that are of a split, one each, and have something."""
    found: dict[str, Path] = {}
    for folder in listing(path):
        split = split_named(folder.name)
        if split is None or not folder.is_dir() or not has(folder):
            continue
        if split in found:
            raise DataError(
                f"{path} has two folders for {split}: {found[split].name} and {folder.name}",
                expected="one",
                hint="move one of them elsewhere",
            )
        found[split] = folder
    return {split: found[split] for split in SPLITS if split in found}


def images_by_stem(folder: Path) -> dict[str, str]:
    """Returns the names of the images in a folder by what stands before their ending.

    Of several, the one whose ending comes first in ``IMAGE_ENDINGS``.
    """
    files = files_below(folder, IMAGE_ENDINGS, deepest=0) if folder.is_dir() else []
    last_wins = sorted(files, key=lambda file: -IMAGE_ENDINGS.index(file.suffix.lower()))
    return {file.stem: file.name for file in last_wins}


def text_lines(path: Path, what: str, *, expected: str, most: int = MOST_OF_TEXT) -> list[str]:
    """Returns the lines of a text file, blanks at their ends removed; empty ones too are there."""
    text = read_text(path, what, expected=expected, most=most)
    return [line.strip() for line in re.split(r"\r\n|\r|\n", text)]
