"""The twelve COCO box figures.

Two implementations give the same numbers: ``faster_coco_eval`` (C++, the default where it can be
imported) and ``pycocotools`` (the reference). Both print and both write into what they are given,
so they only ever see a copy that holds no more than they need.
"""

import contextlib
import gc
import io
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fldet.errors import UnavailableError
from fldet.evaluation.detections import Detection, check_detections, plain
from fldet.evaluation.figures import COCO_FIGURES, CocoFigures
from fldet.evaluation.ground_truth import GroundTruth, read_ground_truth, restrict

Engine = Literal["auto", "faster", "pycocotools"]
Array = npt.NDArray[np.float64]

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
        engine: ``auto`` takes ``faster`` (faster_coco_eval) if it can be imported, otherwise
            ``pycocotools``.

    Raises:
        DataError: the file cannot be read or is not COCO, or a detection is malformed or names
            an image or category that the file does not have.
        UnavailableError: the engine asked for is not installed.
    """
    truth = ann_file if isinstance(ann_file, GroundTruth) else read_ground_truth(ann_file)
    check_detections(detections, images=truth.images, categories=truth.categories)
    truth = restrict(truth, image_ids, category_ids)
    images, categories = set(truth.images), set(truth.categories)
    kept = [
        one for one in detections if one["image_id"] in images and one["category_id"] in categories
    ]
    name, coco_class, eval_class = _load_engine(engine)
    stats, precision = _run(coco_class, eval_class, truth, kept)
    return CocoFigures(
        summary=dict(zip(COCO_FIGURES, (_or_nan(value) for value in stats), strict=True)),
        per_class=_per_class(truth, precision),
        num_images=len(truth.images),
        num_detections=_count_evaluated(kept),
        engine=name,
    )


def _count_evaluated(detections: Sequence[Detection]) -> int:
    counts = Counter((one["image_id"], one["category_id"]) for one in detections)
    return sum(min(count, _MAX_PER_CLASS) for count in counts.values())


def _load_engine(engine: str) -> tuple[str, Callable[[], Any], Callable[..., Any]]:
    """Returns the engine's name, its data class and its evaluation class."""
    if engine not in ("auto", "faster", "pycocotools"):
        raise ValueError(f"engine must be auto, faster or pycocotools, got {engine!r}")
    if engine in ("auto", "faster"):
        try:
            import faster_coco_eval as faster

            eval_class = partial(faster.COCOeval_faster, print_function=lambda *_: None)
            return "faster", faster.COCO, eval_class
        except ImportError as error:
            if engine == "faster":
                raise UnavailableError(
                    f"faster_coco_eval cannot be imported: {error}",
                    hint="pip install faster-coco-eval, or use engine='pycocotools'",
                ) from None
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return "pycocotools", COCO, COCOeval


def _run(
    coco_class: Callable[[], Any],
    eval_class: Callable[..., Any],
    truth: GroundTruth,
    detections: Sequence[Detection],
) -> tuple[Array, Array]:
    """Returns the twelve figures, -1 where undefined, and the engine's precisions.

    The precisions have the shape (T thresholds, R recalls, K classes in the order of their ids,
    4 size ranges, 3 limits), -1 for classes without ground truth.
    """
    if not truth.images or not truth.categories:
        return np.full(12, -1.0), np.full((1, 1, len(truth.categories), 1, 1), -1.0)
    boxes = (plain(one) for one in detections)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = eval_class(
            _indexed(coco_class(), truth, (dict(one) for one in truth.annotations)),
            _indexed(coco_class(), truth, boxes),
            "bbox",
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats), np.asarray(evaluation.eval["precision"])


def _indexed(coco: Any, truth: GroundTruth, annotations: Iterable[dict[str, Any]]) -> Any:
    """Returns ``coco`` filled with annotations or detections, which it and the engine write into.

    Images are numbered from 1 in their order, so that names will do as ids; annotations too,
    because the engines take a ground truth box with the id 0 for one that is not matched.
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
