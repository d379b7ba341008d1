"""Detections beside their truth, with folds where there are some: what analyses of both read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fldet.data.annotations import category_ids, id_of, image_path, read_annotations
from fldet.errors import DataError, UsageError
from fldet.evaluation.detections import check_detections, load_detections
from fldet.evaluation.ground_truth import GroundTruth, read_ground_truth
from fldet.evaluation.out_of_fold import read_out_of_fold


@dataclass(frozen=True)
class Detected:
    """Detections of images by a model that was not trained on them."""

    content: Mapping[str, Any]  # of the annotation file
    truth: GroundTruth
    detections: list[dict[str, Any]]  # in the COCO results format, with the ids of ``truth``
    source: str  # of both, in words
    fold_of_image: Mapping[Any, int] = field(default_factory=dict)  # by id; empty without folds
    image_dir: Path | None = None  # None: unknown, or the names are paths

    def file_of(self, image: Mapping[str, Any]) -> Path:
        """Returns the file of an entry of ``images``.

        Raises:
            DataError: it has no name, or one that leaves the folder.
        """
        name = image.get("file_name")
        if self.image_dir is None and isinstance(name, str) and Path(name).is_absolute():
            return Path(name)
        return image_path(self.image_dir or Path(), name, f"image {image['id']!r}")


def read_detected(
    folder: Path | None,
    detections: Path | None = None,
    annotations: Path | None = None,
    images: Path | None = None,
) -> Detected:
    """Returns what a cross-validation has found, or two files as ``fldet test`` takes and writes.

    Args:
        folder: of ``fldet cross-validate``; None if two files are given.
        detections: in the COCO results format.
        annotations: their truth in COCO's format.
        images: folder of the images, where it is another than the annotations say.

    Raises:
        UsageError: neither a folder nor two files.
        DataError: a file is missing or malformed, or a score is not in [0, 1].
    """
    if folder is not None and detections is None and annotations is None:
        found = read_out_of_fold(folder)
        source = f"{folder}, {found.folds.count} folds"
        content, entries, fold_of = found.truth, found.detections, found.fold_of_image
    elif folder is None and detections is not None and annotations is not None:
        content, entries, fold_of = read_annotations(annotations), load_detections(detections), {}
        source = f"{detections.name} on {annotations.name}"
        check_detections(
            entries,
            images=[id_of(one["id"]) for one in content["images"]],
            categories=category_ids(content["categories"], annotations).values(),
        )
    else:
        raise UsageError(
            "either FOLDS_DIR, or both --detections and --annotations",
            hint="fldet cross-validate CONFIG writes FOLDS_DIR, fldet test --out FILE detections",
        )
    for place, one in enumerate(entries):
        if not 0 <= one["score"] <= 1:
            raise DataError(
                f"detection {place} has the score {one['score']!r}",
                expected="probabilities in [0, 1]",
            )
    return Detected(content, read_ground_truth(content), entries, source, fold_of, images)
