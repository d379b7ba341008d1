"""The twelve COCO box figures.

Two implementations give the same numbers: ``hotcoco`` (Rust, the default where it can be used) and
``pycocotools`` (the reference).
"""

import contextlib
import functools
import gc
import io
import logging
import math
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fldet.errors import UnavailableError
from fldet.evaluation.detections import Detection, DetectionTable, check_detections
from fldet.evaluation.figures import COCO_FIGURES, CocoFigures
from fldet.evaluation.ground_truth import GroundTruth, read_ground_truth, restrict
from fldet.evaluation.matching import object_table

Engine = Literal["auto", "hotcoco", "pycocotools"]
Array = npt.NDArray[np.float64]

log = logging.getLogger("fldet")

_MAX_PER_CLASS = 100  # detections that COCO looks at per image and class, the best ones


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Stops the collector for a while: it would walk through all the new dicts again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_no_garbage_collection()
def evaluate_coco(
    ann_file: Path | Mapping[str, Any] | GroundTruth,
    detections: Sequence[Detection],
    *,
    image_ids: Iterable[Hashable] | None = None,
    category_ids: Iterable[int] | None = None,
    engine: Engine = "auto",
) -> CocoFigures:
    """Returns the COCO box figures of ``detections``, exactly as the engine computes them.

    Without detections every figure is 0; without ground truth of a kind (a size, a class) the
    figures of that kind are NaN.

    Args:
        ann_file: COCO annotation file, or its content. Missing ``area`` becomes width x height,
            missing ``iscrowd`` 0. Annotations of images that are not listed are left out.
        detections: any number per image; per image and class the 100 with the best scores count.
        image_ids: evaluate these images only; None means all.
        category_ids: evaluate these classes only; None means all.
        engine: ``auto`` takes ``hotcoco`` if it can be used, otherwise ``pycocotools``, and says so
            in the log.

    Raises:
        DataError: the file cannot be read or is not COCO, or a detection is malformed or names
            an image or category that the file does not have.
        UnavailableError: the engine asked for cannot be used here.
    """
    truth = ann_file if isinstance(ann_file, GroundTruth) else read_ground_truth(ann_file)
    check_detections(detections, images=truth.images, categories=truth.categories)
    truth = restrict(truth, image_ids, category_ids)
    found = _those_of(truth, detections)
    name, judge = _choose_engine(engine)
    stats, precision = _figures(judge, truth, found)
    return CocoFigures(
        summary=dict(zip(COCO_FIGURES, (_or_nan(value) for value in stats), strict=True)),
        per_class=_per_class(truth, precision),
        num_images=len(truth.images),
        num_detections=_count_evaluated(found),
        engine=name,
    )


def _those_of(truth: GroundTruth, detections: Sequence[Detection]) -> DetectionTable:
    """Returns the detections of the images and classes of a truth, with their places there."""
    table = DetectionTable.of(detections)
    image = _places(table.images, truth.images)[table.image]
    category = _places(table.categories, tuple(truth.categories))[table.category]
    placed = DetectionTable(
        truth.images, tuple(truth.categories), image, category, table.boxes_xywh, table.scores
    )
    return placed.part((image >= 0) & (category >= 0))


