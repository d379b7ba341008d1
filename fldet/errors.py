"""The errors that fldet raises on purpose.

    FldetError             anything that a user can mend; exit code 1
    ├── UsageError         a wrong option or argument; exit code 2
    │   └── ConfigError    a config that cannot be read, or a wrong key or value in it
    ├── DataError          annotation file or images missing or malformed
    │   └── BrokenImageError   one image that cannot be used
    ├── CheckpointError    a checkpoint that is missing, broken or of another model
    ├── UnavailableError   a device, package or version that is not there
    ├── FileSystemError    a disk that is full, a folder that may not be written to
    ├── WorkerError        a loader process that was ended from outside
    ├── NonFiniteError     a loss that is not finite
    ├── PeerError          another process of the run has failed
    └── StoppedError       not a failure: a signal ended the run; exit code 128 + its number

Any other exception is a defect of fldet and keeps its traceback.
"""

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# What the system says of a disk and of limits, never of a defect: what is expected, what to do.
_FULL = ("room for the file", "make room, or choose another disk")
_FORBIDDEN = ("a folder that may be written to", "choose another one: --work-dir, --out")
_BROKEN = ("a disk that can be read and written", "look into the system's log")
_TOO_MANY = ("fewer open files than the limit of the system", "raise the limit: ulimit -n 65536")
_OF_THE_SYSTEM = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: ("a file within the limit of this process", "raise the limit: ulimit -f"),
    errno.EROFS: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EIO: _BROKEN,
    errno.ESTALE: _BROKEN,
    errno.EMFILE: _TOO_MANY,
    errno.ENFILE: _TOO_MANY,
}


class FldetError(Exception):
    """An expected failure, printed as three lines without a traceback.

    Args:
        message: what failed, with the offending value.
        expected: what was expected instead, or the nearest valid names; may be empty.
        hint: what to do next, a command to paste where there is one; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, *, expected: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message]
        if self.expected:
            question = self.expected.startswith("did you mean")
            lines.append(self.expected if question else f"Expected: {self.expected}")
        if self.hint:
            lines.append(f"Hint: {self.hint}")
        return "\n".join(lines)


class UsageError(FldetError):
    """A wrong option, argument or combination of them."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file that cannot be read, or a key or value in it that is wrong."""


class DataError(FldetError):
    """An annotation file or image that is missing or malformed."""


class BrokenImageError(DataError):
    """An image that cannot be read, or whose pixels are not those that were annotated."""


class CheckpointError(FldetError):
    """A checkpoint that is missing, broken, or belongs to another model."""


class UnavailableError(FldetError):
    """A device, package or version that this machine does not have."""


class FileSystemError(FldetError):
    """A disk that is full or fails, or a folder that may not be written to."""


class WorkerError(FldetError):
    """A loader process that was ended from outside, or has no shared memory."""


class NonFiniteError(FldetError):
    """A loss that is infinite or not a number."""


class PeerError(FldetError):
    """The failure of another process of the run, seen from this one; the cause is told there."""


class StoppedError(FldetError):
    """A run that a signal has ended in good order; the exit code is 128 + its number."""

    def __init__(self, message: str, *, hint: str = "", exit_code: int = 130) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


@contextlib.contextmanager
def explained_file_errors(path: Path | str = "", *, hint: str = "") -> Iterator[None]:
    """Raises a ``FileSystemError`` for an ``OSError`` of a disk that is full, read-only or failing.

    Others pass as they are. ``path`` is what is meant where the system names none, and ``hint``
    goes behind the advice for the kind of error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_THE_SYSTEM:
            raise
        expected, advice = _OF_THE_SYSTEM[error.errno]
        name = error.filename or path
        raise FileSystemError(
            f"{name}: {error.strerror}" if name else str(error.strerror),
            expected=expected,
            hint=f"{advice}; {hint}" if hint else advice,
        ) from error


def is_of_the_system(error: OSError) -> bool:
    """Returns whether an error is of a disk, a permission or a limit: ``explained_file_errors``."""
    return error.errno in _OF_THE_SYSTEM


def collect(
    read: Callable[[T], R], items: Iterable[T], faults: list[DataError] | None
) -> Iterator[R]:
    """Yields what a function returns for each item, a file as a rule.

    ``faults`` takes the errors of items, which are then left out; None lets the first one pass.
    """
    for item in items:
        try:
            result = read(item)
        except DataError as error:
            if faults is None:
                raise
            faults.append(error)
        else:
            yield result


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns ``did you mean a, b, c?`` for the closest names, or the empty string."""
    import difflib

    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"did you mean {', '.join(close)}?" if close else ""


def shorten(value: Any, limit: int = 120) -> str:
    """Returns a value as ``repr`` writes it, at most ``limit`` characters of it, for a message.

    No more than that is made: a value from a file may be small and its ``repr`` fill the memory,
    as a list of ten lists of ten lists does, each of them ten times the same.
    """
    text = ""
    for piece in _repr_pieces(value, limit):
        text += piece
        if len(text) > limit:
            return f"{text[:limit]}..."
    return text


def _repr_pieces(value: Any, limit: int, depth: int = 0) -> Iterator[str]:
    if depth > limit:  # the brackets alone are longer
        yield "..."
    elif isinstance(value, dict) and value:
        for index, (key, item) in enumerate(value.items()):
            yield ", " if index else "{"
            yield from _repr_pieces(key, limit, depth + 1)
            yield ": "
            yield from _repr_pieces(item, limit, depth + 1)
        yield "}"
    elif type(value) in (list, tuple) and value:
        left, right = "[]" if isinstance(value, list) else "()"
        for index, item in enumerate(value):
            yield ", " if index else left
            yield from _repr_pieces(item, limit, depth + 1)
        yield f",{right}" if right == ")" and len(value) == 1 else right
    elif isinstance(value, (str, bytes)):
        yield repr(value[: limit + 1])
    elif isinstance(value, int) and value.bit_length() > 4 * limit:
        yield f"a number of {value.bit_length()} bits"  # repr refuses those of 4301 digits
    else:
        yield repr(value)
