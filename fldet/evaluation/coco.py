"""The twelve COCO box figures, the results file, and the metric that MMEngine calls.

Two implementations give the same numbers: ``faster_coco_eval`` (C++, the default where it can be
imported) and ``pycocotools`` (the reference). Both print and both write into what they are given,
so they only ever see a copy that holds no more than they need.

A detection is a dict of the COCO results format: ``image_id``, ``category_id``,
``bbox`` = [x, y, width, height] in pixels of the original image, ``score``.
"""

import contextlib
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mmengine.evaluator import BaseMetric

from fldet.errors import DataError, UnavailableError, nearest
from fldet.registry import METRICS
from fldet.results import COCO_FIGURES, CocoFigures, write_atomically

Engine = Literal["auto", "faster", "pycocotools"]
Detection = Mapping[str, Any]
Array = npt.NDArray[np.float64]

_DETECTION_KEYS = ("image_id", "category_id", "bbox", "score")
_LAYOUT = (
    "a COCO file has the lists 'images', 'annotations' and 'categories', each entry its own id"
)
_RESULTS = (
    "the COCO results format: a list of objects with image_id, category_id, "
    "bbox [x, y, width, height] and score"
)
_MAX_PER_CLASS = 100  # detections that COCO looks at per image and class, the best ones


@dataclass(frozen=True)
class GroundTruth:
    """What the evaluation needs of an annotation file.

    Attributes:
        images: image ids, sorted: among equal scores COCO's order is that of the images.
        categories: class name by category id.
        annotations: dicts with image_id, category_id, bbox (xywh), area (pixels), iscrowd (0, 1).
    """

    images: tuple[Hashable, ...]
    categories: dict[int, str]
    annotations: tuple[dict[str, Any], ...]


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
    truth = _restrict(truth, image_ids, category_ids)
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


# --- ground truth --------------------------------------------------------------------------------


def read_ground_truth(source: Path | Mapping[str, Any]) -> GroundTruth:
    """Reads and checks a COCO annotation file, or its content, which stays as it is.

    Raises:
        DataError: no such file, not JSON, a missing or malformed entry, an id given twice.
    """
    name = "the annotations" if isinstance(source, Mapping) else str(source)
    content = source if isinstance(source, Mapping) else _read_json(source, "annotation file")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, Mapping) or not isinstance(content.get(key), list):
            raise DataError(f"{name} has no list {key!r}", expected=_LAYOUT)
    images = _image_ids(content["images"], name)
    categories = _categories(content["categories"], name)
    annotations = (
        _annotation(entry, categories, f"{name}: annotation {index}")
        for index, entry in enumerate(content["annotations"])
    )
    known = set(images)
    return GroundTruth(
        images, categories, tuple(one for one in annotations if one["image_id"] in known)
    )


def _image_ids(images: list[Any], name: str) -> tuple[Hashable, ...]:
    try:
        ids = sorted(image["id"] for image in images)
    except (KeyError, TypeError):
        raise DataError(
            f"{name}: an image has no 'id', or ids are of different kinds",
            expected="every image has an 'id', an integer; no two images share one",
        ) from None
    repeated = [one for one, following in pairwise(ids) if one == following]
    if repeated:
        raise DataError(f"{name}: two images have the id {repeated[0]!r}", expected=_LAYOUT)
    return tuple(ids)


def _categories(categories: list[Any], name: str) -> dict[int, str]:
    try:
        by_id = {int(one["id"]): str(one["name"]) for one in categories}
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{name}: a category lacks 'id' or 'name'", expected=_LAYOUT) from None
    if len(set(by_id.values())) < len(categories):
        raise DataError(f"{name}: two categories have the same id or name", expected=_LAYOUT)
    return dict(sorted(by_id.items()))


