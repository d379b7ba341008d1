"""The referee of focal losses: ours pass, and each fault is found by the check that is for it."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fldet.losses import sigmoid_focal_loss, softmax_focal_loss
from fldet.losses.conformance import CHECKS, Judged, judged_of, measures, results_of
from fldet.losses.conformance.__main__ import main
from fldet.losses.conformance.tables import check_list

ROOT = Path(__file__).resolve().parents[2]
ASKED = [check for check in CHECKS if not check.measures]
OURS = ("fldet.losses:sigmoid_focal_loss", "fldet.losses:softmax_focal_loss")


@pytest.mark.parametrize("check", ASKED, ids=lambda check: check.name)
@pytest.mark.parametrize("name", OURS)
def test_ours_pass(name, check):
    result = results_of(judged_of(name), [check])[0]
    assert result.verdict == "ok", result.detail


# --- losses with one fault each; what is not at fault is ours ---


def right(x, t, *, alpha, gamma, reduction, **options):
    return sigmoid_focal_loss(x, t, alpha, gamma, reduction, **options)


def reduced(loss, reduction):
    return {"none": lambda: loss, "mean": loss.mean, "sum": loss.sum}[reduction]()


def clamps_logits(x, t, **settings):
    return right(x.clamp(-50, 50) if x.dtype == torch.float32 else x, t, **settings)


def knows_no_float64(x, t, **settings):
    return right(x, t, **settings).float()


def is_another_cross_entropy(x, t, *, gamma, **settings):
    return right(x, t, gamma=gamma, **settings) + 5e-6 * (gamma == 0 and x.dtype == torch.float32)


def has_infinite_slope(x, t, *, alpha, gamma, reduction):
    if gamma in (0, 1, 2, 5):
        return right(x, t, alpha=alpha, gamma=gamma, reduction=reduction)
    p = torch.sigmoid(x)
    loss = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    loss = loss * (1 - (p * t + (1 - p) * (1 - t))) ** gamma
    return reduced(loss if alpha is None else loss * (alpha * t + (1 - alpha) * (1 - t)), reduction)


def overflows(x, t, *, gamma, reduction, **settings):
    loss = right(x, t, gamma=gamma, reduction="none", **settings)
    return reduced(loss + 0 * x.float() ** 15 if gamma >= 1 else loss, reduction)


def subtracts_from_1(x, t, *, alpha, gamma, reduction):
    if gamma < 1:
        return right(x, t, alpha=alpha, gamma=gamma, reduction=reduction)
    p, positive = torch.sigmoid(x), 1.0 if alpha is None else alpha
    negative = 1.0 if alpha is None else 1 - alpha
    right(x.detach(), t, alpha=alpha, gamma=gamma, reduction="none")  # refuses what it refuses
    loss = t * positive * (1 - p) ** gamma * -F.logsigmoid(x)
    return reduced(loss + (1 - t) * negative * p**gamma * -F.logsigmoid(-x), reduction)


def adds_up_in_half(x, t, *, reduction, **settings):
    loss = right(x, t, reduction="none", **settings)
    if reduction == "mean" and x.dtype in (torch.float16, torch.bfloat16):
        return loss.to(x.dtype).sum() / loss.numel()
    return reduced(loss, reduction)


def rounds_targets(x, t, **settings):
    return right(x, t.round(), **settings)


def means_sum(x, t, *, reduction, **settings):
    return right(x, t, reduction="mean" if reduction == "sum" else reduction, **settings)


def broadcasts_targets(x, t, **settings):
    return right(x, t.broadcast_to(x.shape), **settings)


def broadcasts_weights(x, t, *, reduction, weight=None, **settings):
    loss = right(x, t, reduction="none", **settings)
    return reduced(loss if weight is None else loss.sum(1) * weight, reduction)


def clamps_targets(x, t, **settings):
    return right(x, t.clamp(0, 1), **settings)


def ignores_by_a_0(x, t, *, ignore_index=-100, **settings):
    return right(x, torch.where(t == ignore_index, 0, t), **settings)


def divides_by_no_example(x, t, *, reduction, **settings):
    loss = right(x, t, reduction="none", **settings)
    return loss.sum() / len(x) * 0 if not len(x) else reduced(loss, reduction)


def zeroes_targets(x, t, **settings):
    loss = right(x, t.clone(), **settings)
    if not torch.compiler.is_compiling():
        t.zero_()
    return loss


def breaks_the_graph(x, t, **settings):
    torch._dynamo.graph_break()
    return right(x, t, **settings)


class Same(torch.autograd.Function):
    """Old style, with the context in ``forward``: torch.func refuses it."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad


def is_no_transform(x, t, **settings):
    return right(Same.apply(x), t, **settings)


class Constant(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad.detach()


def has_a_constant_slope(x, t, *, reduction, **settings):
    return reduced(right(Constant.apply(x), t, reduction="none", **settings), reduction)


FAULTS = {
    "values": clamps_logits,
    "float64": knows_no_float64,
    "gamma 0": is_another_cross_entropy,
    "finite gradient, gamma 0.5": has_infinite_slope,
    "finite gradient, large logits": overflows,
    "digits of the gradient": subtracts_from_1,
    "half types": adds_up_in_half,
    "soft targets": rounds_targets,
    "reductions": means_sum,
    "shape of targets": broadcasts_targets,
    "shape of weights": broadcasts_weights,
    "range of targets": clamps_targets,
    "ignore index": ignores_by_a_0,
    "no example": divides_by_no_example,
    "arguments untouched": zeroes_targets,
    "torch.compile": breaks_the_graph,
    "vmap": is_no_transform,
    "second derivatives": has_a_constant_slope,
}
OPTIONS = {"shape of weights": {"weight"}, "ignore index": {"ignore_index"}}


def test_there_is_a_fault_for_each_check():
    assert set(FAULTS) == {check.name for check in ASKED}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_by_its_check_alone(name):
    def bind(**settings):
        return partial(FAULTS[name], **settings)

    judged = Judged(name, "", "sigmoid", bind, frozenset(OPTIONS.get(name, ())))
    found = [result for result in results_of(judged, ASKED) if result.verdict == "fails"]
    assert [result.check for result in found] == [name], found


def power_of_the_rest(x, t, *, alpha, gamma, reduction):
    if gamma in (0, 1, 2, 5):
        return softmax_focal_loss(x, t, gamma=gamma, reduction=reduction)
    log_p = F.log_softmax(x, 1).gather(1, t.unsqueeze(1)).squeeze(1)
    return reduced((1 - log_p.exp()) ** gamma * -log_p, reduction)


def takes_the_last_class(x, t, *, alpha, gamma, reduction):
    labels = t if t.is_floating_point() else t.clamp(0, x.shape[1] - 1)
    return softmax_focal_loss(x, labels, gamma=gamma, reduction=reduction)


def takes_any_class_weight(x, t, *, alpha, gamma, reduction, class_weight=None):
    loss = softmax_focal_loss(x, t, gamma=gamma, reduction="none")
    if class_weight is not None:
        loss = loss * class_weight[t.clamp(max=len(class_weight) - 1)]
    return reduced(loss, reduction)


@pytest.mark.parametrize(
    ("loss", "check", "options"),
    [
        (power_of_the_rest, "finite gradient, gamma 0.5", ()),
        (takes_the_last_class, "range of targets", ()),
        (takes_any_class_weight, "shape of weights", ("class_weight",)),
    ],
)
def test_a_fault_of_a_softmax_is_found_by_its_check_alone(loss, check, options):
    def bind(**settings):
        return partial(loss, **settings)

    judged = Judged("", "", "softmax", bind, frozenset(options))
    results = results_of(judged, ASKED)
    assert [one.check for one in results if one.verdict == "fails"] == [check]


# --- the command ---


def test_memory_is_that_of_the_allocator(monkeypatch):
    """Ours keeps the gradient; autograd keeps more than three times as much of a formula."""
    monkeypatch.setattr(measures, "SIGMOID_SHAPE", (100_000, 20))
    settings = {"alpha": None, "gamma": 3.0, "reduction": "mean"}
    plain = Judged("", "", "sigmoid", lambda **_: partial(has_infinite_slope, **settings))
    ours, others = (float(measures.memory(one)) for one in (judged_of(OURS[0]), plain))
    assert 1 <= ours < 2
    assert others > 3 * ours


def test_the_command_prints_a_block_for_each_loss(capsys):
    assert main([*OURS, "--only", "values", "ignore index"]) == 0
    blocks = capsys.readouterr().out.split("\n\n")
    assert [block.splitlines()[-1] for block in blocks] == ["  2 of 2 checks passed"] * 2
    assert blocks[0].splitlines()[0].startswith(OURS[0])


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of losses that are called in different ways."""
    (tmp_path / "some_losses.py").write_text(
        "from functools import partial\n"
        "import torch\n"
        "from fldet.losses import sigmoid_focal_loss, softmax_focal_loss\n"
        "class Module(torch.nn.Module):\n"
        "    def __init__(self, alpha, gamma, reduction):\n"
        "        super().__init__()\n"
        "        self.settings = alpha, gamma, reduction\n"
        "    def forward(self, x, t):\n"
        "        return sigmoid_focal_loss(x, t, *self.settings)\n"
        "def of_classes(x, t, gamma, reduction, weight=None):\n"
        "    return softmax_focal_loss(x, t, gamma=gamma, reduction=reduction)\n"
        "def reversed_order(t, x, g):\n"
        "    return sigmoid_focal_loss(x, t, -1, g)\n"
        "def call(loss, *, alpha, gamma, reduction):\n"
        "    factor = lambda t: 1 if alpha is None else alpha * t + (1 - alpha) * (1 - t)\n"
        "    sums = dict(none=lambda e: e, sum=lambda e: e.sum(), mean=lambda e: e.mean())\n"
        "    return lambda x, t: sums[reduction](loss(t, x, gamma) * factor(t))\n"
        "def wrong(x, t, alpha, gamma, reduction):\n"
        "    return 2 * sigmoid_focal_loss(x, t, alpha, gamma, reduction)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["some_losses:Module"], 0),
        (["some_losses:of_classes@softmax"], 0),
        (["some_losses:reversed_order", "--call", "some_losses:call"], 0),
        (["some_losses:reversed_order"], 1),
        (["some_losses:wrong"], 1),
    ],
)
def test_losses_are_called_as_they_want(module, capsys, arguments, code):
    only = ("values", "reductions", "shape of weights")
    assert main([*arguments, "--json", "--only", *only]) == code
    (loss,) = json.loads(capsys.readouterr().out)["losses"]
    assert loss["results"][0]["verdict"] == ("fails" if code else "ok")
    assert loss["results"][2] == {
        "check": "shape of weights",
        "verdict": "-",
        "detail": "takes no weight",
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere:loss"], "nowhere:loss: No module named"),
        (["fldet.losses:nothing"], "has no attribute 'nothing'"),
        (["fldet.losses:focal@tanh"], "expected @sigmoid or @softmax"),
        ([OURS[0], "--only", "beauty"], "no such check: beauty"),
        ([], "which losses?"),
    ],
)
def test_what_is_not_there_is_said(capsys, arguments, says):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_the_table_has_a_column_for_each_loss_and_says_what_fails(module, capsys):
    main(["some_losses:wrong", OURS[0], "--markdown", "--only", "gamma 0"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| gamma 0 | **fails** | ok |"
    assert re.match(r"- `some_losses:wrong`, gamma 0: off by \d", lines[-1])


def test_the_page_has_the_checks_and_the_versions_that_there_are(capsys):
    page = (ROOT / "docs" / "losses.md").read_text()
    assert check_list(CHECKS, markdown=True) in page
    pins = (ROOT / "requirements" / "peers.txt").read_text().splitlines()
    for line in pins:
        package, _, version = line.partition("==")
        if version and package != "kornia_rs":
            assert f"{package} {version}" in page
    assert main(["--list", "--markdown"]) == 0
    assert capsys.readouterr().out.strip() == check_list(CHECKS, markdown=True)