def _places(ids: Iterable[Any], known: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Returns the place of each id among the known ones, -1 for others."""
    place_of = {one: place for place, one in enumerate(known)}
    return np.fromiter((place_of.get(one, -1) for one in ids), np.int64)


def _count_evaluated(found: DetectionTable) -> int:
    groups = found.image * len(found.categories) + found.category
    counts = np.unique(groups, return_counts=True)[1]
    return int(np.minimum(counts, _MAX_PER_CLASS).sum())


# --- engines -------------------------------------------------------------------------------------

Judge = Callable[[GroundTruth, DetectionTable], Any]  # returns an evaluation with its figures


def _choose_engine(engine: str) -> tuple[str, Judge]:
    """Returns an engine's name and the function that evaluates with it."""
    if engine not in ("auto", "hotcoco", "pycocotools"):
        raise ValueError(f"engine must be auto, hotcoco or pycocotools, got {engine!r}")
    if engine != "pycocotools":
        try:
            _require_hotcoco()
            return "hotcoco", _by_hotcoco
        except UnavailableError as error:
            if engine == "hotcoco":
                raise
            log.info("COCO figures by pycocotools: %s", error.message)
    return "pycocotools", _by_pycocotools


def _require_hotcoco() -> None:
    """Does nothing if hotcoco can be used in this process.

    Raises:
        UnavailableError: it cannot be imported, or the process was forked from one that has used
            it: its threads are not there, and it would wait for them for ever.
    """
    try:
        import hotcoco  # noqa: F401
    except ImportError as error:
        raise UnavailableError(
            f"hotcoco cannot be imported: {error}",
            hint="pip install hotcoco, or use engine='pycocotools'",
        ) from None
    if _first_user() != os.getpid():
        raise UnavailableError(
            "hotcoco was used before this process was forked",
            hint="start processes with 'spawn' or 'forkserver', or use engine='pycocotools'",
        )


@functools.cache
def _first_user() -> int:
    """Returns the process that has used hotcoco first; those forked from it say the same."""
    return os.getpid()


def _figures(judge: Judge, truth: GroundTruth, found: DetectionTable) -> tuple[Array, Array]:
    """Returns the twelve figures, -1 where undefined, and the engine's precisions.

    The precisions have the shape (T thresholds, R recalls, K classes in the order of their ids,
    4 size ranges, 3 limits), -1 for classes without ground truth.
    """
    if not truth.images or not truth.categories:
        return np.full(12, -1.0), np.full((1, 1, len(truth.categories), 1, 1), -1.0)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = judge(truth, found)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats), np.asarray(evaluation.eval["precision"])


def _by_hotcoco(truth: GroundTruth, found: DetectionTable) -> Any:
    """Returns hotcoco's evaluation; images and classes are numbered, so that names will do."""
    from hotcoco import COCO, COCOeval

    objects = object_table(truth.annotations, truth.images, tuple(truth.categories))
    ground_truth = COCO.from_arrays(
        [{"id": number} for number in range(len(truth.images))],
        [{"id": number, "name": str(number)} for number in range(len(truth.categories))],
        objects.image,
        objects.label,
        objects.boxes_xywh,
        area=objects.area,
        iscrowd=objects.crowd,
    )
    columns = (found.image, found.boxes_xywh, found.scores, found.category)
    return COCOeval(ground_truth, ground_truth.load_res(np.column_stack(columns)), "bbox")


def _by_pycocotools(truth: GroundTruth, found: DetectionTable) -> Any:
    """Returns the evaluation of the reference, which writes into what it is given."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects = (dict(one) for one in truth.annotations)
    return COCOeval(_indexed(COCO(), truth, objects), _indexed(COCO(), truth, iter(found)), "bbox")


def _indexed(coco: Any, truth: GroundTruth, annotations: Iterable[dict[str, Any]]) -> Any:
    """Returns ``coco`` filled with annotations or detections, which it and the engine write into.

    Images are numbered from 1 in their order, so that names will do as ids; annotations too,
    because pycocotools takes a ground truth box with the id 0 for one that is not matched.
    """
    number = {image: index for index, image in enumerate(truth.images, start=1)}
    filled = []
    for index, one in enumerate(annotations, start=1):
        one["id"], one["image_id"] = index, number[one["image_id"]]
        if "area" not in one:  # a detection
            one["area"], one["iscrowd"] = one["bbox"][2] * one["bbox"][3], 0
        filled.append(one)
    coco.dataset = {
        "images": [{"id": index} for index in number.values()],
        "categories": [{"id": key, "name": name} for key, name in truth.categories.items()],
        "annotations": filled,
    }
    coco.createIndex()
    return coco


def _per_class(truth: GroundTruth, precision: Array) -> dict[str, float]:
    """Returns AP by class name: the mean over thresholds and recalls, all sizes, 100 boxes."""
    return {
        name: _or_nan(values.mean() if (values := precision[:, :, k, 0, -1]).min() > -1 else -1.0)
        for k, name in enumerate(truth.categories.values())
    }


def _or_nan(value: float) -> float:
    return math.nan if value == -1 else float(value)