def _annotation(entry: Any, categories: Mapping[int, str], name: str) -> dict[str, Any]:
    """Returns a copy of what matters, with ``area`` and ``iscrowd`` filled in."""
    try:
        image_id, category_id, box = entry["image_id"], entry["category_id"], entry["bbox"]
        _, _, width, height = box
        area = width * height if entry.get("area") is None else entry["area"]
        crowd = int(bool(entry.get("iscrowd", 0)))
        bad = not all(map(math.isfinite, (*box, area)))
        hash((image_id, category_id))
    except KeyError as error:
        raise DataError(f"{name} has no {error}", expected=_LAYOUT) from None
    except (TypeError, ValueError, AttributeError):
        bad = True
    if bad:
        raise DataError(
            f"{name} is malformed: {_short(entry)}",
            expected="'bbox' holds four finite numbers: x, y, width, height",
        )
    if category_id not in categories:
        raise DataError(
            f"{name} has the category_id {category_id!r}, which no category has",
            expected=f"the ids of the categories are {_short(list(categories))}",
        )
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [float(value) for value in box],
        "area": float(area),
        "iscrowd": crowd,
    }


def _restrict(
    truth: GroundTruth, image_ids: Iterable[Hashable] | None, category_ids: Iterable[int] | None
) -> GroundTruth:
    """Returns the ground truth of the chosen images and classes."""
    images = _choose(truth.images, image_ids, "image")
    categories = _choose(truth.categories, category_ids, "category")
    return GroundTruth(
        tuple(one for one in truth.images if one in images),
        {key: name for key, name in truth.categories.items() if key in categories},
        tuple(
            one
            for one in truth.annotations
            if one["image_id"] in images and one["category_id"] in categories
        ),
    )


def _choose(known: Iterable[Hashable], wanted: Iterable[Hashable] | None, kind: str) -> set[Any]:
    chosen = set(known if wanted is None else wanted)
    unknown = chosen - set(known)
    if unknown:
        raise DataError(
            f"no {kind} has the id {_short(min(unknown, key=repr))}",
            expected=f"an id of the annotation file, such as {_short(list(known)[:5])}",
        )
    return chosen


# --- detections ----------------------------------------------------------------------------------


def check_detections(
    detections: Sequence[Detection],
    *,
    images: Iterable[Hashable] | None = None,
    categories: Iterable[int] | None = None,
) -> None:
    """Does nothing if every detection is well formed and names known ids.

    Args:
        detections: in the COCO results format; ``bbox`` of finite numbers, no negative size.
        images: the ids there are; None accepts any.
        categories: the ids there are; None accepts any.

    Raises:
        DataError: naming the first detection that is not, its position counted from 0.
    """
    images = None if images is None else set(images)
    categories = None if categories is None else set(categories)
    for index, one in enumerate(detections):
        if fault := _fault(one):
            raise DataError(
                f"detection {index} is malformed, {fault}: {_short(one)}", expected=_RESULTS
            )
        for key, known in (("image_id", images), ("category_id", categories)):
            if known is not None and one[key] not in known:
                raise DataError(
                    f"detection {index} has the {key} {one[key]!r}, "
                    "which the annotation file does not have",
                    expected="ids of the annotation file that is evaluated against, such as "
                    f"{_short(list(known)[:5])}",
                )


def _fault(one: Any) -> str:
    """Returns what is wrong with a detection, empty if nothing is."""
    if not isinstance(one, Mapping):
        return "not an object"
    for key in _DETECTION_KEYS:
        if key not in one:
            return f"no {key!r}"
    if not isinstance(one["category_id"], Integral):
        return "'category_id' is not an integer"
    if not isinstance(one["image_id"], (Integral, str)):
        return "'image_id' is not an integer"
    box = one["bbox"]
    if not isinstance(box, Sequence) or len(box) != 4:
        return "'bbox' is not a list of four numbers"
    if not all(isinstance(value, Real) and math.isfinite(value) for value in (*box, one["score"])):
        return "'bbox' or 'score' is not finite"
    return "'bbox' has a negative size" if box[2] < 0 or box[3] < 0 else ""


