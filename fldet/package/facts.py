"""What is known of a model beside its weights: of its data, its figures, and what is not known."""

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from fldet.checkpoints.files import meta_of
from fldet.checkpoints.model_folder import THRESHOLDS
from fldet.checkpoints.paths import iteration_of
from fldet.config.load import load_config
from fldet.config.prepare import datasets_of
from fldet.data.annotations import id_of
from fldet.data.folds.files import is_folder_of_folds
from fldet.errors import DataError, FldetError
from fldet.evaluation.ground_truth import read_ground_truth
from fldet.evaluation.thresholds import Thresholds, read_thresholds
from fldet.files import is_model_folder
from fldet.numeric import is_number
from fldet.results import Count, Milliseconds, read_stored
from fldet.runs.outcome import RESULT, Outcome, read_outcome

CROSS_VALIDATION = "cross_validation.json"  # of fldet cross-validate
SPEED = "speed.json"  # what fldet benchmark was told to write, with --out


@dataclass(frozen=True)
class Sources:
    """Where to look for what a work dir does not have."""

    folds: Path | None = None  # folder of a cross-validation; None: the one the work dir lies in
    other_seeds: tuple[Path, ...] = ()  # work dirs of the same config, trained and tested
    thresholds: Path | None = None
    speed: Path | None = None  # JSON of fldet benchmark


@dataclass(frozen=True)
class Spread:
    """A figure in percent over several trainings."""

    mean: float
    deviation: float  # of a sample; NaN of fewer than two


@dataclass(frozen=True)
class Repeated:
    """Figures of several trainings of the same config."""

    what: str  # in words: ``5 folds``, ``3 seeds``
    figures: dict[str, Spread]  # AP, AP50, ... by name


@dataclass(frozen=True)
class TrainingData:
    """What a model was trained on."""

    images: int
    objects: dict[str, int]  # by class
    # SHA-256 of names of images, classes and boxes in hundredths of a pixel, whatever their order
    digest: str


@dataclass(frozen=True)
class Speed:
    """What is needed of a file that ``fldet benchmark`` wrote."""

    median_ms: Milliseconds
    device: str
    precision: str
    image_shape: tuple[Count, Count]  # (height, width)
    threads: Count


@dataclass(frozen=True)
class Facts:
    """What a card says beside the model itself."""

    iterations: int | None
    data: TrainingData | None
    test: Outcome | None  # of these weights
    best_ap: float | None  # in validation, in [0, 1]
    repeated: tuple[Repeated, ...]
    thresholds: Thresholds | None  # of the classes in their order
    speed: Speed | None
    # a sentence for everything that is missing, with what adds it
    gaps: tuple[str, ...]


def collect_facts(
    source: Path,
    weights: Path,
    content: Mapping[str, Any],
    classes: Sequence[str],
    sources: Sources | None = None,
    *,
    runs_config: bool,
) -> Facts:
    """Returns what a work dir, or the folder that a checkpoint lies in, tells of the weights.

    Args:
        source: the work dir or checkpoint that was named.
        weights: the file that it stands for.
        content: of that file.
        classes: of the model.
        sources: where else to look; what is named there must be readable.
        runs_config: whether the config of a work dir may be loaded, which runs it; it names the
            training data.

    Raises:
        FldetError: a file that ``sources`` names is missing or malformed.
    """
    sources = sources or Sources()
    folder = source if source.is_dir() else source.parent
    gaps: list[str] = []
    return Facts(
        iterations=_iterations(content, weights),
        data=_training_data(source if runs_config else None, classes, gaps),
        test=_test(folder, weights, gaps),
        best_ap=_best_ap(content),
        repeated=tuple(_repeated(folder, sources, gaps)),
        thresholds=_thresholds(folder, sources.thresholds, classes, gaps),
        speed=_speed(folder, sources.speed, gaps),
        gaps=tuple(gaps),
    )


def _iterations(content: Mapping[str, Any], weights: Path) -> int | None:
    number = meta_of(content).get("iter", iteration_of(weights))
    return number if type(number) is int and 0 < number < 2**53 else None


def _best_ap(content: Mapping[str, Any]) -> float | None:
    hub = content.get("message_hub")
    info = hub.get("runtime_info") if isinstance(hub, dict) else None
    best = info.get("best_score") if isinstance(info, dict) else None
    return float(best) if best is not None and is_number(best) and 0 <= best <= 1 else None


# --- data ----------------------------------------------------------------------------------------


def _training_data(
    work_dir: Path | None, classes: Sequence[str], gaps: list[str]
) -> TrainingData | None:
    if work_dir is None or not work_dir.is_dir() or is_model_folder(work_dir):
        gaps.append("Training data: not known; fldet package WORK_DIR reads them.")
        return None
    logging.disable(logging.INFO)  # nothing is trained now
    try:
        found = datasets_of(load_config(work_dir), ("train",))
        return training_data([kind.read_truth(dataset) for kind, dataset in found], classes)
    except FldetError as error:
        gaps.append(f"Training data: not read: {error.message}.")
        return None
    finally:
        logging.disable(logging.NOTSET)


