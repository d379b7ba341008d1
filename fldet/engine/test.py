"""Testing a checkpoint: detections, figures, pictures."""

import logging
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config

from fldet.checkpoints.files import checkpoint_classes, load_weights, read_checkpoint
from fldet.checkpoints.paths import resolve_checkpoint
from fldet.config.resolve import resolve_test
from fldet.data.slicing.views import Views
from fldet.devices import device_name, select_device
from fldet.engine.process_group import group_settings, process_group, unwrapped
from fldet.engine.results import PrecisionCheck, TestResult
from fldet.engine.runner import FldetRunner, build_runner
from fldet.errors import ConfigError, UsageError, explained_file_errors
from fldet.evaluation.figures import Figures
from fldet.evaluation.metrics import BoxMetric, CocoMetric
from fldet.files import require_writable, write_atomically
from fldet.models.fast.optimize import (
    as_in_mmdetection,
    network_precision,
    optimized,
    require_precision,
)
from fldet.models.views import ModelOfViews
from fldet.pictures.boxes import DrawOptions
from fldet.processes import adopt_launcher
from fldet.progress import heard
from fldet.results import to_json

log = logging.getLogger("fldet")

MAX_DIFFERENCE = 0.5  # AP points between a fast model and MMDetection's own code


@heard()
def test(
    cfg: Config,
    checkpoint: Path,
    *,
    work_dir: Path | None = None,
    show_dir: Path | None = None,
    score_thr: float = 0.3,
    drawing: DrawOptions | None = None,
    max_images: int | None = None,
    agnostic_nms: bool = False,
    out: Path | None = None,
    device: str = "auto",
    launcher: str = "none",
    views: Views | None = None,
    precision: str | None = None,
    compare: bool = False,
    max_difference: float = MAX_DIFFERENCE,
    trust_checkpoint: bool = False,
    exported: Any = None,
) -> TestResult | None:
    """Runs a checkpoint over the test images of a config and returns the figures.

    The result is also written to ``result.json`` in the work dir, beside the detections.

    Args:
        cfg: as ``load_config`` returned it.
        checkpoint: the weights, or a work dir: its best checkpoint, else its newest.
        work_dir: folder of the log and the result; by default ``test`` in the config's own.
        show_dir: where to draw each image, predictions beside ground truth; None draws nothing.
        score_thr: lowest score of a box that is drawn; the figures count all boxes.
        drawing: what is left out of the pictures, and how thick their lines are.
        max_images: only the first so many images.
        agnostic_nms: suppress boxes across classes, so that an object has one box.
        out: where to write all detections, in the format of the COCO server; by default
            ``detections.json`` in the work dir, if the config has one ``fldet.CocoMetric``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        launcher: see ``fldet.processes.adopt_launcher``.
        views: how each image is looked at; None once, as a whole.
        precision: ``fp32`` or ``bf16`` tests an optimized copy; None the model as it is, whose
            detections are those of MMDetection's own code.
        compare: test that code first, in float32, on the same images, and compare the AP.
        max_difference: largest difference of AP that ``check.within`` allows, in points.
        trust_checkpoint: run the code in the checkpoint if it cannot be read without.
        exported: the model in ``checkpoint``, where that is an exported file: an
            ``fldet.inference.exported.ExportedModel``, which has its precision already.

    Returns:
        The result; None in all but the first of several processes.

    Raises:
        UsageError: another precision, ``compare`` in several processes, or either of an exported
            model.
        ConfigError, DataError, CheckpointError, UnavailableError, FileSystemError, WorkerError: see
            ``fldet.errors``.
    """
    launcher = adopt_launcher(launcher)
    if compare and launcher != "none":
        raise UsageError("--compare runs in one process", expected="no --gpus, no --launcher")
    if compare and views:
        raise UsageError(
            "--compare tests MMDetection's own code, which looks at each image once",
            expected="no --slice, no --tta",
        )
    if exported and (compare or precision):
        raise UsageError(
            f"--{'compare' if compare else 'precision'} is for checkpoints",
            expected="no --compare with an exported model, which has its precision already",
        )
    chosen = select_device(device)
    if precision:
        require_precision(precision, chosen)
    path = resolve_checkpoint(checkpoint)
    content = {} if exported else read_checkpoint(path, trust=trust_checkpoint)
    resolved = resolve_test(
        cfg,
        classes=exported.classes if exported else checkpoint_classes(content, path),
        work_dir=work_dir,
        draw=_arguments_of_the_hook(show_dir, score_thr, drawing) if show_dir else None,
        max_images=max_images,
        views=views,
        agnostic_nms=agnostic_nms,
        launcher=launcher,
        device=chosen,
    )
    with (
        process_group(launcher, chosen, **group_settings(resolved)),
        explained_file_errors(resolved.work_dir),
    ):
        for folder in filter(None, (show_dir, out and out.parent)):
            require_writable(folder)  # it is written into at the end, maybe after hours
        with closing(build_runner(resolved)) as runner:
            _our_metrics(runner)
            out = _keep_detections(runner, out, Path(resolved.work_dir))
            if exported:
                runner.model = exported
            else:
                load_weights(unwrapped(runner.model), content, path)
            log.info("testing %s on %s", path, device_name(chosen))
            stock, seconds = _test_as_asked(
                runner, precision, views, agnostic_nms=agnostic_nms, compare=compare
            )
        if runner.rank:
            return None
        (_, figures), *others = _figures(runner).items()
        result = TestResult(
            figures=figures,
            checkpoint=path,
            work_dir=Path(resolved.work_dir),
            results_file=out,
            pictures=tuple(sorted(show_dir.glob("*.jpg"))) if show_dir else (),
            seconds=seconds,
            others=dict(others),
            precision=_precision(runner.model),
            optimized=precision is not None,
            check=check_precision(stock, figures, max_difference) if stock else None,
            image_ids=_part(runner),
        )
        write_atomically(result.work_dir / "result.json", to_json("test", result))
        return result


