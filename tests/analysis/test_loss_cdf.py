"""The curves of Figure 4 against their definition, and what must hold for any sample."""

import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fldet.analysis.loss_cdf.curves import (
    Procedure,
    Sample,
    cumulative_loss,
    hardest_share,
    loss_cdf_of,
    plot_loss_cdf,
    procedure_text,
    read_sample,
    write_json,
)
from fldet.errors import DataError, UsageError
from fldet.losses import sigmoid_focal_loss
from fldet.losses.formulas import balance, cross_entropy

PROCEDURE = Procedure("r50", "best.pth", "val", "anchor-class", 12, 3, 50, 5000)
logits = arrays(np.float32, st.integers(1, 60), elements=st.floats(-20, 20, width=32))


def sample(positives=50, negatives=5000, seed=0):
    random = np.random.default_rng(seed)
    return Sample(
        random.normal(1, 2, positives).astype(np.float32),
        random.normal(4, 2, negatives).astype(np.float32),
        PROCEDURE,
    )


def descending(x_t):
    return np.sort(x_t)[::-1]


def by_definition(losses):
    losses = np.sort(np.asarray(losses, np.float64))
    return np.concatenate([[0], np.cumsum(losses)]) / losses.sum()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_curve_is_the_sorted_and_summed_loss(gamma):
    x_t = sample().negatives
    p_t = 1 / (1 + np.exp(-x_t.astype(np.float64)))
    expected = by_definition(-((1 - p_t) ** gamma) * np.log(p_t))
    np.testing.assert_allclose(cumulative_loss(descending(x_t), gamma), expected, rtol=1e-9)


def test_gamma_zero_is_cross_entropy():
    x_t = sample().positives
    expected = by_definition(cross_entropy(torch.from_numpy(x_t).double()))
    np.testing.assert_allclose(cumulative_loss(descending(x_t), 0.0), expected, rtol=1e-12)