def training_data(contents: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> TrainingData:
    """Returns what contents of COCO files have: images, objects, and the digest of them."""
    images, objects = [], Counter[str]()
    for content in contents:
        truth = read_ground_truth(content)
        boxes: dict[Any, list[list[Any]]] = {key: [] for key in truth.images}
        for one in truth.annotations:
            name = truth.categories[one["category_id"]]
            crowd = int(one["iscrowd"])
            objects[name] += not crowd
            corners = [round(100 * float(side)) for side in one["bbox"]]
            boxes[one["image_id"]].append([name, *corners, crowd])
        for image in content["images"]:
            file = Path(str(image.get("file_name", ""))).name
            images.append(json.dumps([file, sorted(boxes.get(id_of(image["id"]), []))]))
    digest = hashlib.sha256("\n".join(sorted(images)).encode()).hexdigest()
    return TrainingData(len(images), {name: objects[name] for name in classes}, digest)


# --- figures -------------------------------------------------------------------------------------


def _test(folder: Path, weights: Path, gaps: list[str]) -> Outcome | None:
    file = folder / RESULT
    if not file.exists():
        gaps.append("Figures: not tested; fldet test adds figures and AP of each class.")
        return None
    try:
        tested = read_stored(file, Path, "result", "checkpoint", what="result of fldet test")
        if tested.name != weights.name:
            raise DataError(f"the test is of {tested.name}, and not of {weights.name}")
        return read_outcome(file)
    except FldetError as error:
        gaps.append(f"Figures: {error.message}.")
        return None


def _repeated(folder: Path, sources: Sources, gaps: list[str]) -> list[Repeated]:
    found = []
    folds = sources.folds
    if folds is None and is_folder_of_folds(folder.parent):
        folds = folder.parent
    if folds is not None:
        found.append(_over_folds(folds))
    if sources.other_seeds:
        outcomes = [read_outcome(one / RESULT) for one in (folder, *sources.other_seeds)]
        names = [name for name in outcomes[0].figures if name in outcomes[-1].figures]
        rows = {name: [_number(one.figures.get(name)) for one in outcomes] for name in names}
        found.append(Repeated(f"{len(outcomes)} seeds", {n: spread(v) for n, v in rows.items()}))
    if not found:
        gaps.append(
            "Spread: one training; fldet cross-validate, or other seeds, say how much figures vary."
        )
    return found


@dataclass(frozen=True)
class _FoldFigure:
    name: str
    folds: tuple[float, ...]
    mean: float
    deviation: float


def _over_folds(folder: Path) -> Repeated:
    what, hint = "result of fldet cross-validate", f"fldet cross-validate --work-dir {folder}"
    rows: tuple[_FoldFigure, ...] = read_stored(
        folder / CROSS_VALIDATION,
        tuple[_FoldFigure, ...],
        *("result", "figures"),
        what=what,
        hint=hint,
    )
    count = len(rows[0].folds) if rows else 0
    return Repeated(f"{count} folds", {one.name: Spread(one.mean, one.deviation) for one in rows})


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def spread(values: Sequence[float]) -> Spread:
    """Returns mean and standard deviation of the values that are no NaN."""
    known = [value for value in values if not math.isnan(value)]
    return Spread(fmean(known) if known else math.nan, stdev(known) if len(known) > 1 else math.nan)


# --- thresholds and speed ------------------------------------------------------------------------


def _thresholds(
    folder: Path, named: Path | None, classes: Sequence[str], gaps: list[str]
) -> Thresholds | None:
    if named is not None:
        return read_thresholds(named).for_classes(classes)
    places = (folder / THRESHOLDS, folder / "thresholds" / THRESHOLDS)
    file = next((one for one in places if one.exists()), None)
    if file is None:
        gaps.append("Thresholds: none; fldet analyze thresholds chooses one of each class.")
        return None
    try:
        return read_thresholds(file).for_classes(classes)
    except FldetError as error:
        gaps.append(f"Thresholds: not used: {error.message}.")
        return None


def _speed(folder: Path, named: Path | None, gaps: list[str]) -> Speed | None:
    what = "result of fldet benchmark"
    if named is not None:
        return read_stored(named, Speed, "result", what=what)
    file = folder / SPEED
    if not file.exists():
        gaps.append(f"Speed: not measured; fldet benchmark predict --out WORK_DIR/{SPEED} does.")
        return None
    try:
        return read_stored(file, Speed, "result", what=what)
    except DataError as error:
        gaps.append(f"Speed: not used: {error.message}.")
        return None
