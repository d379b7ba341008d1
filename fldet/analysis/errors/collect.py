"""What the analysis of mistakes compares: detections and truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fldet.analysis.errors.result import ErrorAnalysis


def collect(
    source: str,
    results: Path,
    split: str,
    images: Path | None,
    worst: int,
    score_thr: float,
    overrides: Sequence[str],
) -> "ErrorAnalysis":
    """Returns the analysis of a file of detections.

    Raises:
        DataError: a file is malformed, or a detection names an id that the truth does not have.
        UsageError: as ``dataset_of``.
    """
    from fldet.analysis.errors.compute import compute
    from fldet.data.annotations import read_annotations
    from fldet.evaluation.detections import check_detections, load_detections
    from fldet.evaluation.ground_truth import read_ground_truth, restrict
    from fldet.evaluation.metrics import map_classes

    if source.endswith(".json"):
        ann_file, image_dir = Path(source), images
        content = read_annotations(ann_file)
        truth = read_ground_truth(content)
    else:
        from fldet.config.load import load_config
        from fldet.config.prepare import dataset_of

        kind, dataset = dataset_of(load_config(source, overrides), split)
        ann_file, image_dir = kind.annotation_file(dataset), images or kind.image_folder(dataset)
        content = kind.read_truth(dataset)
        truth = read_ground_truth(content)
        classes = map_classes(dataset.metainfo["classes"], truth.categories)
        truth = restrict(truth, None, [one for one in classes if one is not None])
    detections = load_detections(results)
    check_detections(detections, images=truth.images, categories=truth.categories)
    names = {one["id"]: one["file_name"] for one in content["images"] if "file_name" in one}
    return compute(
        truth,
        detections,
        names=(ann_file.name, results.name),
        score_thr=score_thr,
        num_worst=worst,
        file_names=names,
        image_dir=image_dir and image_dir.resolve(),
    )
