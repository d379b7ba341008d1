"""What a comparison has found, read from the files of its runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from fldet.analysis.log.read import Series, read_log
from fldet.analysis.speed_accuracy import Point, beats
from fldet.benchmark.results import SpeedResult
from fldet.checkpoints.paths import iteration_of, newest_checkpoint
from fldet.compare.models import MODELS
from fldet.compare.plan import Settings
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.errors import DataError
from fldet.registry import MODELS as REGISTERED
from fldet.results import read_stored
from fldet.runs.outcome import RESULT, read_outcome
from fldet.runs.run import BENCHMARK
from fldet.runs.runner import Status

_LEARNED = 1.0  # AP in percent from which there is something to choose by


@dataclass(frozen=True)
class Contestant:
    """A detector that was compared; what is not known of it is NaN."""

    name: str
    title: str
    words: str  # what it is
    config: Path  # with its budget
    work_dir: Path  # of its training
    state: Literal["done", "failed", "diverged"]
    reason: str = ""  # of a failure
    iterations: int = 0  # done
    planned: int = 0  # iterations of the config; the time may end the training before
    minutes: float = math.nan  # of the iterations, validations not counted
    ap: float = math.nan  # COCO's box AP of the last weights on the test images, in percent
    ap50: float = math.nan
    ms: float = math.nan  # median of an image, end to end without reading the file
    p90_ms: float = math.nan
    memory_mib: float = math.nan  # the most that one image took
    parameters: int = 0  # that are trained or kept: weights and biases
    gflop: float = math.nan  # of an image
    # AP in percent on the validation images after so many minutes of training
    curve: tuple[tuple[float, float], ...] = ()
    on_envelope: bool = False  # no other one is as fast and better, or as good and faster


@dataclass(frozen=True)
class Comparison:
    """All contestants, in the order in which they were named, and what they were measured on."""

    contestants: tuple[Contestant, ...]
    data: str
    budget: str
    images: int  # of the test
    hardware: str
    facts: dict[str, str]  # machine, versions, what is timed and what memory is, by name
    advice: tuple[str, ...]  # which one to take for which limit


def read_comparison(
    settings: Settings, drafts: Mapping[str, Path], ended: Mapping[str, Status], work_dir: Path
) -> Comparison:
    """Returns what the runs in a work dir have found.

    Args:
        settings: of the comparison.
        drafts: of the contestants, by name.
        ended: how each one's last run has ended.
        work_dir: of the comparison.

    Raises:
        DataError: a file of a run cannot be read.
    """
    found = [_contestant(name, ended[name], work_dir) for name in drafts]
    done = [one for one in found if one.state == "done"]
    speeds = [_speed(work_dir, one.name) for one in done]
    images = [read_outcome(one.work_dir / RESULT).num_images for one in done]
    contestants = with_envelope(found)
    return Comparison(
        contestants=contestants,
        data=str(settings.data) if settings.data else ", ".join(settings.configs),
        budget=settings.budget,
        images=images[0] if images else 0,
        hardware=_hardware(speeds[0]) if speeds else "",
        facts=_facts(speeds),
        advice=advice(contestants),
    )


def _contestant(name: str, ended: Status, work_dir: Path) -> Contestant:
    """Returns what is known of one; of one that failed, as far as it came."""
    config, folder = work_dir / f"{name}.py", work_dir / "runs" / name / "seed_0"
    model = MODELS.get(name)
    one = Contestant(
        name=name,
        title=model.title if model else name,
        words=model.words if model else "",
        config=config,
        work_dir=folder,
        state=ended.state if ended.state in ("done", "diverged") else "failed",  # type: ignore[arg-type]
        reason=ended.reason,
    )
    if config.exists():
        cfg = load_config(config)
        one = replace(one, planned=cfg.train_cfg.max_iters, parameters=count_parameters(cfg))
    one = _with_training(one)
    if one.state != "done":
        return one
    figures, speed = read_outcome(folder / RESULT).figures, _speed(work_dir, name)
    return replace(
        one,
        ap=_number(figures.get("AP")),
        ap50=_number(figures.get("AP50")),
        ms=speed.median_ms,
        p90_ms=speed.p90_ms,
        memory_mib=speed.peak_memory_mib,
        gflop=speed.gflop,
    )


def _with_training(one: Contestant) -> Contestant:
    try:
        log = read_log(one.work_dir)
    except DataError:  # not begun, or ended before its first logged iteration
        return one
    times = log.train.get("time", Series())
    checkpoint = newest_checkpoint(one.work_dir)
    iterations = iteration_of(checkpoint) if checkpoint else max(times.iterations, default=0)
    return replace(
        one,
        iterations=iterations,
        minutes=minutes_at(times, iterations),
        curve=curve_of(times, log.val.get("AP", Series())),
    )


def minutes_at(times: Series, iteration: int) -> float:
    """Returns the minutes of all iterations up to one, validations not counted.

    Each value of ``times`` is the mean seconds of an iteration since the point before; those after
    the last point are as long as the last ones. NaN without points.
    """
    if not times.values:
        return math.nan
    ends = [*times.iterations[:-1], max(iteration, times.iterations[-1])]
    steps = zip(pairwise((0, *ends)), times.values, strict=True)
    return sum((min(b, iteration) - a) * time for (a, b), time in steps if a < iteration) / 60


def curve_of(times: Series, ap: Series) -> tuple[tuple[float, float], ...]:
    """Returns (minutes, AP in percent) of each validation."""
    pairs = zip(ap.iterations, ap.values, strict=True)
    return tuple((minutes_at(times, step), 100 * value) for step, value in pairs)


def count_parameters(cfg: Config) -> int:
    """Returns the number of weights and biases of a config's model, for the classes of its data."""
    prepared = prepare_config(cfg, phases=("test",))
    init_default_scope(prepared.get("default_scope", "mmdet"))
    with torch.device("meta"):
        model = REGISTERED.build(prepared.model)
    return sum(one.numel() for one in model.parameters())


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _speed(work_dir: Path, name: str) -> SpeedResult:
    path = work_dir / "runs" / name / "timing" / BENCHMARK
    found: SpeedResult = read_stored(
        path, SpeedResult, "result", what="output of fldet benchmark", hint=f"remove {path}"
    )
    return found