def save_detections(path: Path, detections: Sequence[Detection]) -> Path:
    """Writes detections as the COCO server takes them, atomically, one a line.

    Nothing is rounded: read back, every number is the same to the last bit, and so are the
    figures. About 140 bytes each.

    Raises:
        DataError: a detection is malformed.
    """
    check_detections(detections)
    lines = (json.dumps(_plain(one), separators=(",", ":")) for one in detections)
    return write_atomically(path, "[" + ",\n".join(lines) + "]\n")


def load_detections(path: Path) -> list[dict[str, Any]]:
    """Reads detections in the COCO results format, whoever wrote them.

    Raises:
        DataError: no such file, not JSON, not a list, or a malformed detection.
    """
    content = _read_json(path, "results file")
    if not isinstance(content, list):
        raise DataError(f"{path} holds no list of detections", expected=_RESULTS)
    try:
        check_detections(content)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", expected=error.expected) from None
    return content


def _plain(one: Detection) -> dict[str, Any]:
    """Returns the four entries of a detection in Python's own numbers."""
    image_id = one["image_id"]
    return {
        "image_id": image_id if isinstance(image_id, str) else int(image_id),
        "category_id": int(one["category_id"]),
        "bbox": [float(value) for value in one["bbox"]],
        "score": float(one["score"]),
    }


def _count_evaluated(detections: Sequence[Detection]) -> int:
    counts = Counter((one["image_id"], one["category_id"]) for one in detections)
    return sum(min(count, _MAX_PER_CLASS) for count in counts.values())


# --- engines -------------------------------------------------------------------------------------


def _load_engine(engine: str) -> tuple[str, Callable[[], Any], Callable[..., Any]]:
    """Returns the engine's name, its data class and its evaluation class."""
    if engine not in ("auto", "faster", "pycocotools"):
        raise ValueError(f"engine must be auto, faster or pycocotools, got {engine!r}")
    if engine in ("auto", "faster"):
        try:
            import faster_coco_eval as faster

            eval_class = partial(faster.COCOeval_faster, print_function=_say_nothing)
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


def _say_nothing(*_args: object) -> None:
    pass


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
    plain = [_plain(one) for one in detections]
    for one in plain:
        one.update(area=one["bbox"][2] * one["bbox"][3], iscrowd=0)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = eval_class(
            _indexed(coco_class(), truth, truth.annotations),
            _indexed(coco_class(), truth, plain),
            "bbox",
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats), np.asarray(evaluation.eval["precision"])