@pytest.mark.parametrize(("alpha", "divisor"), [(0.25, 1.0), (0.75, 7.0), (0.999, 1e5)])
@pytest.mark.parametrize("group", ["positives", "negatives"])
def test_alpha_and_the_normalizer_cancel(group, alpha, divisor):
    x_t = getattr(sample(), group)
    y = 1 if group == "positives" else -1
    targets = torch.full((len(x_t), 1), max(y, 0))
    losses = sigmoid_focal_loss(
        torch.from_numpy(y * x_t).double()[:, None], targets, alpha=alpha, gamma=2.0
    )
    assert not torch.equal(losses, balance(losses, targets, alpha))
    expected = by_definition(losses.flatten() / divisor)
    np.testing.assert_allclose(cumulative_loss(descending(x_t), 2.0), expected, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(logits, st.floats(0, 5))
def test_a_curve_is_monotone_and_convex_from_0_to_1(x_t, gamma):
    curve = cumulative_loss(descending(x_t), gamma)
    assert (curve[0], curve[-1]) == (0, 1)
    assert (np.diff(curve) >= 0).all()
    assert (np.diff(curve, 2) >= -1e-12).all()


@settings(max_examples=60, deadline=None)
@given(logits, st.floats(0, 4), st.floats(0.01, 2))
def test_a_larger_gamma_never_gives_the_easy_part_more(x_t, gamma, more):
    ordered = descending(x_t)
    assert (cumulative_loss(ordered, gamma + more) <= cumulative_loss(ordered, gamma) + 1e-9).all()


def test_order_of_the_sample_does_not_matter():
    one = sample()
    shuffled = Sample(one.positives[::-1].copy(), np.sort(one.negatives), PROCEDURE)
    assert loss_cdf_of(one) == loss_cdf_of(shuffled)


@pytest.mark.parametrize(
    ("curve", "fraction", "share"),
    [
        ([0, 0.2, 0.4, 0.6, 0.8, 1], 0.2, 0.2),  # equal losses
        ([0, 0, 0, 0, 0, 1], 0.2, 1),  # one example holds all
        ([0, 0, 0, 0, 0, 1], 0.1, 0.5),  # half of that example
        ([0, 1], 0.01, 0.01),  # a single example
        ([0, 0.25, 1], 1.0, 1),
    ],
)
def test_share_of_the_hardest(curve, fraction, share):
    assert hardest_share(np.array(curve, float), fraction) == pytest.approx(share)


def test_few_points_keep_the_shape_of_many_examples():
    x_t = np.concatenate([np.full(300_000, 9), np.linspace(-3, 3, 30)]).astype(np.float32)
    full = cumulative_loss(descending(x_t), 2.0)
    curve = loss_cdf_of(Sample(x_t, x_t, PROCEDURE), [2.0]).negatives[0]
    assert len(curve.fraction) <= 1500
    assert (curve.fraction[0], curve.loss[0]) == (0, 0)
    assert (curve.fraction[-1], curve.loss[-1]) == (1, 1)
    drawn = np.interp(np.linspace(0, 1, len(full)), curve.fraction, curve.loss)
    assert np.abs(drawn - full).max() < 0.003


def test_extreme_scores():
    curve = cumulative_loss(np.array([1e4, 0, -1e4], np.float32), 2.0)
    np.testing.assert_allclose(curve, [0, 0, 0, 1], atol=1e-4)
    with pytest.raises(DataError, match="every loss is 0 at gamma 2"):
        cumulative_loss(np.full(3, 1e4, np.float32), 2.0)


@pytest.mark.parametrize("gammas", [[-1.0], [0.0, np.inf], [np.nan], []])
def test_gammas_without_meaning_are_refused(gammas):
    with pytest.raises(UsageError, match="gammas"):
        loss_cdf_of(sample(), gammas)


# --- files ---------------------------------------------------------------------------------------


def write_sample(path, **changes):
    one = sample()
    content = {
        "positives": one.positives,
        "negatives": one.negatives,
        "procedure": np.array(json.dumps(vars(PROCEDURE))),
        **changes,
    }
    np.savez(path, **{key: value for key, value in content.items() if value is not None})
    return path


def test_a_sample_is_read_back(tmp_path):
    found = read_sample(write_sample(tmp_path / "a.npz"))
    assert found.procedure == PROCEDURE
    np.testing.assert_array_equal(found.negatives, sample().negatives)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positives": None}, "cannot read .*positives"),
        ({"procedure": np.array("{}")}, "config is missing"),
        ({"procedure": np.array("[1]")}, r"its content is \[1\]"),
        ({"negatives": np.zeros(3)}, "negatives is a 1-d array of float64, not a 1-d"),
        ({"negatives": np.array([np.nan], np.float32)}, "negatives are not finite"),
        ({"positives": np.zeros(0, np.float32)}, "no positives on 12 images"),
        ({"positives": np.array([{}])}, "cannot read"),  # objects are not unpickled
    ],
)
def test_samples_that_cannot_be_used(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        read_sample(write_sample(tmp_path / "a.npz", **changes))


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04 half an archive"])
def test_files_that_are_no_sample(tmp_path, content):
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz"):
        read_sample(path)


def test_text_and_json_state_the_shares_and_the_procedure(tmp_path):
    result = loss_cdf_of(sample(), [0.0, 2.0])
    assert "5,000 of 5,000 seen" in procedure_text(result)
    text = str(result)
    assert f"{100 * result.negatives[1].hardest_1:.1f} %" in text
    assert max(map(len, text.splitlines())) <= 100
    content = json.loads(write_json(result, tmp_path / "a.json").read_text())
    assert [row["gamma"] for row in content["shares"]] == [0, 2]
    assert content["procedure"]["images"] == 12
    assert len(content["negatives"][1]["loss"]) == len(result.negatives[1].fraction)


def test_the_figure_has_two_panels_and_names_what_it_shows(tmp_path):
    png, svg = plot_loss_cdf(loss_cdf_of(sample(), [0.0, 0.5, 1.0, 2.0]), tmp_path / "new" / "a.b")
    assert (png.name, svg.name) == ("a.b.png", "a.b.svg")
    assert cv2.imread(str(png)).shape == (760, 1400, 3)
    text = svg.read_text()
    for words in (
        "fraction of foreground examples",
        "fraction of background examples",
        "cumulative normalised loss",
        "background anchors x classes",
    ):
        assert f"<!-- {words}" in text or words in text
    again = plot_loss_cdf(loss_cdf_of(sample(), [0.0, 0.5, 1.0, 2.0]), tmp_path / "again")
    assert again[1].read_bytes() == svg.read_bytes()
