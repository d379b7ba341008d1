"""What the analysis of mistakes compares: detections and truth."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from fldet.config.prepare import dataset_of
from fldet.data.annotations import read_annotations
from fldet.evaluation.detections import check_detections, load_detections
from fldet.evaluation.ground_truth import GroundTruth, read_ground_truth, restrict
from fldet.evaluation.metrics import map_classes


@dataclass(frozen=True)
class TestedData:
    """Detections and the truth that they were tested on, images and classes of the test only."""

    __test__ = False  # pytest takes it for a test

    truth: GroundTruth  # as ``read_ground_truth`` returned it
    # in the COCO results format, checked against the ids of ``truth``
    detections: Sequence[Mapping[str, Any]]
    file_names: Mapping[Hashable, str] = field(default_factory=dict)  # by image id
    image_dir: Path | None = None  # folder that ``file_names`` are relative to, None if unknown
    annotation_file: Path = Path()  # of the truth
    detections_file: Path = Path()  # of the detections


def collect_detections(
    source: Config | Path, detections_file: Path, *, split: str, image_dir: Path | None
) -> TestedData:
    """Returns detections and their truth: an annotation file, or a split of a config.

    Of a config its classes alone count. ``image_dir`` None takes that of a config.

    Raises:
        DataError: a file is malformed, or a detection names an id that the truth does not have.
        UsageError: as ``dataset_of``.
    """
    if isinstance(source, Path):
        annotation_file = source
        content = read_annotations(source)
        truth = read_ground_truth(content)
    else:
        kind, dataset = dataset_of(source, split)
        annotation_file = kind.annotation_file(dataset)
        image_dir = image_dir or kind.image_folder(dataset)
        content = kind.read_truth(dataset)
        truth = read_ground_truth(content)
        classes = map_classes(dataset.metainfo["classes"], truth.categories)
        truth = restrict(truth, None, [one for one in classes if one is not None])
    return tested_data(truth, content, annotation_file, image_dir, detections_file)


def tested_data(
    truth: GroundTruth,
    content: Mapping[str, Any],
    annotation_file: Path,
    image_dir: Path | None,
    detections_file: Path,
) -> TestedData:
    """Returns the detections of a file with a truth, and what its annotation file's content says.

    Raises:
        DataError: the file is malformed, or names an id that the truth does not have.
    """
    detections = load_detections(detections_file)
    check_detections(detections, images=truth.images, categories=truth.categories)
    names = {one["id"]: one["file_name"] for one in content["images"] if "file_name" in one}
    return TestedData(truth, detections, names, image_dir, annotation_file, detections_file)
