"""``fldet analyze anchors`` as functions."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from fldet.anchors.boxes import collect_boxes
from fldet.anchors.cover import BoxSet
from fldet.anchors.pictures import plot
from fldet.anchors.report import AnchorReport, compute
from fldet.results import ANALYSES, Analysis

Track = Callable[[Sequence[Any], str], Iterable[Any]]


def _untracked(items: Sequence[Any], _: str) -> Iterable[Any]:
    return items


def analyze_anchors(
    cfg: Config,
    *,
    split: str = "train",
    max_images: int | None = None,
    seed: int = 0,
    out_dir: Path = ANALYSES,
    track: Track = _untracked,
) -> Analysis[AnchorReport]:
    """Says and draws how well a config's anchors cover the boxes of its data, and saves those.

    Args:
        cfg: as ``load_config`` returned it.
        split: ``train``, ``val`` or ``test``.
        max_images: at most so many, chosen at random; None takes all.
        seed: of the choice, and of the scales of a random resizing.
        out_dir: where to draw.
        track: wraps a sequence, with a word for what is in it, to show progress.

    Raises:
        UsageError: another split.
        ConfigError: the anchors or the assigner are of another kind than RetinaNet's.
        DataError: files are missing or malformed, or there is no box.
    """
    boxes = collect_boxes(
        cfg,
        split,
        max_images=max_images,
        seed=seed,
        track=lambda images: track(images, "images"),
    )
    stem = f"{boxes.about['config']}_{split}_anchors"
    saved = boxes.save(out_dir / f"{stem}.npz")
    analysis = _analyze(boxes, out_dir / f"{stem}.png", track)
    return Analysis(analysis.result, [saved, *analysis.files])


def redraw_anchors(
    path: Path, *, out_dir: Path = ANALYSES, track: Track = _untracked
) -> Analysis[AnchorReport]:
    """Does the same with the boxes that an earlier call saved as ``path``, an ``.npz``.

    Raises:
        DataError: there is no such file, or it is another kind of file.
    """
    return _analyze(BoxSet.load(path), out_dir / f"{path.stem}.png", track)


def _analyze(boxes: BoxSet, picture: Path, track: Track) -> Analysis[AnchorReport]:
    report = compute(boxes, track=lambda trials: track(trials, "anchors tried"))
    return Analysis(report, plot(report, picture))
