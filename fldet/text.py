"""Text from outside made fit to be printed and to name a file.

The name of a class or file may hold what a terminal obeys, what turns the letters behind it around,
bytes that are no text, or more letters than a file system allows.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from hashlib import blake2b
from typing import Any, Literal

# Control characters but for tab and line feed, marks that change the direction of writing, and
# halves of a character: so Python reads bytes of a file name that are no text.
_COMMANDS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_NOT_PRINTABLE = re.compile(f"[{_COMMANDS}]")
_NOT_IN_NAMES = re.compile(rf"[{_COMMANDS}\t\n/\\\u2028\u2029]")
_MOST_SECONDS = 1e11
_MARKED = re.compile(r".*\.[0-9a-f]{16}", re.DOTALL)


def printable(text: str) -> str:
    r"""Returns a text with what a terminal would obey as ``\x1b``, as Python writes it."""
    return _NOT_PRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def file_name(name: str, *, marked: bool = False, most: int = 200) -> str:
    """Returns a name for a file: two names give two, and one that is fit stays as it is.

    In others, what cannot be printed or parts folders is ``_``, what is longer than ``most`` bytes
    is cut (file systems take 255), and a hash of the whole follows; ``marked`` writes one behind
    any name. The name is not empty, neither ``.`` nor ``..``.
    """
    clean = _NOT_IN_NAMES.sub("_", name)
    if not marked and clean == name and len(name.encode()) <= most and not _MARKED.fullmatch(name):
        return name
    digest = blake2b(name.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return f"{clean.encode()[: most - 17].decode(errors='ignore')}.{digest}"


def middle_cut(name: str, most: int = 40) -> str:
    """Returns a name of at most so many letters, without its middle: both ends tell names apart."""
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}…{name[len(name) - end :]}"


def terminal() -> Any:
    """Returns stderr for what redraws itself, as a bar does: in commands it obeys nothing else."""
    return getattr(sys.stderr, "obeying", sys.stderr)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns rows as a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(
    header: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    *,
    align: Literal["left", "right"] = "right",
) -> str:
    """Returns rows as a plain text table; the first column is left aligned, others as asked."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    ruler = tuple("-" * width for width in widths)
    return "\n".join(
        "  ".join(
            text.ljust(width) if i == 0 or align == "left" else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, ruler, *rows]
    )


def cell(value: float) -> str:
    """Returns a figure in [0, 1] with three digits, "-" for NaN."""
    return "-" if value != value else f"{value:.3f}"


def counted(count: int, noun: str) -> str:
    """Returns a number and what is counted, in the plural but for one."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def clock(seconds: float) -> str:
    """Returns ``2:05:00`` or ``3 days, 2:05:00``; "-" for NaN, less than 0 and far too many."""
    return str(timedelta(seconds=round(seconds))) if 0 <= seconds <= _MOST_SECONDS else "-"


def duration(minutes: float) -> str:
    """Returns ``2 h 05 min`` or ``12 min``."""
    hours, rest = divmod(max(1, round(minutes)), 60)
    return f"{hours} h {rest:02d} min" if hours else f"{rest} min"
