"""Testing a checkpoint: detections, figures, pictures."""

import copy
import logging
import time
from pathlib import Path
from typing import Any

from mmengine.config import Config

from fldet.engine.build import FldetRunner, build_runner, unwrapped
from fldet.engine.checkpoint import (
    checkpoint_classes,
    load_weights,
    read_checkpoint,
    resolve_checkpoint,
)
from fldet.engine.device import describe, process_group, select_device
from fldet.engine.prepare import prepare_config
from fldet.engine.train import default_work_dir
from fldet.errors import ConfigError
from fldet.evaluation import CocoMetric, VOCMetric
from fldet.results import Figures, TestResult, to_json, write_atomically

log = logging.getLogger("fldet")


def test(
    cfg: Config,
    checkpoint: Path,
    *,
    work_dir: Path | None = None,
    show_dir: Path | None = None,
    score_thr: float = 0.3,
    max_images: int | None = None,
    out: Path | None = None,
    device: str = "auto",
    launcher: str = "none",
) -> TestResult | None:
    """Runs a checkpoint over the test images of a config and returns the figures.

    The result is also written to ``result.json`` in the work dir.

    Args:
        cfg: as ``load_config`` returned it.
        checkpoint: the weights, or a work dir: its best checkpoint, else its newest.
        work_dir: folder of the log and the result; by default ``test`` in the config's own.
        show_dir: where to draw each image, predictions beside ground truth; None draws nothing.
        score_thr: lowest score of a box that is drawn; the figures count all boxes.
        max_images: only the first so many images.
        out: where to write all detections, in the format of the COCO server.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        launcher: ``none``, ``pytorch`` (torchrun), ``slurm`` or ``mpi``.

    Returns:
        The result; None in all but the first of several processes.

    Raises:
        ConfigError, DataError, CheckpointError, UnavailableError: see ``fldet.errors``.
    """
    chosen = select_device(device)
    path = resolve_checkpoint(checkpoint)
    content = read_checkpoint(path)
    prepared = prepare_config(cfg, phases=("test",), classes=checkpoint_classes(content))
    prepared.work_dir = str(work_dir or default_work_dir(cfg) / "test")
    prepared.update(resume=False, load_from=None)  # the weights are loaded below, strictly
    _set_options(prepared, show_dir, score_thr, max_images, out)
    with process_group(launcher, chosen):
        runner = build_runner(prepared, launcher, chosen)
        load_weights(unwrapped(runner.model), content, path)
        log.info("testing %s on %s", path, describe(chosen))
        started = time.perf_counter()
        runner.test()
        seconds = time.perf_counter() - started
        if runner.rank:
            return None
        first, *others = _figures(runner).items()
        result = TestResult(
            figures=first[1],
            checkpoint=path,
            work_dir=Path(prepared.work_dir),
            results_file=out,
            pictures=tuple(sorted(show_dir.glob("*.jpg"))) if show_dir else (),
            seconds=seconds,
            others=dict(others),
        )
        write_atomically(result.work_dir / "result.json", to_json("test", result))
        return result


def _set_options(
    cfg: Config, show_dir: Path | None, score_thr: float, max_images: int | None, out: Path | None
) -> None:
    if max_images is not None:
        cfg.test_dataloader.dataset.indices = max_images
    if show_dir is not None:
        draw = {"type": "fldet.DrawHook", "out_dir": str(show_dir), "score_thr": score_thr}
        cfg.custom_hooks = [*copy.deepcopy(cfg.get("custom_hooks") or []), draw]
    if out is not None:
        _coco_metric(cfg.test_evaluator).outfile = str(out)


def _coco_metric(evaluator: Any) -> Any:
    metrics = evaluator if isinstance(evaluator, list) else [evaluator]
    found = [one for one in metrics if one["type"] == "fldet.CocoMetric"]
    if len(found) != 1:
        raise ConfigError(
            f"--out needs a config with one fldet.CocoMetric, this test_evaluator has {len(found)}"
        )
    return found[0]


def _figures(runner: FldetRunner) -> dict[str, Figures]:
    """Returns the figures of each metric by its prefix: ``coco``, ``voc``."""
    found: dict[str, Figures] = {}
    for metric in runner.test_loop.evaluator.metrics:
        if isinstance(metric, (CocoMetric, VOCMetric)) and metric.figures:
            found[str(metric.prefix)] = metric.figures
    if not found:
        raise ConfigError(
            "the config's test_evaluator is neither fldet.CocoMetric nor fldet.VOCMetric",
            hint="--cfg-options test_evaluator.type=fldet.CocoMetric",
        )
    return found
