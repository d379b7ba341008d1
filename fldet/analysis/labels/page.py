"""The page of findings to click through: one HTML file with a crop of the picture for each."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fldet.analysis.labels.result import IN_WORDS, KINDS, Finding, LabelAnalysis
from fldet.errors import DataError
from fldet.files import write_atomically
from fldet.pictures.boxes import Image, read_image, xyxy
from fldet.pictures.pages import as_jpeg, data_uri, page_environment, page_style
from fldet.text import printable

log = logging.getLogger("fldet")

SIDE = 360  # longer side of a crop in the page, in pixels
MAX_BYTES = 30_000  # of its JPEG
_HERE = Path(__file__).parent
_AROUND = 0.75  # of the boxes' longer side, on each side of them
_LEAST_AROUND = 40  # pixels


@dataclass(frozen=True)
class Card:
    """A finding as the page shows it."""

    kind: str
    score: str  # two digits
    words: str  # what is annotated and what was detected
    name: str  # of the file
    data_uri: str  # the crop
    size: tuple[int, int]  # (width, height) of the crop in pixels of the file
    boxes: list[tuple[Any, ...]]  # ``annotated`` or ``detected``, x, y, width, height in the crop


def write_page(analysis: LabelAnalysis, path: Path, most: int) -> Path:
    """Writes the page with the likeliest findings; images that cannot be read are named."""
    shown = analysis.findings[:most]
    text = (
        page_environment(_HERE)
        .get_template("page.html.j2")
        .render(
            source=analysis.source,
            annotations=analysis.annotations,
            findings=len(analysis.findings),
            cards=_cards(analysis, shown),
            counts=Counter(dict.fromkeys(KINDS, 0)) + Counter(one.kind for one in shown),
            kinds=IN_WORDS,
            style=page_style(),
            script=(_HERE / "page.js").read_text(encoding="utf-8"),
        )
    )
    return write_atomically(path, printable(text))


def _cards(analysis: LabelAnalysis, shown: tuple[Finding, ...]) -> list[Card]:
    """Returns the cards in their order; each image is read once."""
    files = {one.image_id: one.file for one in analysis.images}
    by_image: dict[Any, list[int]] = {}
    for place, one in enumerate(shown):
        by_image.setdefault(one.image_id, []).append(place)
    cards: dict[int, Card] = {}
    for image_id, places in by_image.items():
        try:
            if not files[image_id]:
                raise DataError(f"image {image_id!r} has no file")
            picture = read_image(Path(files[image_id]))
        except DataError as error:
            log.warning("not on the page: %s", error.message)
            continue
        name = Path(files[image_id]).name
        cards |= {place: _card(shown[place], picture, name) for place in places}
    return [cards[place] for place in sorted(cards)]


def _card(one: Finding, picture: Image, name: str) -> Card:
    boxes = [("annotated", one.box_xywh), ("detected", one.other_xywh)]
    drawn = [(state, np.array(box)) for state, box in boxes if box is not None]
    corners = xyxy([box for _, box in drawn])
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    around = max(_LEAST_AROUND, _AROUND * float((high - low).max()))
    height, width = picture.shape[:2]
    x1, y1 = np.clip(low - around, 0, (width - 1, height - 1)).astype(int).tolist()
    x2, y2 = np.clip(high + around, (x1 + 1, y1 + 1), (width, height)).astype(int).tolist()
    return Card(
        kind=one.kind,
        score=f"{one.score:.2f}",
        words=words_of(one),
        name=name,
        data_uri=data_uri(as_jpeg(picture[y1:y2, x1:x2], SIDE, MAX_BYTES)),
        size=(x2 - x1, y2 - y1),
        boxes=[(state, *np.round(box - (x1, y1, 0, 0), 1).tolist()) for state, box in drawn],
    )


def words_of(one: Finding) -> str:
    """Returns what is annotated and what was found, in words."""
    found = f"{one.other_label} detected with {one.other_score:.2f}"
    return {
        "missing": f"{found}, no box",
        "spurious": f"{one.label}, nothing detected",
        "moved": f"{one.label}, {found} elsewhere",
        "class": f"annotated {one.label}, {found}",
        "doubled": f"{one.label} and {one.other_label} on one object",
    }[one.kind]
