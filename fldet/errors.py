"""The errors that fldet raises on purpose.

    FldetError             anything that a user can mend; exit code 1
    ├── UsageError         a wrong option or argument; exit code 2
    │   └── ConfigError    a config that cannot be read, or a wrong key or value in it
    ├── DataError          annotation file or images missing or malformed
    │   └── BrokenImageError   one image that cannot be used
    ├── CheckpointError    a checkpoint that is missing, broken or of another model
    ├── UnavailableError   a device, package or version that is not there
    ├── NonFiniteError     a loss that is not finite
    ├── PeerError          another process of the run has failed
    └── StoppedError       not a failure: a signal ended the run; exit code 128 + its number

Any other exception is a defect of fldet and keeps its traceback.
"""

from collections.abc import Iterable
from typing import Any


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


class NonFiniteError(FldetError):
    """A loss that is infinite or not a number."""


class PeerError(FldetError):
    """The failure of another process of the run, seen from this one; the cause is told there."""


class StoppedError(FldetError):
    """A run that a signal has ended in good order.

    Args:
        message: what was done and saved.
        hint: how to go on.
        exit_code: 130 after SIGINT, 143 after SIGTERM.
    """

    def __init__(self, message: str, *, hint: str = "", exit_code: int = 130) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


def nearest(name: str, names: Iterable[str], *, count: int = 3) -> str:
    """Returns ``did you mean a, b?`` for the closest names, or the empty string."""
    import difflib

    close = difflib.get_close_matches(name, names, n=count, cutoff=0.6)
    return f"did you mean {', '.join(close)}?" if close else ""


def shorten(value: Any, limit: int = 120) -> str:
    """Returns a value as text of at most ``limit`` characters, for a message."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
