"""Figure 4: how the loss is spread over the examples, for several gammas, from the same scores."""

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fldet.errors import DataError, UsageError
from fldet.files import parse_json, read_arrays, write_atomically
from fldet.losses.formulas import focal_loss
from fldet.pictures.figure import figure, greek, label, line_style, save, small_print
from fldet.results import Count, Share, Within, read_stored, stored, to_jsonable

GAMMAS = (0.0, 0.5, 1.0, 2.0)

_POINTS = 500  # of a curve, along each of its two axes
_CHUNK = 1 << 20  # losses computed together


@dataclass(frozen=True)
class Procedure:
    """How a sample was made."""

    config: str  # name of the model's config
    checkpoint: str  # name of the file of its weights
    split: str  # of the data
    window: str  # ``anchor-class``, or ``anchor``: of a background anchor the highest score only
    images: Count  # that the model saw
    seed: int  # of the samples
    positives_seen: Count  # positives on those images, of which the sample is a part or the whole
    negatives_seen: Count  # the same of negatives


@dataclass(frozen=True)
class Sample:
    """Signed logits x_t of examples, (N,) float32 each, in any order."""

    positives: NDArray[np.float32]
    negatives: NDArray[np.float32]
    procedure: Procedure


@dataclass(frozen=True)
class Curve:
    """Cumulative share of a group's loss, its examples sorted by loss, the smallest first."""

    gamma: Annotated[float, Within(0, 1e6)]  # of the focal loss; 0 is cross entropy
    fraction: tuple[Share, ...]  # of the examples, ascending from 0 to 1
    # the share of the loss that this fraction of the examples holds, from 0 to 1
    loss: tuple[Share, ...]
    hardest_20: float  # share of the loss that the hardest 20 % of the examples hold
    hardest_1: float  # the same of the hardest 1 %


@dataclass(frozen=True)
class LossCdf:
    """The curves of both groups, in the order of the gammas."""

    procedure: Procedure  # how the sample was made
    num_positives: int  # examples in the sample
    num_negatives: int  # the same
    positives: tuple[Curve, ...]  # a curve for each gamma
    negatives: tuple[Curve, ...]  # the same

    def shares(self) -> list[dict[str, float]]:
        """Returns a row for each gamma: what share of the loss the hardest examples hold."""
        return [
            {
                "gamma": positive.gamma,
                "positives_hardest_20": positive.hardest_20,
                "negatives_hardest_20": negative.hardest_20,
                "negatives_hardest_1": negative.hardest_1,
            }
            for positive, negative in zip(self.positives, self.negatives, strict=True)
        ]

    def __str__(self) -> str:
        lines = [
            "share of the loss held by the hardest examples",
            "gamma  positives: 20 %  negatives: 20 %   negatives: 1 %",
            "-----  ---------------  ---------------  ---------------",
        ]
        for row in self.shares():
            gamma, *shares = row.values()
            lines.append("  ".join([f"{gamma:<5g}", *(f"{_percent(one):>15}" for one in shares)]))
        return "\n".join([*lines, "", *textwrap.wrap(procedure_text(self), 100)])


# --- compute -------------------------------------------------------------------------------------


def read_sample(path: Path) -> Sample:
    """Returns the sample in an ``.npz`` that ``collect_logits`` wrote.

    Raises:
        DataError: there is no such file, it is another kind of file, or a group is empty.
    """
    wanted = {"positives": ("float32", 1), "negatives": ("float32", 1), "procedure": ("str", 0)}
    what = ".npz of fldet analyze loss-cdf"
    groups = read_arrays(path, wanted, expected=f"a {what}")
    content = parse_json(groups.pop("procedure"), str(path))
    procedure: Procedure = stored(content, path, Procedure, what=what)
    for name, values in groups.items():
        if not np.isfinite(values).all():
            raise DataError(f"{path}: {name} are not finite")
        if not len(values):
            raise DataError(
                f"{path}: no {name} on {procedure.images} images",
                expected="at least one object that an anchor is assigned to, and background",
                hint="take more images, or look at the data: fldet analyze dataset CONFIG",
            )
    return Sample(**groups, procedure=procedure)


def loss_cdf_of(sample: Sample, gammas: Sequence[float] = GAMMAS) -> LossCdf:
    """Returns the curves of Figure 4 for a sample.

    Alpha and the number that a loss is divided by cancel: they are the same for all examples of a
    group.

    Raises:
        UsageError: a gamma is negative or not finite, or there is none.
        DataError: all losses of a group are 0 in float64.
    """
    if not gammas or not all(0 <= gamma < math.inf for gamma in gammas):
        raise UsageError(f"gammas {list(gammas)}", expected="one or more finite numbers >= 0")
    return LossCdf(
        procedure=sample.procedure,
        num_positives=len(sample.positives),
        num_negatives=len(sample.negatives),
        positives=_curves(sample.positives, gammas),
        negatives=_curves(sample.negatives, gammas),
    )


def _curves(x_t: NDArray[np.float32], gammas: Sequence[float]) -> tuple[Curve, ...]:
    # For every gamma the loss falls as x_t grows, so that one order serves all of them.
    hardest_last = np.sort(x_t)[::-1]
    return tuple(_curve(hardest_last, gamma) for gamma in gammas)


