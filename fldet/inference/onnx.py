"""ONNX models that need nothing but an engine, NumPy and OpenCV: no torch, no MMDetection.

These are the files of ``fldet export`` with the suppression of boxes inside, whose images are
resized and normalized as in fldet's configs. ``fldet.inference.exported`` has all others, and finds
the same boxes in these.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fldet.checkpoints.literals import MOST_PIXELS, class_tuple, read_literals
from fldet.config.decoder import with_decoder
from fldet.data.image_files import (
    broken,
    decode,
    header_of,
    image_bytes,
    part_of_sides,
    whole_shape,
)
from fldet.data.slicing.views import Views
from fldet.errors import (
    CheckpointError,
    DataError,
    FldetError,
    UsageError,
)
from fldet.evaluation.thresholds import Thresholds
from fldet.inference.detections import Detections
from fldet.inference.engines import Array, RunArrays, has_cuda, open_engine
from fldet.inference.image_detector import Image, ImageDetector, require_pixels
from fldet.results import restored

LARGEST_SIDE = 4096  # that an image is resized or padded to


@dataclass(frozen=True)
class PreparedPixels:
    """An image as the network takes it, and what leads back to the file."""

    pixels: npt.NDArray[np.uint8]  # (h, w, 3) BGR, resized, not yet normalized
    factors: npt.NDArray[np.float32]  # (4,) that a box of the file is multiplied by
    height: int  # of the file, upright, in pixels
    width: int
    padded: tuple[int, int]  # (h, w) after padding in a batch of its own
    source: npt.NDArray[np.uint8] | None = None  # the array that was given, None for a file


@dataclass(frozen=True)
class Preparation:
    """What is done to an image, as a description says it in plain steps."""

    scale: tuple[int, int]  # as ``Resize`` takes it
    keep_ratio: bool
    mean: npt.NDArray[np.float32]  # (3,) of each channel, after they are swapped
    std: npt.NDArray[np.float32]
    to_rgb: bool
    size_divisor: int
    smallest: int = 0  # side in pixels that is left of a long, thin image
    largest: tuple[int, int] | None = None  # of ``LoadImage``: a part of a JPEG is enough

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> "Preparation | None":
        """Returns the steps, None if there is one that only MMDetection knows."""
        match description:
            case {
                "pipeline": [
                    {"type": "fldet.LoadImageFromFile", **loading},
                    {
                        "type": "Resize" | "fldet.Resize" as resizer,
                        "scale": (int(), int()) as scale,
                        **resize,
                    },
                    *annotations,
                    {"type": "fldet.PackDetInputs"},
                ],
                "data_preprocessor": {
                    "type": "DetDataPreprocessor"
                    | "mmdet.DetDataPreprocessor"
                    | "fldet.DetDataPreprocessor",
                    "mean": [_, _, _] as mean,
                    "std": [_, _, _] as std,
                    "pad_size_divisor": int(divisor),
                    **pixels,
                },
            } if (
                isinstance(scale, tuple)  # a list means something else
                and (not loading or (resizer, loading) == _in_part(scale, resize))
                and resize.keys() <= {"keep_ratio"}
                and pixels.keys() <= {"bgr_to_rgb"}
                and all(one.get("type") == "LoadAnnotations" for one in annotations)
            ):
                pass
            case _:
                return None
        numbers = (*mean, *(1 / one for one in std if one))
        if not (
            all(0 < one <= LARGEST_SIDE for one in (*scale, divisor))
            and len(numbers) == 6
            and all(isinstance(one, (int, float)) and abs(one) < 1e9 for one in numbers)
        ):
            return None
        return cls(
            scale,
            bool(resize.get("keep_ratio")),
            np.asarray(mean, np.float32),
            np.asarray(std, np.float32),
            bool(pixels.get("bgr_to_rgb")),
            divisor,
            int(resizer == "fldet.Resize"),
            _in_part(scale, resize)[1]["largest"] if loading else None,
        )

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Returns (width, height) of an image after ``Resize``."""
        if not self.keep_ratio:
            return self.scale
        factor = min(max(self.scale) / max(height, width), min(self.scale) / min(height, width))
        sides = int(width * factor + 0.5), int(height * factor + 0.5)
        return max(self.smallest, sides[0]), max(self.smallest, sides[1])

    def batch(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Returns images as (N, 3, H, W), normalized, and padded with zeros."""
        height, width = (
            -(-max(image.shape[side] for image in images) // self.size_divisor) * self.size_divisor
            for side in (0, 1)
        )
        batch = np.zeros((len(images), 3, height, width), np.float32)
        for image, place in zip(images, batch, strict=True):
            values = (image[:, :, ::-1] if self.to_rgb else image).astype(np.float32)
            values -= self.mean
            values /= self.std
            place[:, : image.shape[0], : image.shape[1]] = values.transpose(2, 0, 1)
        return batch


class OnnxDetector(ImageDetector):
    """Finds objects with an ONNX file on the CPU; made by ``load_plain``.

    ``run`` returns boxes, scores, labels and numbers of images for its inputs.
    """

    def __init__(
        self,
        run: RunArrays,
        preparation: Preparation,
        classes: tuple[str, ...],
        lowest_score: float,
    ) -> None:
        self.classes, self.lowest_score = classes, lowest_score
        self._run, self._preparation = run, preparation

    def prepare(self, image: Image) -> PreparedPixels:
        """Returns one image as the network takes it; safe to call from several threads.

        Raises:
            DataError: it cannot be read, or not be resized.
        """
        given = image if isinstance(image, np.ndarray) else None
        if given is not None:
            require_pixels(given)
        if given is None:
            pixels, (height, width) = _read(str(image), self._preparation)
        else:
            pixels, (height, width) = given, given.shape[:2]
        new_width, new_height = self._preparation.size(height, width)
        name = "the array" if given is not None else str(image)
        if not 0 < new_width * new_height <= MOST_PIXELS:
            raise DataError(
                f"the model makes {name} {new_width}x{new_height} pixels large",
                expected=f"1 to {MOST_PIXELS} pixels",
            )
        size = (new_width, new_height)
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        step = self._preparation.size_divisor
        return PreparedPixels(
            pixels,
            np.tile(np.asarray((new_width / width, new_height / height), np.float32), 2),
            *(height, width),
            (-(-new_height // step) * step, -(-new_width // step) * step),
            given,
        )

    def _detect_batch(self, batch: Sequence[PreparedPixels], score_thr: float) -> list[Detections]:
        outputs = self._run(
            {
                "images": self._preparation.batch([one.pixels for one in batch]),
                "sizes": np.asarray([one.pixels.shape[:2] for one in batch], np.float32),
            }
        )
        factors = [one.factors for one in batch]
        return [self.named(*rows) for rows in of_images(outputs, factors, score_thr, self)]


def of_images(
    outputs: Sequence[Array], factors: Sequence[Array], score_thr: float, detector: Any
) -> list[tuple[Array, Array, Array]]:
    """Returns boxes in pixels of the file, scores and labels of each image, best scores first.

    ``factors`` (4,) of an image are those that its boxes were multiplied by.

    Raises:
        UsageError: ``score_thr`` is below the ``lowest_score`` of the file.
    """
    if score_thr < detector.lowest_score:
        raise UsageError(
            f"score_thr {score_thr} is below that of the exported model",
            expected=f"{detector.lowest_score} or more: lower scores are left out in the file",
            hint="fldet export ... --post-process outside leaves the threshold open",
        )
    boxes, scores, labels, images = outputs
    found = []
    for number, factor in enumerate(factors):
        rows = np.flatnonzero((images == number) & (scores >= score_thr))
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        found.append((boxes[rows] / factor, scores[rows], labels[rows]))
    return found


def load_detector(
    checkpoint: Path,
    config: str | None,
    device: str,
    views: Views | None,
    *,
    trust: bool,
    agnostic_nms: bool,
    engine: str | None,
    precision: str | None,
    decoder: str | None,
) -> ImageDetector:
    """Returns what finds objects in the views of each image; torch is imported where it takes part.

    See ``Detector.load`` for the rest, and for the errors.
    """
    if views and decoder == "fast":
        raise UsageError(
            "--decoder fast leaves out pixels that slices and other scales need",
            expected="neither --slice nor --tta with it",
        )
    needs_torch = views or agnostic_nms or precision not in (None, "fp32")
    plain = None if needs_torch else load_plain(checkpoint, device, engine, decoder)
    if plain is not None:
        return plain
    from fldet.inference.detector import Detector

    detector = Detector.load(
        *(checkpoint, config, device),
        trust=trust,
        agnostic_nms=agnostic_nms,
        engine=engine,
        precision=precision,
    )
    if decoder:
        detector.use_decoder(decoder)
    return detector.looking_at(views) if views else detector


def load_plain(
    path: Path, device: str = "auto", engine: str | None = None, decoder: str | None = None
) -> OnnxDetector | None:
    """Returns the detector in an ONNX file that needs no torch; None for any other model.

    Raises:
        CheckpointError: unreadable, or not written by ``fldet export``.
        UnavailableError: the engine is not installed.
        UsageError: there is no such engine or decoder.
    """
    if path.suffix != ".onnx" or not path.is_file() or device not in ("auto", "cpu"):
        return None
    if device == "auto" and engine != "openvino" and has_cuda():
        return None
    run, text = open_engine(path, engine)
    values = read_literals(text, path)
    preparation = Preparation.of(values)
    if preparation and decoder:
        decoded = {**values, "pipeline": with_decoder(values["pipeline"], decoder)}
        preparation = Preparation.of(decoded)
    score_thr, classes = values.get("score_thr"), class_tuple(values.get("classes"), path)
    inside = values.get("post_process") == "inside"
    if not (inside and preparation and classes and isinstance(score_thr, (int, float))):
        return None
    detector = OnnxDetector(run, preparation, classes, float(score_thr))
    detector.use_thresholds(thresholds_of(values.get("thresholds"), classes, path))
    return detector


def thresholds_of(value: Any, classes: tuple[str, ...], path: Path) -> Thresholds | None:
    """Returns the thresholds that a file carries, None if it has none."""
    if value is None:
        return None
    try:
        return restored(Thresholds, {"scores": value}).for_classes(classes)
    except FldetError as error:
        raise CheckpointError(f"{path}: its thresholds: {error.message}") from None


def _in_part(scale: tuple[int, int], resize: Mapping[Any, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the steps of ``with_decoder``: the resizer, and the options of the loader."""
    largest = max(scale), min(scale)
    return "fldet.Resize", {"largest": largest, "keep_ratio": resize.get("keep_ratio", False)}


def _read(path: str, preparation: Preparation) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """Returns an image file as (H, W, 3) uint8 BGR, upright, and (height, width) of the whole."""
    if not os.path.isfile(path):
        raise DataError(f"no such image: {path}")
    data = image_bytes(path)
    header, part = header_of(data), 1
    if preparation.largest:
        part = part_of_sides(data, header, preparation.largest, preparation.keep_ratio)
    image = None if header.fault else decode(data, part)
    if image is None:
        raise broken(path, header.fault or "not an image that can be decoded")
    return image, whole_shape(image.shape, header, part)
