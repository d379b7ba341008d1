"""How all curves of the project look, and how a figure becomes files."""

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fldet.files import write_atomically
from fldet.pictures.lettering import drawable, families

# Okabe and Ito (2008), told apart with any colour vision; the light ones are left out.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
BLUE, VERMILION = COLORS[1:3]
DASHES = ("solid", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (4, 1, 1, 1, 1, 1)))

PLAIN = {
    "font.size": 15,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "fldet",  # the same file each time
}
CURVES = PLAIN | {
    "axes.grid": True,
    "grid.color": "0.9",
    "lines.linewidth": 2.5,
    "legend.frameon": False,
}

_USED = 0.97  # share of the width of a figure that a caption may have
_LOG_FROM = 8  # largest over smallest time from which an axis is logarithmic
_OPTIONS: dict[str, dict[str, Any]] = {"png": {"dpi": 100}, "svg": {"metadata": {"Date": None}}}


@contextmanager
def figure(width: float, height: float, style: dict[str, Any] = CURVES) -> Iterator[Any]:
    """Is an empty Matplotlib figure of so many inches in the project's style; 100 dots an inch.

    Save it inside the block with ``save``: some of the style is looked up only then.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(style):
        new = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(new)
        yield new


def save(drawn: Any, stem: Path, endings: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Writes a figure as PNG and SVG and returns the two paths; ``stem`` is without an ending."""
    choose_fonts(drawn)
    paths = []
    for ending in endings:
        buffer = io.BytesIO()
        drawn.savefig(buffer, format=ending, **_OPTIONS[ending])
        path = stem.with_name(f"{stem.name}.{ending}")
        paths.append(write_atomically(path, buffer.getvalue()))
    return paths


def label(text: str, most: int = 120) -> str:
    """Returns a text from outside as Matplotlib is to draw it: no formula, every letter there.

    At most so many letters are drawn.
    """
    return drawable(text, most).replace("$", r"\$")


def shortened(text: str, length: int) -> str:
    """Returns at most so many letters of a text, the last one for those that are missing."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def small_print(drawn: Any, text: str, size: int = 12, color: str = "0.3") -> None:
    """Writes below a figure how it came about; the layout makes room for it.

    Lines that are wider than the figure are broken.
    """
    from matplotlib.textpath import TextPath

    room = _USED * 72 * drawn.get_figwidth()
    lines = []
    for line in text.splitlines():
        width = TextPath((0, 0), line, size=size).get_extents().width
        lines.append(
            line if width <= room else textwrap.fill(line, int(0.9 * len(line) * room / width))
        )
    text = "\n".join(lines)
    drawn.supxlabel(text, fontsize=size, color=color, x=0.01, ha="left")


def set_logarithmic(axes: Any, letter: str, times: Sequence[float]) -> bool:
    """Makes the axis ``x`` or ``y`` logarithmic if times differ much; returns whether they do."""
    from matplotlib.ticker import LogLocator

    shortest, longest = min(times), max(times)
    if longest <= _LOG_FROM * shortest:
        return False
    axes.set(**{f"{letter}scale": "log", f"{letter}lim": (shortest / 1.4, longest * 1.4)})
    axis = getattr(axes, f"{letter}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    return True


def choose_fonts(drawn: Any) -> None:
    """Has a finished figure look for letters in all fonts that ``label`` has found to have them."""
    from matplotlib.text import Text

    for text in drawn.findobj(Text):
        text.set_fontfamily(families())


def line_style(index: int) -> dict[str, Any]:
    """Returns colour and dashes of the curve with this number, from 0."""
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": DASHES[index % len(DASHES)],
    }


def greek(text: str) -> str:
    """Returns a text with gamma and beta as Matplotlib's letters."""
    return text.replace("gamma", r"$\gamma$").replace("beta", r"$\beta$")