def _curve(hardest_last: NDArray[np.float32], gamma: float) -> Curve:
    cumulative = cumulative_loss(hardest_last, gamma)
    points = _points_to_draw(cumulative)
    return Curve(
        gamma=gamma,
        fraction=tuple((points / (len(cumulative) - 1)).tolist()),
        loss=tuple(cumulative[points].tolist()),
        hardest_20=hardest_share(cumulative, 0.2),
        hardest_1=hardest_share(cumulative, 0.01),
    )


def cumulative_loss(hardest_last: NDArray[np.float32], gamma: float) -> NDArray[np.float64]:
    """Returns (N + 1,) the share of the loss that the first 0, 1, ..., N examples hold.

    ``hardest_last`` are (N,) x_t, descending: ascending by loss.
    """
    cumulative = np.zeros(len(hardest_last) + 1)
    for start in range(0, len(hardest_last), _CHUNK):
        x_t = torch.from_numpy(hardest_last[start : start + _CHUNK].astype(np.float64))
        cumulative[start + 1 : start + 1 + len(x_t)] = focal_loss(x_t, gamma).numpy()
    np.cumsum(cumulative, out=cumulative)
    if cumulative[-1] == 0:
        raise DataError(f"every loss is 0 at gamma {gamma:g}", expected="scores short of certain")
    cumulative /= cumulative[-1]
    return cumulative


def hardest_share(cumulative: NDArray[np.float64], fraction: float) -> float:
    """Returns the share of the loss that the last ``fraction`` of the examples hold."""
    place = (1 - fraction) * (len(cumulative) - 1)
    below = math.floor(place)
    above = min(below + 1, len(cumulative) - 1)
    easy = cumulative[below] + (place - below) * (cumulative[above] - cumulative[below])
    return float(1 - easy)


def _points_to_draw(cumulative: NDArray[np.float64]) -> NDArray[np.intp]:
    """Returns indices: even steps along the examples, and even steps along the loss.

    With the latter, and the point before each, a curve that rises within the last thousandth
    keeps its shape.
    """
    last = len(cumulative) - 1
    along_examples = np.linspace(0, last, _POINTS).astype(np.intp)
    along_loss = np.searchsorted(cumulative, np.linspace(0, 1, _POINTS))
    return np.unique(np.concatenate([along_examples, along_loss, np.maximum(along_loss - 1, 0)]))


# --- text and picture ----------------------------------------------------------------------------


def procedure_text(result: LossCdf) -> str:
    """Returns how the sample was made, in sentences."""
    made = result.procedure
    whose = {
        "anchor-class": "background anchors x classes",
        "anchor": "background anchors, highest-scoring class of each",
    }
    return (
        f"{made.config}, {made.checkpoint}, split {made.split}, {made.images:,} images. "
        f"Positives: anchors with their true class, {result.num_positives:,} of "
        f"{made.positives_seen:,} seen. Negatives: {whose.get(made.window, made.window)}, "
        f"{result.num_negatives:,} of {made.negatives_seen:,} seen. Ignored anchors left out; "
        f"uniform samples, seed {made.seed}. Focal loss of the same scores for every gamma."
    )


def write_json(result: LossCdf, path: Path) -> Path:
    """Writes shares and curves; returns ``path``."""
    content = {"schema": 1, "shares": result.shares(), **to_jsonable(result)}
    return write_atomically(path, json.dumps(content))


def read_curves(path: Path) -> LossCdf:
    """Returns what ``write_json`` wrote; another file is a ``DataError``."""
    curves: LossCdf = read_stored(path, LossCdf, what="analysis of the loss")
    groups = curves.positives, curves.negatives
    lengths = {(len(one.fraction), len(one.loss)) for group in groups for one in group}
    if len(groups[0]) != len(groups[1]) or any(a != b or not a for a, b in lengths):
        raise DataError(f"{path} is no analysis of the loss: its curves do not fit each other")
    return curves


def plot_loss_cdf(result: LossCdf, stem: Path) -> list[Path]:
    """Draws Figure 4 and returns the paths of PNG and SVG; ``stem`` is without their ending."""
    with figure(14, 7.6) as drawn:
        left, right = drawn.subplots(1, 2)
        _panel(left, result.positives, "foreground", ("20 %",))
        _panel(right, result.negatives, "background", ("20 %", "1 %"))
        left.set_title(f"positives ({result.num_positives:,})")
        right.set_title(f"negatives ({result.num_negatives:,})")
        small = "\n".join(textwrap.wrap(label(procedure_text(result), most=2000), 140))
        small_print(drawn, small, size=13)
        return save(drawn, stem)


def _panel(axes: Any, curves: Sequence[Curve], group: str, hardest: tuple[str, ...]) -> None:
    """Draws a group; ``hardest`` names the shares that the legend states."""
    for index, curve in enumerate(curves):
        shares = {"20 %": curve.hardest_20, "1 %": curve.hardest_1}
        name = f"gamma = {curve.gamma:g}:  " + ",  ".join(_percent(shares[one]) for one in hardest)
        axes.plot(curve.fraction, curve.loss, label=greek(name), **line_style(index))
    for name in hardest:
        axes.axvline(1 - float(name[:-2]) / 100, color="0.55", linewidth=1.2, linestyle="dotted")
    axes.set(
        xlim=(0, 1.003),
        ylim=(0, 1.003),
        xlabel=f"fraction of {group} examples",
        ylabel="cumulative normalised loss",
    )
    title = f"share of the loss in the hardest {' and '.join(hardest)}"
    axes.legend(loc="upper left", title=title, alignment="left", handlelength=3)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
