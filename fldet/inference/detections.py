"""The objects found in images, as something to look at, go through and take elsewhere."""

import base64
import dataclasses
import html
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fldet.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from fldet.pictures.boxes import Image

_MOST_ROWS = 20  # in a notebook
_MOST_IMAGES = 12


class Detection(NamedTuple):
    """One object."""

    name: str
    score: float
    box: tuple[float, float, float, float]  # xyxy in pixels of the image file


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one image, best scores first.

    Going through it gives a ``Detection`` each. A whole number gives one; a slice, a mask or row
    numbers give a part: ``found[found.scores > 0.5]``.

    Attributes:
        boxes: (N, 4) float32 xyxy in pixels of the image file, upright as its EXIF data say.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64 class numbers.
        names: N class names.
        image: the file, or the (H, W, 3) array in BGR order; None if that is not kept.
        size: (width, height) of the image in pixels, if known.
        classes: all names by label, if known.
    """

    boxes: "npt.NDArray[np.float32]"
    scores: "npt.NDArray[np.float32]"
    labels: "npt.NDArray[np.int64]"
    names: tuple[str, ...]
    image: "str | Image | None" = None
    size: tuple[int, int] | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Detection]:
        for name, score, box in zip(self.names, self.scores, self.boxes, strict=True):
            x1, y1, x2, y2 = map(float, box)
            yield Detection(name, float(score), (x1, y1, x2, y2))

    def __getitem__(self, rows: Any) -> Any:
        import numpy as np

        if isinstance(rows, (int, np.integer)):
            return list(self)[rows]
        if not isinstance(rows, slice):
            rows = np.asarray(rows, None if np.size(rows) else int)
        kept = np.arange(len(self))[rows]
        if kept.ndim != 1:
            raise IndexError(f"{rows!r} is neither a number, a slice, a mask nor row numbers")
        return dataclasses.replace(
            self,
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            labels=self.labels[kept],
            names=tuple(self.names[row] for row in kept),
        )

    def __repr__(self) -> str:
        first = [f"{one.name} {one.score:.2f}" for one in list(self)[:5]]
        more = [f"{len(self) - 5} more"] if len(self) > 5 else []
        where = f" in {self.image}" if isinstance(self.image, str) else ""
        return f"<{len(self)} objects{where}: {', '.join([*first, *more])}>".replace(": >", ">")

    def only(self, *names: str) -> "Detections":
        """Returns the objects of some classes."""
        part: Detections = self[[row for row, name in enumerate(self.names) if name in names]]
        return part

    def draw(
        self,
        image: "Image | str | Path | None" = None,
        *,
        hide_labels: bool = False,
        hide_scores: bool = False,
        line_width: int | None = None,
    ) -> "Image":
        """Returns the image with the boxes, (H, W, 3) uint8 in BGR order.

        Args:
            image: the file or the array in BGR order; None is the one that was predicted on.
            hide_labels: without class names.
            hide_scores: without scores.
            line_width: in pixels; None suits the picture and the box.

        Raises:
            UsageError: the image is not known: a frame of a video, or an array that is not kept.
            DataError: it cannot be read.
        """
        from fldet.pictures.boxes import DrawOptions, draw_boxes, read_image

        source = self.image if image is None else image
        if source is None:
            raise UsageError(
                "these detections do not know their image", expected="draw(image), a file or array"
            )
        pixels = read_image(Path(source)) if isinstance(source, (str, Path)) else source
        names = self.classes or _by_label(self.labels.tolist(), self.names)
        options = DrawOptions(hide_labels, hide_scores, line_width)
        return draw_boxes(
            pixels, self.boxes, self.labels, names, scores=self.scores, options=options, smallest=1
        )

    def save(self, path: str | Path, **drawing: Any) -> Path:
        """Writes what ``draw`` returns as ``.jpg``, ``.png`` or another kind; returns the path."""
        from fldet.files import write_atomically

        return write_atomically(Path(path), _encoded(self.draw(**drawing), Path(path).suffix))

    def to_dict(self) -> dict[str, Any]:
        """Returns what a line of ``predictions.jsonl`` has; nothing is rounded."""
        width, height = self.size or (None, None)
        return {
            "file": self.image if isinstance(self.image, str) else None,
            "width": width,
            "height": height,
            "boxes": self.boxes.tolist(),
            "labels": self.labels.tolist(),
            "scores": self.scores.tolist(),
            "names": list(self.names),
        }

    def to_json(self) -> str:
        """Returns ``to_dict`` as JSON."""
        return json.dumps(self.to_dict())

    def to_coco(
        self, image_id: int = 1, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Returns the entries of a COCO results list.

        ``category_ids`` are by label; without them the category is label + 1, as in
        ``results.json`` of ``fldet predict``.
        """
        return [
            {
                "image_id": image_id,
                "category_id": category_ids[label] if category_ids else label + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for (x1, y1, x2, y2), label, score in zip(
                self.boxes.tolist(), self.labels.tolist(), self.scores.tolist(), strict=True
            )
        ]

    def to_supervision(self) -> Any:
        """Returns ``supervision.Detections``: for its trackers, zones and annotators.

        Raises:
            UnavailableError: supervision is not installed.
        """
        import numpy as np

        try:
            from supervision import Detections as Elsewhere
        except ImportError as error:
            raise UnavailableError(
                f"the package supervision cannot be imported: {error}",
                hint="pip install supervision",
            ) from error
        return Elsewhere(
            xyxy=self.boxes.astype(np.float32),
            confidence=self.scores,
            class_id=self.labels.astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def _repr_html_(self) -> str:
        """Returns the picture, where the image is known, and the best objects, for a notebook."""
        picture = ""
        if self.image is not None:
            data = base64.b64encode(_encoded(self.draw(), ".jpg")).decode()
            picture = f'<img src="data:image/jpeg;base64,{data}" style="max-width: 100%">'
        rows = [
            f"<tr><td>{html.escape(one.name)}</td><td>{one.score:.2f}</td>"
            f"<td>{', '.join(f'{value:.0f}' for value in one.box)}</td></tr>"
            for one in list(self)[:_MOST_ROWS]
        ]
        rest = len(self) - _MOST_ROWS
        more = f"<p>{rest} more</p>" if rest > 0 else ""
        head = "<tr><th>class</th><th>score</th><th>x1, y1, x2, y2</th></tr>"
        return f"{picture}<p>{len(self)} objects</p><table>{head}{''.join(rows)}</table>{more}"


class Predictions(list[Detections]):
    """The objects found in several images, in their order: a list that can be shown and saved."""

    def __repr__(self) -> str:
        return f"<{len(self)} images with {sum(map(len, self))} objects>"

    def save(self, folder: str | Path, **drawing: Any) -> list[Path]:
        """Writes each image with its boxes; returns the paths, named by number and file."""
        paths = []
        for number, found in enumerate(self):
            name = Path(found.image).stem if isinstance(found.image, str) else "image"
            paths.append(found.save(Path(folder) / f"{number:06d}_{name}.jpg", **drawing))
        return paths

    def to_coco(self, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Returns a COCO results list; image ids count from 1."""
        numbered = enumerate(self, start=1)
        return [one for image, found in numbered for one in found.to_coco(image, category_ids)]

    def _repr_html_(self) -> str:
        shown = "<hr>".join(found._repr_html_() for found in self[:_MOST_IMAGES])
        rest = len(self) - _MOST_IMAGES
        return shown + (f"<p>{rest} more images</p>" if rest > 0 else "")


def _by_label(labels: Sequence[int], names: Sequence[str]) -> tuple[str, ...]:
    known = dict(zip(labels, names, strict=True))
    return tuple(known.get(label, str(label)) for label in range(max(known, default=-1) + 1))


def _encoded(picture: "Image", ending: str) -> bytes:
    import cv2

    try:
        return cv2.imencode(ending, picture)[1].tobytes()
    except cv2.error:
        raise UsageError(
            f"OpenCV writes no pictures with the ending {ending!r}", expected=".jpg, .png, .webp"
        ) from None
