"""Pages: HTML texts that need no other file and no network.

Templates lie beside what they show. Here is what all have in common: the environment that renders
them, with the building blocks in ``parts.html.j2``, their style sheet, and images inside a page.
"""

import base64
import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fldet.pictures.boxes import Image

_HERE = Path(__file__).parent
_QUALITIES = (85, 75, 60, 45, 30, 15)


def page_environment(*folders: Path) -> Environment:
    """Returns what renders templates of some folders with ``parts.html.j2`` of this one.

    ``page_style()`` is their style sheet. Texts are escaped; a name that is not given is an error.
    """
    environment = Environment(
        loader=FileSystemLoader([*folders, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_function"] = _json
    environment.filters |= {
        "figure": _figure,
        "fragment": lambda name: quote(name, errors="replace"),
        "percent_of": _percent_of,
    }
    return environment


def page_style() -> str:
    """Returns the style sheet of pages."""
    return (_HERE / "page.css").read_text(encoding="utf-8")


def as_jpeg(image: Image, side: int, most: int) -> bytes:
    """Returns an image of at most ``side`` pixels a side, in at most about ``most`` bytes."""
    factor = min(1.0, side / max(image.shape[:2]))
    if factor < 1:
        height, width = (max(1, round(length * factor)) for length in image.shape[:2])
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    data = b""
    for quality in _QUALITIES:
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= most:
            break
    return data


def data_uri(jpeg: bytes) -> str:
    """Returns a JPEG as a ``data:`` address."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


def _json(value: Any, **_: Any) -> str:
    """Returns short JSON; a letter that ``printable`` would write otherwise is escaped."""
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")


def _figure(value: float | None, digits: int = 3) -> str:
    """Returns a number, a dash for NaN."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _percent_of(value: float | None, largest: float) -> str:
    share = 0 if value is None or math.isnan(value) else max(0.0, value) / (largest or 1)
    return f"{100 * share:.1f}%"