def _indexed(coco: Any, truth: GroundTruth, annotations: Iterable[Mapping[str, Any]]) -> Any:
    """Returns ``coco`` filled with copies of annotations or detections.

    Images are numbered from 1 in their order, so that names will do as ids; annotations too,
    because the engines take a ground truth box with the id 0 for one that is not matched.
    """
    number = {image: index for index, image in enumerate(truth.images, start=1)}
    coco.dataset = {
        "images": [{"id": index} for index in number.values()],
        "categories": [{"id": key, "name": name} for key, name in truth.categories.items()],
        "annotations": [
            {**one, "id": index, "image_id": number[one["image_id"]]}
            for index, one in enumerate(annotations, start=1)
        ],
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


# --- MMEngine ------------------------------------------------------------------------------------


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """COCO box figures of a loop over a data set.

    Labels become category ids by class name, whatever the order and the gaps of the ids in the
    file. The images that were seen are evaluated, no others, so a part of a data set gives the
    figures of that part. With several processes the results are in the first one's object.

    Args:
        ann_file: COCO annotation file; fldet fills in that of the data loader.
        engine: see ``evaluate_coco``.
        outfile: where to write the detections, in the format of the COCO server; None does not.
        collect_device: where results of several processes meet, ``cpu`` or ``gpu``.
        prefix: of the names of the figures: ``coco/AP``. NaN (no ground truth of that kind)
            never counts as a best value, with ``rule='greater'``.

    Attributes:
        figures: result of the last evaluation, None before it.
        detections: what was evaluated last, in the COCO results format.
    """

    default_prefix = "coco"

    def __init__(
        self,
        ann_file: str | None = None,
        engine: Engine = "auto",
        outfile: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ann_file = ann_file
        self.engine = engine
        self.outfile = outfile
        self.figures: CocoFigures | None = None
        self.detections: list[dict[str, Any]] = []
        self._truth: GroundTruth | None = None
        self._category_ids: list[int] | None = None

    @property
    def truth(self) -> GroundTruth:
        """The annotation file, read once.

        Raises:
            DataError: there is none, or it is malformed.
        """
        if self._truth is None:
            if self.ann_file is None:
                raise DataError(
                    "CocoMetric has no annotation file",
                    hint="--cfg-options val_evaluator.ann_file=FILE, or test_evaluator.ann_file",
                )
            self._truth = read_ground_truth(Path(self.ann_file))
        return self._truth

    @property
    def category_ids(self) -> list[int]:
        """Category id by label.

        Raises:
            DataError: the data set has no class names, or one that is not in the file.
        """
        if self._category_ids is None:
            classes = (self.dataset_meta or {}).get("classes")
            if not classes:
                raise DataError("the data set has no class names: metainfo has no 'classes'")
            self._category_ids = map_classes(classes, self.truth.categories)
        return self._category_ids

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keeps the predictions of a batch.

        Args:
            data_batch: not used.
            data_samples: dicts with ``img_id`` and ``pred_instances``: ``bboxes`` (N, 4) xyxy in
                pixels of the original image, ``scores`` (N,), ``labels`` (N,).

        Raises:
            DataError: a label without a class, an image that the file lacks; see ``truth`` and
                ``category_ids`` too.
        """
        del data_batch
        for sample in data_samples:
            found = as_detections(sample["img_id"], sample["pred_instances"], self.category_ids)
            self.results.append((sample["img_id"], found))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Returns the twelve figures by name; writes ``outfile`` if there is one."""
        by_image = dict(results)  # a sampler that pads may have sent an image twice
        self.detections = [one for found in by_image.values() for one in found]
        if self.outfile is not None:
            save_detections(Path(self.outfile), self.detections)
        self.figures = evaluate_coco(
            self.truth,
            self.detections,
            image_ids=by_image,
            category_ids=self.category_ids,
            engine=self.engine,
        )
        return dict(self.figures.summary)


def map_classes(classes: Sequence[str], categories: Mapping[int, str]) -> list[int]:
    """Returns the category id of each class, found by name.

    Raises:
        DataError: a class that no category is called.
    """
    id_of = {name: key for key, name in categories.items()}
    for name in classes:
        if name not in id_of:
            raise DataError(
                f"class {name!r} is not in the annotation file",
                expected=nearest(name, id_of) or f"its classes are: {', '.join(id_of)}",
            )
    return [id_of[name] for name in classes]


def as_detections(
    image_id: Hashable, instances: Mapping[str, Any], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Returns the predictions of one image in the COCO results format.

    Args:
        image_id: of the annotation file.
        instances: tensors ``bboxes`` (N, 4) xyxy in pixels, ``scores`` (N,), ``labels`` (N,).
        category_ids: category id by label.

    Raises:
        DataError: a label that is no index of ``category_ids``.
    """
    boxes = instances["bboxes"].detach().double().cpu().numpy()
    boxes_xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
    scores = instances["scores"].detach().double().cpu().tolist()
    labels = instances["labels"].tolist()
    if labels and not 0 <= min(labels) <= max(labels) < len(category_ids):
        raise DataError(
            f"the model predicted the label {max(labels)}, the data set has "
            f"{len(category_ids)} classes",
            hint="num_classes of the model and the number of classes of the data must be equal",
        )
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for label, box, score in zip(labels, boxes_xywh, scores, strict=True)
    ]


# --- files ---------------------------------------------------------------------------------------


def _read_json(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{what} not found: {path}") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            expected=f"a {what} in the COCO format",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}", expected="a JSON file in UTF-8") from None


def _short(value: Any, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
