"""How well the anchors of a config cover the boxes of a data set, and which would cover more."""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from fldet.anchors.cover import AnchorScheme, AssignRule, BoxSet, best_ious, match

QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "max": 1.0}
BIN = 0.02  # width of the bins of the best IoU
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, math.inf)}
RATIOS = {  # height over width
    "under 1/4": (0.0, 0.25),
    "1/4 to 1/2": (0.25, 0.5),
    "1/2 to 1": (0.5, 1.0),
    "1 to 2": (1.0, 2.0),
    "2 to 4": (2.0, 4.0),
    "over 4": (4.0, math.inf),
}

# The schemes that are tried: sizes times 2^(step / 6), scales per octave, ratios.
STEPS = range(-6, 7)
NUM_SCALES = (1, 2, 3, 4)
RATIO_SETS = ((1.0,), (0.5, 1.0, 2.0), (0.333, 0.5, 1.0, 2.0, 3.0))
GOOD_ENOUGH = 0.005  # a cheaper scheme is preferred to the best if its share is this near

Track = Callable[[Sequence[Any]], Iterable[Any]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Boxes of one kind, and the shares of them that anchors fit badly; NaN without boxes."""

    name: str
    boxes: int
    below_positive: float  # share whose best IoU is below the positive threshold
    below_background: float  # share whose best IoU is below the background threshold


@dataclass(frozen=True)
class Choice:
    """A scheme of anchors and what it covers."""

    scheme: AnchorScheme
    factor: float  # of its sizes, to those of the config
    anchors: int  # at a location
    covered: float  # share of the boxes with an anchor of at least the positive threshold


@dataclass(frozen=True)
class AnchorReport:
    """How the anchors of a config fit boxes; crowd regions are left out."""

    about: dict[str, str]  # words for captions, of the collected boxes
    scheme: AnchorScheme
    rule: AssignRule
    images: int
    boxes: int
    best_iou: dict[str, float]  # quantiles of the IoU of a box with its best anchor
    histogram: tuple[int, ...]  # boxes by best IoU in bins of 0.02 from 0 to 1
    overall: Group
    by_size: tuple[Group, ...]  # COCO's sizes, of width x height in pixels of the file
    by_ratio: tuple[Group, ...]  # height / width as the network sees it
    positives_per_image: dict[str, float]  # quantiles and ``mean``
    positives_per_level: tuple[float, ...]  # means, of an image
    now: Choice  # the config's own scheme
    # for each number of anchors per location the best scheme, if none with fewer covers as much
    choices: tuple[Choice, ...]
    # the best with no more anchors per location than now; None if ``now`` is as good
    same_cost: Choice | None
    # the fewest anchors within half a point of the best; None if ``now`` covers as much, or if it
    # is ``same_cost``
    thrifty: Choice | None

    def __str__(self) -> str:
        return "\n".join(_lines(self))


# --- compute -------------------------------------------------------------------------------------


def compute(boxes: BoxSet, *, track: Track = iter) -> AnchorReport:
    """Returns how anchors fit a set of at least one box, and which schemes would fit better.

    ``track`` wraps the schemes that are tried, to show progress.
    """
    covers = list(match(boxes))
    best = np.concatenate([cover.best_iou for cover in covers])
    positives = np.concatenate([cover.positives for cover in covers])
    sides = np.maximum(boxes.boxes[:, 2:] - boxes.boxes[:, :2], 1e-6)  # clipped ones may have none
    now, choices = search(boxes, track=track)
    same_cost, thrifty = _advice(now, choices)
    return AnchorReport(
        about=boxes.about,
        scheme=boxes.scheme,
        rule=boxes.rule,
        images=len(boxes.padded_wh),
        boxes=len(best),
        best_iou=_quantiles(best),
        histogram=tuple(np.histogram(best, np.arange(round(1 / BIN) + 1) * BIN)[0].tolist()),
        overall=_group("all", best, boxes.rule),
        by_size=_groups(SIZES, boxes.areas, best, boxes.rule),
        by_ratio=_groups(RATIOS, sides[:, 1] / sides[:, 0], best, boxes.rule),
        positives_per_image={
            **_quantiles(positives.sum(axis=1)),
            "mean": float(positives.sum(axis=1).mean()),
        },
        positives_per_level=tuple(positives.mean(axis=0).tolist()),
        now=now,
        choices=choices,
        same_cost=same_cost,
        thrifty=thrifty,
    )


def _quantiles(values: npt.NDArray[Any]) -> dict[str, float]:
    return {name: float(np.quantile(values, share)) for name, share in QUANTILES.items()}


def _groups(
    bins: dict[str, tuple[float, float]],
    values: npt.NDArray[Any],
    best: npt.NDArray[Any],
    rule: AssignRule,
) -> tuple[Group, ...]:
    """Returns the boxes by a value, bins with their lower end; values are positive."""
    return tuple(
        _group(name, best[(values >= low) & (values < high)], rule)
        for name, (low, high) in bins.items()
    )


def _group(name: str, best: npt.NDArray[Any], rule: AssignRule) -> Group:
    shares = [
        float((best < threshold).mean()) if len(best) else math.nan
        for threshold in (rule.pos_iou_thr, rule.neg_iou_thr)
    ]
    return Group(name, len(best), *shares)


def search(boxes: BoxSet, *, track: Track = iter) -> tuple[Choice, tuple[Choice, ...]]:
    """Returns the config's scheme as a choice, and the best one for each number of anchors.

    Tried are sizes times 2^(k / 6) for k = -6..6, 1 to 4 scales per octave and 1, 3 or 5 ratios.
    Of equal shares the one with sizes nearest to the config's is taken.
    """

    @cache
    def one_covers(twelfth: int, ratio: float) -> Mask:
        """Returns whether one anchor per location does, of 2^(twelfth / 12) the config's size."""
        sizes = tuple(size * 2 ** (twelfth / 12) for size in boxes.scheme.sizes)
        return _is_covered(boxes, replace(boxes.scheme, sizes=sizes, num_scales=1, ratios=(ratio,)))

    best: dict[int, Choice] = {}
    trials = product(sorted(STEPS, key=abs), NUM_SCALES, RATIO_SETS)
    for step, num_scales, ratios in track(list(trials)):
        twelfths = [2 * step + 12 * k // num_scales for k in range(num_scales)]
        mask = np.logical_or.reduce([one_covers(*one) for one in product(twelfths, ratios)])
        choice = _choice(boxes.scheme, 2 ** (step / 6), num_scales, ratios, float(mask.mean()))
        if choice.anchors not in best or choice.covered > best[choice.anchors].covered:
            best[choice.anchors] = choice
    now = boxes.scheme
    share = float(_is_covered(boxes, now).mean())
    frontier: list[Choice] = []
    for choice in sorted(best.values(), key=lambda one: one.anchors):
        if not frontier or choice.covered > frontier[-1].covered:
            frontier.append(choice)
    return Choice(now, 1.0, now.per_location, share), tuple(frontier)


def _is_covered(boxes: BoxSet, scheme: AnchorScheme) -> Mask:
    best = best_ious(boxes.boxes, boxes.padded_wh[boxes.image_of], scheme)
    return np.asarray(best >= boxes.rule.pos_iou_thr)


def _choice(
    scheme: AnchorScheme, factor: float, num_scales: int, ratios: tuple[float, ...], covered: float
) -> Choice:
    sizes = tuple(float(f"{size * factor:.4g}") for size in scheme.sizes)
    scheme = replace(scheme, sizes=sizes, num_scales=num_scales, ratios=ratios)
    return Choice(scheme, factor, scheme.per_location, covered)


def _advice(now: Choice, choices: Sequence[Choice]) -> tuple[Choice | None, Choice | None]:
    """Returns ``same_cost`` and ``thrifty`` of the report."""
    affordable = [one for one in choices if one.anchors <= now.anchors]
    same_cost = max(affordable, key=lambda one: one.covered, default=None)
    if same_cost and same_cost.covered <= now.covered:
        same_cost = None
    goal = max(one.covered for one in choices) - GOOD_ENOUGH
    thrifty = next(one for one in choices if one.covered >= goal)
    if now.covered >= thrifty.covered or thrifty == same_cost:
        return same_cost, None
    return same_cost, thrifty


# --- text ----------------------------------------------------------------------------------------


def scheme_text(scheme: AnchorScheme) -> str:
    """Returns a scheme in one line."""
    sizes, ratios = (" ".join(f"{v:g}" for v in part) for part in (scheme.sizes, scheme.ratios))
    plural = "s" if scheme.num_scales > 1 else ""
    return f"sizes {sizes}; {scheme.num_scales} scale{plural} per octave; height/width {ratios}"


def config_lines(scheme: AnchorScheme) -> str:
    """Returns the lines that give a config these anchors."""
    return (
        "model = dict(bbox_head=dict(anchor_generator=dict(\n"
        f"    sizes={list(scheme.sizes)},\n"
        f"    num_scales={scheme.num_scales},\n"
        f"    ratios={list(scheme.ratios)})))"
    )


def _lines(report: AnchorReport) -> list[str]:
    rule, overall, per_image = report.rule, report.overall, report.positives_per_image
    quantiles = ", ".join(f"{name} {value:.2f}" for name, value in report.best_iou.items())
    head = {
        "data": f"{report.about.get('config')}, {report.about.get('split')}: "
        f"{report.about.get('images')}",
        "boxes": f"{report.boxes}, crowd regions left out",
        "resizing": report.about.get("resizing", ""),
        "anchors": f"{report.scheme.per_location} per location: {scheme_text(report.scheme)}",
        "best IoU": quantiles,
        "poorly covered": f"{_percent(overall.below_positive)} of the boxes have no anchor with "
        f"IoU >= {rule.pos_iou_thr:g}, {_percent(overall.below_background)} none with IoU >= "
        f"{rule.neg_iou_thr:g}",
    }
    positives = ", ".join(
        f"stride {stride}: {mean:.1f}"
        for stride, mean in zip(report.scheme.strides, report.positives_per_level, strict=True)
    )
    return [
        *(
            textwrap.fill(text, 100, initial_indent=f"{key:16}", subsequent_indent=" " * 16)
            for key, text in head.items()
        ),
        f"{'':16}(only the rule that makes a box's best anchors positive trains those)"
        if rule.match_low_quality
        else f"{'':16}(no anchor learns those: the assigner has no low-quality matches)",
        *_group_lines("by size", report.by_size),
        *_group_lines("by height/width", report.by_ratio),
        f"{'positives':16}mean {per_image['mean']:.1f} anchors per image, median "
        f"{per_image['median']:.0f}, from {per_image['min']:.0f} to {per_image['max']:.0f}",
        f"{'per level':16}{positives}",
        "",
        *_choice_lines(report),
    ]


def _group_lines(title: str, groups: Sequence[Group]) -> list[str]:
    present = [group for group in groups if group.boxes]
    return [
        f"{'' if row else title:16}{group.name:12}{group.boxes:8} boxes, "
        f"{_percent(group.below_positive):>7} and {_percent(group.below_background):>7}"
        for row, group in enumerate(present)
    ]


def _choice_lines(report: AnchorReport) -> list[str]:
    head = f"IoU >= {report.rule.pos_iou_thr:g}"
    lines = [f"{'anchors per location':22}{head:>12}   best scheme of the grid"]
    for choice in report.choices:
        _, _, shapes = scheme_text(choice.scheme).partition("; ")
        lines.append(_row(choice, f"sizes x {choice.factor:.3g}; {shapes}"))
    lines.append(_row(report.now, "the config's own"))
    for advice, words in (
        (report.same_cost, "as many anchors or fewer"),
        (report.thrifty, f"fewest anchors within {100 * GOOD_ENOUGH:g} points of the best tried"),
    ):
        if advice:
            gain = 100 * (advice.covered - report.now.covered)
            lines += [
                "",
                f"# {words}",
                f"# {advice.anchors} per location (now {report.now.anchors}): "
                f"{_percent(advice.covered)} of the boxes covered, {gain:+.1f} points",
                config_lines(advice.scheme),
            ]
    if not (report.same_cost or report.thrifty):
        lines += ["", "nothing to gain: no scheme that was tried covers more without more anchors"]
    return [
        *lines,
        "",
        "Coverage is not AP: fewer anchors also means fewer positives to learn from.",
    ]


def _row(choice: Choice, words: str) -> str:
    return f"{choice.anchors:<22}{_percent(choice.covered):>12}   {words}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