def _arguments_of_the_hook(
    show_dir: Path, score_thr: float, drawing: DrawOptions | None
) -> dict[str, Any]:
    return {"out_dir": str(show_dir), "score_thr": score_thr, **asdict(drawing or DrawOptions())}


def _test_as_asked(
    runner: FldetRunner,
    precision: str | None,
    views: Views | None,
    *,
    agnostic_nms: bool,
    compare: bool,
) -> tuple[Figures | None, float]:
    """Tests the model of a runner, or an optimized copy that takes its place.

    Returns the figures of MMDetection's own code in float32, if it is tested first to ``compare``,
    and the seconds of the test.
    """
    model, stock = unwrapped(runner.model), None
    if precision:
        runner.model = optimized(model, precision=precision)
    if compare:
        log.info("testing MMDetection's own code in float32 first")
        tested, runner.model = runner.model, as_in_mmdetection(model)
        runner.test()
        stock, runner.model = next(iter(_figures(runner).values())), tested
    if views:
        runner.model = ModelOfViews(
            runner.model, views, runner.test_dataloader.batch_size, agnostic=agnostic_nms
        )
    log.info("the network computes in %s", _precision(runner.model))
    started = time.perf_counter()
    runner.test()
    return stock, time.perf_counter() - started


def _precision(model: Any) -> str:
    """Returns the name of a data type: that of the weights, or what an exported model says."""
    if isinstance(model, ModelOfViews):
        model = model.model
    return getattr(model, "precision", None) or network_precision(model)


def check_precision(stock: Figures, tested: Figures, tolerance: float) -> PrecisionCheck:
    """Returns the difference of two APs in points and whether it is within a tolerance."""
    difference = 100 * (tested.main - stock.main)
    within = not abs(difference) > tolerance
    return PrecisionCheck(stock.main, difference, tolerance, within)


def _keep_detections(runner: FldetRunner, out: Path | None, work_dir: Path) -> Path | None:
    """Tells the metric where to write the detections; returns the place, None without a metric.

    The config that is saved does not get the place: tested again, it is to write elsewhere.
    """
    metrics = [one for one in runner.test_loop.evaluator.metrics if isinstance(one, CocoMetric)]
    if len(metrics) != 1:
        if out is None:
            return None
        raise ConfigError(
            "--out needs a config with one fldet.CocoMetric, this test_evaluator has "
            f"{len(metrics)}"
        )
    out = out or Path(metrics[0].outfile or work_dir / "detections.json")
    metrics[0].outfile = str(out)
    return out


def _part(runner: FldetRunner) -> tuple[Any, ...] | None:
    """Returns the ids of the images that were tested, None for all that the annotations have."""
    for metric in runner.test_loop.evaluator.metrics:
        if isinstance(metric, CocoMetric) and len(metric.image_ids) < len(metric.truth.images):
            return metric.image_ids
    return None


def _figures(runner: FldetRunner) -> dict[str, Figures]:
    """Returns the figures of each metric by its prefix: ``coco``, ``voc``."""
    return {str(metric.prefix): metric.figures for metric in _our_metrics(runner) if metric.figures}


def _our_metrics(runner: FldetRunner) -> list[BoxMetric]:
    metrics = runner.test_loop.evaluator.metrics
    found = [metric for metric in metrics if isinstance(metric, BoxMetric)]
    if not found:
        raise ConfigError(
            "the config's test_evaluator is neither fldet.CocoMetric nor fldet.VOCMetric",
            hint="--cfg-options \"test_evaluator={'_delete_': True, 'type': 'fldet.CocoMetric'}\"",
        )
    return found
