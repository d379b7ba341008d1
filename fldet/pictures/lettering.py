"""Which font has a letter, and text as pixels.

Matplotlib brings DejaVu Sans with Latin, Greek, Cyrillic and Arabic letters; Chinese, Japanese and
Korean ones come from a font of the system, as a font with them has 5 to 20 MB. A letter that no
font here has is written as its number, ``⟨7BB1⟩``, so that two names never look the same for want
of a font.
"""

import logging
import os
import unicodedata
from functools import cache, lru_cache
from hashlib import blake2b
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

log = logging.getLogger("fldet")

_MARK = "⟨"  # a name that has it gets it as a number
_MOST_FONTS = 60
# Families with many letters come first; styles, and colours that Pillow cannot draw, not at all.
_PREFERRED = (
    *("cjk", "sourcehan", "wqy", "fallback", "msyh", "simhei", "pingfang", "hiragino"),
    *("malgun", "applegothic", "unicode", "unifont", "notosans"),
)
_LEFT_OUT = ("bold", "italic", "oblique", "emoji", "mono", "condensed", "light", "thin", "black")
_NO_LETTERS = ("Cc", "Cs", "Cn", "Co", "Zl", "Zp")
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def drawable(text: str, most: int = 120) -> str:
    """Returns a text of at most so many letters that can be drawn, another one for each text."""
    letters = (letter if _is_drawn(letter) else f"{_MARK}{ord(letter):X}⟩" for letter in text)
    drawn = "".join(letters)
    if len(drawn) <= most:
        return drawn
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    return f"{drawn[: most - 12]}... {digest}"


@lru_cache(maxsize=2048)
def text_mask(text: str, size: int) -> npt.NDArray[np.uint8]:
    """Returns a drawable text as (1.3 * size, W) uint8, its base line ``size`` pixels down."""
    runs = [(_font(path, size), run) for path, run in _runs(text)]
    widths = [font.getlength(run) for font, run in runs]
    canvas = Image.new("L", (max(1, round(sum(widths)) + 2), round(1.3 * size)))
    draw = ImageDraw.Draw(canvas)
    left = 1.0
    for (font, run), width in zip(runs, widths, strict=True):
        draw.text((left, size), run, fill=255, font=font, anchor="ls")
        left += width
    return np.asarray(canvas)


def families() -> list[str]:
    """Returns the names, for Matplotlib, of DejaVu Sans and the fonts that were needed so far."""
    from matplotlib.font_manager import fontManager

    for path in _needed - _told:
        fontManager.addfont(path)
        _told.add(path)
    return ["DejaVu Sans", *sorted(_face(path).family_name for path in _needed)]


_needed: set[str] = set()
_told: set[str] = set()


def _is_drawn(letter: str) -> bool:
    if letter.isascii():
        return letter.isprintable()
    return letter != _MARK and _font_of(letter) is not None


@cache
def _font_of(letter: str) -> str | None:
    """Returns the file of the first font that has a letter."""
    if unicodedata.category(letter) in _NO_LETTERS or letter in _TURNS:
        return None
    if letter.isascii() or _has(_own_font(), letter):  # DejaVu has all of ASCII
        return _own_font()
    for path in _system_fonts():
        if _has(path, letter):
            _needed.add(path)
            return path
    _say_what_is_missing()
    return None


def _has(path: str, letter: str) -> bool:
    face = _face(path)
    return face is not None and bool(face.get_char_index(ord(letter)))


@cache
def _say_what_is_missing() -> None:
    log.info(
        "no font here has all letters of the texts in pictures: these are drawn as numbers, as in "
        "⟨7BB1⟩; a font of the system with them is found, Noto Sans CJK for Chinese"
    )


@cache
def _own_font() -> str:
    file = os.path.join("fonts", "ttf", "DejaVuSans.ttf")
    spec = find_spec("matplotlib")  # looked for, not imported: that takes a quarter of a second
    if spec is not None and spec.origin is not None:
        beside = os.path.join(os.path.dirname(spec.origin), "mpl-data", file)
        if os.path.isfile(beside):
            return beside
    from matplotlib import get_data_path

    return os.path.join(get_data_path(), file)


@cache
def _system_fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import findSystemFonts

    found = []
    for path in findSystemFonts():
        name = os.path.basename(path).lower()
        if not any(word in name for word in _LEFT_OUT):
            rank = [word in name for word in _PREFERRED]
            found.append((not any(rank), rank.index(True) if any(rank) else 0, path))
    return tuple(path for *_, path in sorted(found)[:_MOST_FONTS])


@lru_cache(maxsize=_MOST_FONTS + 1)
def _face(path: str) -> Any:
    """Returns what knows the letters of a font file, None for one that cannot be used."""
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(path, 20)
        return FT2Font(path)
    except (OSError, RuntimeError, ValueError):
        return None


@lru_cache(maxsize=64)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _runs(text: str) -> list[tuple[str, str]]:
    """Returns a text in parts of one font each; a mark over a letter stays with the letter."""
    runs: list[tuple[str, str]] = []
    for letter in text:
        path = _font_of(letter) or _own_font()
        if runs and (path == runs[-1][0] or unicodedata.combining(letter)):
            runs[-1] = (runs[-1][0], runs[-1][1] + letter)
        else:
            runs.append((path, letter))
    return runs