def timed_alike(names: Sequence[str], work_dir: Path) -> bool:
    """Returns whether all times are of the same device, processor and number of threads."""
    speeds = [_speed(work_dir, name) for name in names]
    return len({(_hardware(one), one.machine.get("processor")) for one in speeds}) < 2


def _hardware(speed: SpeedResult) -> str:
    threads = f"{speed.threads} CPU thread{'s' * (speed.threads != 1)}"
    return f"{speed.device}, {speed.precision}, {threads}"


def _facts(speeds: Sequence[SpeedResult]) -> dict[str, str]:
    if not speeds:
        return {}
    first = speeds[0]
    return {**first.machine, "timed": first.timed, "memory": first.memory}


# --- what to take --------------------------------------------------------------------------------


def with_envelope(contestants: Sequence[Contestant]) -> tuple[Contestant, ...]:
    """Returns contestants that know whether they are on the upper envelope."""
    points = {one.name: Point(one.name, one.ap, one.ms) for one in measured(contestants)}
    return tuple(
        replace(
            one,
            on_envelope=one.name in points
            and not any(beats(rival, points[one.name]) for rival in points.values()),
        )
        for one in contestants
    )


def measured(contestants: Sequence[Contestant]) -> list[Contestant]:
    """Returns those that have both figures."""
    return [one for one in contestants if math.isfinite(one.ap) and math.isfinite(one.ms)]


def advice(contestants: Sequence[Contestant]) -> tuple[str, ...]:
    """Returns sentences that say which contestant to take for which limit of time or memory."""
    best_first = sorted(
        (one for one in contestants if one.on_envelope), key=lambda one: one.ap, reverse=True
    )
    if not best_first:
        return ("None was trained, tested and timed to the end: there is nothing to advise.",)
    best = best_first[0]
    if best.ap < _LEARNED:
        return (
            f"None has learned enough to choose by, the best AP is {best.ap:.1f}: train longer.",
        )
    best_first = [one for one in best_first if one.ap >= _LEARNED]
    lines = [f"Without a limit of time take {best.title}: AP {best.ap:.1f}, {_ms(best)} an image."]
    lines += [
        f"Where an image has less than {_ms(slower)}, take {faster.title}: AP {faster.ap:.1f}, "
        f"{_ms(faster)}."
        for slower, faster in pairwise(best_first)
    ]
    lines.append(f"None that has learned takes less than {_ms(best_first[-1])}.")
    learned = [one for one in measured(contestants) if one.ap >= _LEARNED]
    if known := [one for one in learned if math.isfinite(one.memory_mib)]:
        least = min(known, key=lambda one: one.memory_mib)
        lines.append(f"{least.title} takes least memory, {least.memory_mib:.0f} MiB an image.")
    return tuple(lines)


def _ms(one: Contestant) -> str:
    return f"{one.ms:.1f} ms" if one.ms < 100 else f"{one.ms:.0f} ms"
