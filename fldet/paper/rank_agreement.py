"""How well two orders of the same rows agree: Kendall's tau-b and how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

EXACT_UP_TO = 8  # rows; 8! = 40320 orders
DRAWN = 20_000  # orders drawn at random for more rows
RESAMPLED = 2_000  # sets of means drawn for the range

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Rank agreement of two columns."""

    # Kendall's tau-b in [-1, 1] of the means; None if a column has no two different values
    tau: float | None
    rows: int  # counted in; a row without a value is not
    # share of all orders of the rows that agree at least as well (permutation test, one-sided)
    p_value: float | None
    exact: bool  # whether all orders were looked at, or ``DRAWN`` drawn ones
    # the middle 95 % of tau when each mean is moved by as much as other seeds might have moved it;
    # None if a row has one seed. Noise pulls tau towards 0, so the range lies rather too low.
    range: tuple[float, float] | None


def agreement(paper: Sequence[float], ours: Sequence[Sequence[float]]) -> Agreement:
    """Returns how well our rows, the values of all seeds for each, have the paper's order."""
    x = np.array(paper, dtype=np.float64)
    tau = kendall_tau_b(x, np.array([[np.mean(values) for values in ours]]))[0] if ours else np.nan
    if not np.isfinite(tau):
        return Agreement(None, len(x), None, True, None)
    exact = len(x) <= EXACT_UP_TO
    orders = _all_orders(len(x)) if exact else _drawn_orders(len(x))
    means = np.array([np.mean(values) for values in ours])
    taus = kendall_tau_b(x, means[orders])
    at_least = int(np.count_nonzero(taus >= tau - 1e-9))
    return Agreement(
        tau=float(tau),
        rows=len(x),
        # Of drawn orders the one at hand counts as drawn too, so that p is never 0.
        p_value=at_least / len(taus) if exact else (at_least + 1) / (len(taus) + 1),
        exact=exact,
        range=_range(x, means, ours) if min(map(len, ours)) > 1 else None,
    )


def kendall_tau_b(x: Array, ys: Array) -> Array:
    """Returns Kendall's tau-b of ``x`` (N,) with each row of ``ys`` (M, N): (M,).

    Pairs in concordance less those in discordance, over the geometric mean of the pairs that are
    not tied in ``x`` and in ``y``; NaN where all are tied.
    """
    i, j = np.triu_indices(len(x), 1)
    in_x = np.sign(x[i] - x[j])
    in_y = np.sign(ys[:, i] - ys[:, j])
    untied = np.count_nonzero(in_x) * np.count_nonzero(in_y, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        taus: Array = in_y @ in_x / np.sqrt(untied)
    return taus


def _all_orders(count: int) -> NDArray[np.int64]:
    return np.array(list(permutations(range(count))), dtype=np.int64)


def _drawn_orders(count: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(0)
    return rng.permuted(np.tile(np.arange(count), (DRAWN, 1)), axis=1)


def _range(x: Array, means: Array, ours: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Draws means with the variance of the seeds, pooled over the rows and itself uncertain."""
    rng = np.random.default_rng(0)
    counts = np.array([len(values) for values in ours])
    # rows whose seeds are all equal are those that diverged: they say nothing about the spread
    spread = [values for values in ours if min(values) < max(values)]
    freedom = sum(len(values) - 1 for values in spread)
    squares = sum(float(np.var(values) * len(values)) for values in spread)
    deviation = np.sqrt(squares / rng.chisquare(max(1, freedom), size=(RESAMPLED, 1)))
    drawn = means + deviation / np.sqrt(counts) * rng.standard_normal((RESAMPLED, len(means)))
    low, high = np.percentile(kendall_tau_b(x, drawn), [2.5, 97.5])
    return float(low), float(high)
