import numpy as np
import pytest

from fldet.paper.rank_agreement import DRAWN, agreement, kendall_tau_b


def test_tau_b_is_that_of_scipy_ties_included():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    for size in (3, 7, 12):
        x = rng.integers(0, 6, size).astype(float)
        ys = rng.integers(0, 6, (20, size)).astype(float)
        expected = [stats.kendalltau(x, y, variant="b").statistic for y in ys]
        np.testing.assert_allclose(kendall_tau_b(x, ys), expected, atol=1e-12)


def test_p_value_counts_all_orders_of_few_rows():
    found = agreement([1, 2, 3, 4], [[10], [20], [30], [40]])
    assert (found.tau, found.rows, found.exact, found.range) == (1, 4, True, None)
    assert found.p_value == pytest.approx(1 / 24)
    assert agreement([1, 2, 3, 4], [[40], [30], [20], [10]]).p_value == 1


def test_p_value_of_many_rows_is_of_drawn_orders_and_never_zero():
    rows = range(10)
    found = agreement(rows, [[row] for row in rows])
    assert not found.exact
    assert found.p_value == 1 / (DRAWN + 1)
    assert agreement(rows, [[row] for row in rows]) == found


def test_range_is_as_wide_as_the_seeds_differ():
    certain = agreement([1, 2, 3], [[1, 1], [5, 5], [9, 9]])
    assert certain.range == (1, 1)
    low, high = agreement([1, 2, 3], [[1, 9], [2, 9], [4, 8]]).range
    assert low < 0 < high
    assert agreement([1, 2, 3], [[1, 2], [5, 6], [9]]).range is None
    # a row that diverged, 0 with every seed, does not make the others look surer
    noisy = [[3, 9], [4, 8], [5, 9]]
    with_zero = agreement([0, 1, 2, 3], [[0, 0], *noisy]).range
    assert with_zero[0] < agreement([1, 2, 3], noisy).range[1]


def test_range_holds_the_true_tau_as_often_as_it_says():
    """Rows of three seeds, each differing by half as much as rows do; 95 % is 38 of 40."""
    rng = np.random.default_rng(5)
    paper, truth = np.arange(7.0), np.array([2, 1, 0, 3, 4, 6, 5.0])
    (tau,) = kendall_tau_b(paper, truth[None])
    ranges = [
        agreement(paper, (truth[:, None] + 0.5 * rng.standard_normal((7, 3))).tolist()).range
        for _ in range(40)
    ]
    assert sum(low <= tau <= high for low, high in ranges) >= 36


@pytest.mark.parametrize("ours", [[], [[5]], [[5], [5], [5]]])
def test_nothing_to_compare(ours):
    found = agreement(range(len(ours)), ours)
    assert (found.tau, found.p_value) == (None, None)
