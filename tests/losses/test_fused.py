import copy
import importlib.util
import itertools
import logging
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from fldet.errors import UnavailableError
from fldet.losses import fused, fused_torch
from fldet.losses.formulas import (
    Curve,
    balance,
    cross_entropy,
    focal_loss,
    focal_loss_star,
    signed_logits,
)
from fldet.losses.fused import sigmoid_loss_sum
from fldet.models.losses.sigmoid_loss import (
    CrossEntropyLoss,
    FocalLoss,
    FocalLossStar,
    HingeLoss,
    SigmoidLoss,
)
from fldet.registry import MODELS

K = 5
FAMILIES = {
    "CE": (Curve(), cross_entropy),
    **{
        f"FL {g}": (Curve(power=g), lambda x_t, g=g: focal_loss(x_t, g))
        for g in (0.0, 0.1, 0.5, 1.0, 2.0, 2.5, 5.0)
    },
    **{
        f"FL* {g} {b}": (Curve(gain=g, shift=b), lambda x_t, g=g, b=b: focal_loss_star(x_t, g, b))
        for g, b in [(2.0, 1.0), (4.0, 0.0), (0.5, -1.0)]
    },
}
family = pytest.mark.parametrize(("curve", "formula"), FAMILIES.values(), ids=FAMILIES)
ALPHAS = [None, 0.0, 0.25, 1.0, [0.1, 0.5, 0.9, 0.0, 1.0]]
LAYOUTS = ["rows", "planes", "channels_last", "strided rows", "strided map"]


def pairs(*dimensions):
    """Cases in which any two values of different dimensions meet, as in a Latin square.

    More is not needed: a layout is undone before a loss is computed, and alpha only multiplies it.
    """
    columns = range(len(dimensions))
    first, second, *others = map(len, dimensions)
    cases = [
        (i, j, *((i + j) % size for size in others)) for i in range(first) for j in range(second)
    ]
    for a, b in itertools.combinations(columns, 2):
        met = {(case[a], case[b]) for case in cases}
        assert len(met) == len(dimensions[a]) * len(dimensions[b])
    return [tuple(dimensions[k][case[k]] for k in columns) for case in cases]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Blocks that end inside levels, planes and classes."""
    monkeypatch.setattr(fused_torch, "_CPU_BLOCK", 32)


def sample(layout="rows", dtype=torch.float32, positives=0.1, spread=3.0):
    """Logits, labels and weights (a third 0, a third 1, a third anything) of 72 anchors."""
    generator = torch.Generator().manual_seed(0)
    shape = (72,) if "rows" in layout else (2, 3, 4, 3)
    labels = torch.randint(0, K, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) >= positives] = K
    weights = (3 * torch.rand(shape, generator=generator) - 1).clamp(0, 1)
    weights[weights > 0.8] = 1.7
    logits = spread * torch.randn(72 * K, generator=generator, dtype=torch.float64)
    if "rows" in layout:
        logits = logits.view(72, K)
    elif layout == "channels_last":
        logits = logits.view(2, 3, 4, 3 * K).permute(0, 3, 1, 2)
    else:
        logits = logits.view(2, 3 * K, 3, 4)
    if "strided" in layout:
        logits = torch.stack([logits, logits], dim=-1)[..., 0]
    return logits.to(dtype), labels, weights


def by_formula(formula, logits, labels, weights=None, alpha=None):
    """The sum as autograd takes it."""
    if logits.dim() == 4:
        logits = logits.permute(0, 2, 3, 1).reshape(*labels.shape, -1)
    loss = balance(formula(signed_logits(logits, labels)), labels, alpha).sum(-1)
    return (loss if weights is None else loss * weights).sum()


def value_and_grad(function, logits, *arguments, **keywords):
    x = logits.detach().requires_grad_()
    value = function(x, *arguments, **keywords)
    value.backward()
    return value.detach(), x.grad


def one_level(logits, labels, weights=None, **keywords):
    weights = None if weights is None else [weights]
    return sigmoid_loss_sum([logits], [labels], weights, **keywords)


# --- the same as the formulas ---


@pytest.mark.parametrize(("name", "alpha", "layout"), pairs([*FAMILIES], ALPHAS, LAYOUTS), ids=str)
def test_value_and_gradient_are_those_of_the_formula(name, alpha, layout):
    curve, formula = FAMILIES[name]
    logits, labels, weights = sample(layout, torch.float64)
    expected = value_and_grad(lambda x: by_formula(formula, x, labels, weights, alpha), logits)
    found = value_and_grad(one_level, logits, labels, weights, curve=curve, alpha=alpha)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)
    single = value_and_grad(one_level, logits.float(), labels, weights, curve=curve, alpha=alpha)
    expected = expected[0].float(), expected[1].float()
    torch.testing.assert_close(single, expected, rtol=1e-5, atol=1e-7)
    if "strided" not in layout:
        assert found[1].stride() == logits.stride()


@family
@pytest.mark.parametrize("label", [0, 1], ids=["positive", "negative"])
def test_float32_gradients_are_right_far_out_and_finite_beyond(curve, formula, label):
    x = torch.cat([torch.linspace(-100, 100, 4001), torch.tensor([-1e4, -1e3, 1e3, 1e4])])[:, None]
    labels = torch.full((len(x),), label)
    _, expected = value_and_grad(lambda x: by_formula(formula, x, labels), x.double())
    value, found = value_and_grad(one_level, x, labels, curve=curve)
    assert torch.isfinite(value)
    assert torch.isfinite(found).all()
    error = (found - expected).abs() / expected.abs()
    assert error[expected.abs() > 1e-37].max() <= 2e-5


@pytest.mark.parametrize("positives", [0.0, 1.0])
@pytest.mark.parametrize("layout", ["rows", "planes", "channels_last"])
def test_no_positive_and_nothing_but_positives(positives, layout):
    logits, labels, weights = sample(layout, torch.float64, positives)
    expected = value_and_grad(
        lambda x: by_formula(lambda v: focal_loss(v, 2.0), x, labels, weights, 0.25), logits
    )
    found = value_and_grad(one_level, logits, labels, weights, curve=Curve(2.0), alpha=0.25)
    torch.testing.assert_close(found, expected)


def test_an_ignored_anchor_with_a_huge_loss_leaves_no_trace():
    logits, labels, _ = sample()
    weights = torch.ones(72)
    weights[3] = 0
    quiet = one_level(logits, labels, weights, curve=Curve(2.0))
    logits[3] = 1e4
    value, grad = value_and_grad(one_level, logits, labels, weights, curve=Curve(2.0))
    assert value == quiet
    assert not grad[3].any()


def test_a_positive_with_a_high_logit_is_replaced_not_subtracted():
    logits, labels = torch.tensor([[1e4, -9.0]]), torch.tensor([0])
    value = one_level(logits, labels, curve=Curve(2.0))
    expected = focal_loss(torch.tensor(9.0, dtype=torch.float64), 2.0).float()
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)


# --- situations ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_types_are_computed_in_float32(dtype, layout):
    logits, labels, weights = sample(layout, dtype)
    settings = dict(curve=Curve(2.0), alpha=0.25)
    expected = value_and_grad(one_level, logits.float(), labels, weights, **settings)
    value, grad = value_and_grad(one_level, logits, labels, weights, **settings)
    assert grad.dtype == dtype
    torch.testing.assert_close(value, expected[0])
    torch.testing.assert_close(grad, expected[1].to(dtype))


def test_a_grad_scaler_saves_small_gradients_of_float16():
    logits = torch.full((4, K), -6.0, dtype=torch.float16, requires_grad=True)
    loss = one_level(logits, torch.full((4,), K), curve=Curve(2.0), scale=0.5)
    (2.0**16 * loss).backward()
    _, expected = value_and_grad(
        one_level, logits.float(), torch.full((4,), K), curve=Curve(2.0), scale=0.5
    )
    assert (expected < 2.0**-24).all()  # float16 has no such numbers
    torch.testing.assert_close(logits.grad.float(), expected * 2.0**16, rtol=2e-2, atol=0)


def test_under_autocast_everything_stays_float32():
    logits, labels, weights = sample()
    expected = value_and_grad(one_level, logits, labels, weights, curve=Curve(2.0))
    with torch.autocast("cpu", torch.bfloat16):
        found = value_and_grad(one_level, logits, labels, weights, curve=Curve(2.0))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("factor", [1.0, -3.0, 65536.0, 0.0])
def test_two_backwards_give_twice_the_gradient_whatever_happens_to_the_first(factor):
    logits, labels, _ = sample()
    x = logits.requires_grad_()
    loss = factor * one_level(x, labels, curve=Curve(2.0))
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    expected = first.clone()
    first.zero_()
    for _ in range(2):
        loss.backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(x.grad, 3 * expected)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_gradients_accumulate_over_steps_and_over_uses():
    logits, labels, _ = sample()
    _, once = value_and_grad(one_level, logits, labels, curve=Curve(2.0))
    x = logits.requires_grad_()
    for factor in (1.0, 2.0):
        (factor * one_level(x, labels, curve=Curve(2.0))).backward()
    (
        one_level(x, labels, curve=Curve(2.0)) + one_level(2 * x / 2, labels, curve=Curve(2.0))
    ).backward()
    torch.testing.assert_close(x.grad, 5 * once)


def test_a_second_derivative_is_refused_and_there_per_anchor():
    logits, labels, _ = sample()
    x = logits.requires_grad_()
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(FocalLoss()(x, labels), x, create_graph=True)
    (grad,) = torch.autograd.grad(FocalLoss().per_anchor(x, labels).sum(), x, create_graph=True)
    grad.sum().backward()
    assert x.grad.any()


@pytest.mark.parametrize("shape", [(0, K), (0, 3 * K, 3, 4), (2, 3 * K, 0, 4)])
def test_empty_is_zero_and_connected(shape):
    labels = torch.zeros(shape[:1] if len(shape) == 2 else (shape[0], *shape[2:], 3)).long()
    value, grad = value_and_grad(one_level, torch.zeros(shape), labels, curve=Curve())
    assert value == 0
    assert grad.shape == shape


def test_without_need_of_a_gradient_none_is_made():
    logits, labels, weights = sample()
    expected = one_level(logits.clone().requires_grad_(), labels, weights, curve=Curve(2.0))
    with torch.no_grad():
        found = one_level(logits.clone().requires_grad_(), labels, weights, curve=Curve(2.0))
    assert not found.requires_grad
    assert found == expected == one_level(logits, labels, weights, curve=Curve(2.0))


def test_levels_are_summed_and_some_may_need_no_gradient():
    maps = [sample(layout) for layout in ("planes", "channels_last", "rows")]
    logits, labels, weights = (list(part) for part in zip(*maps, strict=True))
    logits[0].requires_grad_()
    value = sigmoid_loss_sum(logits, labels, weights, curve=Curve(2.0))
    value.backward()
    each = [one_level(*level, curve=Curve(2.0)) for level in maps]
    torch.testing.assert_close(value, sum(each))
    assert logits[0].grad is not None


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([(2, 3)], [[0, 4]], r"must be in 0..3 \(3 is background\), got 0..4"),
        ([(2, 3), (1, 3)], [[0, 3], [-1]], "got -1..3"),
        ([(2, 3)], [[0]], r"labels of shape \(2,\) for logits of shape \(2, 3\), got \(1,\)"),
        ([(1, 3), (1, 4)], [[0], [0]], r"one number of classes on all levels, got \[3, 4\]"),
    ],
)
def test_what_does_not_fit_is_named(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        sigmoid_loss_sum(
            [torch.zeros(shape) for shape in logits],
            [torch.tensor(values) for values in labels],
            curve=Curve(),
        )


# --- memory ---


class Allocations(TorchDispatchMode):
    """Counts the new tensors of at least half the size of the logits, and keeps the largest."""

    def __init__(self, logits):
        super().__init__()
        self.size, self.known = logits.numel(), {logits.untyped_storage().data_ptr()}
        self.full, self.largest = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in [result] if isinstance(result, torch.Tensor) else []:
            storage = tensor.untyped_storage()
            self.largest = max(self.largest, tensor.numel())
            if storage.data_ptr() not in self.known and tensor.numel() >= self.size / 2:
                self.known.add(storage.data_ptr())
                self.full += 1
        return result


@pytest.mark.parametrize("layout", ["rows", "planes", "channels_last"])
def test_nothing_of_the_size_of_the_logits_is_made_but_the_gradient(layout, monkeypatch):
    monkeypatch.setattr(fused_torch, "_CPU_BLOCK", 8)
    logits, labels, weights = sample(layout)
    x = logits.requires_grad_()
    with Allocations(x) as seen:
        one_level(x, labels, weights, curve=Curve(2.0), alpha=0.25).backward()
    assert seen.full == 1
    assert seen.largest == x.numel()


# --- the modules ---


def plain(loss):
    """The same loss by autograd."""
    other = copy.deepcopy(loss)
    if isinstance(loss, SigmoidLoss):
        formula = loss.formula
        other.formula = lambda x_t: formula(x_t)  # no curve that has a kernel
    return other


LOSSES = [FocalLoss(loss_weight=2.0), FocalLossStar(), CrossEntropyLoss(alpha=0.75), HingeLoss()]


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_module_gives_what_autograd_gives(loss, layout):
    logits, labels, weights = sample(layout)
    for avg_factor in (7, torch.tensor(7.0)):
        found = value_and_grad(loss, logits, labels, weights, avg_factor)
        expected = value_and_grad(plain(loss), logits, labels, weights, avg_factor)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_unusual_requests_take_the_plain_path():
    logits, labels, weights = sample()
    weights.requires_grad_()
    FocalLoss()(logits, labels, weights).backward()
    assert weights.grad.any()
    average = torch.tensor(3.0, requires_grad=True)
    FocalLoss()(logits, labels, None, average).backward()
    assert average.grad < 0
    matrix = torch.nn.functional.one_hot(labels, K + 1)[:, :K]
    torch.testing.assert_close(FocalLoss()(logits, matrix), FocalLoss()(logits, labels))
    scalar = FocalLoss()(logits, labels, torch.tensor(2.0))
    torch.testing.assert_close(scalar, 2 * FocalLoss()(logits, labels))


HEAD = dict(
    type="fldet.RetinaHead",
    num_classes=3,
    in_channels=8,
    feat_channels=8,
    stacked_convs=1,
    anchor_generator=dict(type="fldet.AnchorGenerator"),
    bbox_coder=dict(type="mmdet.DeltaXYWHBBoxCoder"),
    loss_bbox=dict(type="mmdet.SmoothL1Loss", beta=0.11),
    train_cfg=dict(
        assigner=dict(type="fldet.MaxIoUAssigner"),
        sampler=dict(type="mmdet.PseudoSampler"),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
)
SIZES = [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]  # of an image of 96 x 128; the last: no object


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "loss", ["fldet.FocalLoss", "fldet.FocalLossStar", "fldet.HingeLoss", "mmdet.FocalLoss"]
)
def test_a_head_has_the_losses_and_gradients_of_the_plain_path(loss, memory_format):
    torch.manual_seed(0)
    head = MODELS.build({**HEAD, "loss_cls": dict(type=loss, use_sigmoid=True)})
    head.init_weights()
    meta = dict(img_shape=(96, 128), pad_shape=(96, 128))
    boxes = torch.tensor([[10.0, 10, 50, 60], [60, 20, 120, 80]])
    truth = [
        InstanceData(bboxes=boxes, labels=torch.tensor([0, 2])),
        InstanceData(bboxes=boxes[:0], labels=torch.tensor([], dtype=torch.long)),
    ]
    features = [torch.randn(2, 8, *size).to(memory_format=memory_format) for size in SIZES]
    scores, deltas = head(features)
    scores = [s.detach().requires_grad_() for s in scores]

    def losses_and_gradients():
        losses = head.loss_by_feat(scores, deltas, truth, [meta] * 2)
        return losses, torch.autograd.grad(losses["loss_cls"], scores)

    found = losses_and_gradients()
    head.loss_cls = OnRows(head.loss_cls)
    expected = losses_and_gradients()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


class OnRows(torch.nn.Module):
    """Not a SigmoidLoss to the head, which then flattens the maps; the loss by autograd."""

    def __init__(self, loss):
        super().__init__()
        self.loss = plain(loss)

    def forward(self, logits, labels, weight, avg_factor):
        assert logits.shape == (len(labels), 3)
        return self.loss(logits, labels, weight, avg_factor=avg_factor)


# --- kernels in one piece ---


COMPILED = """
import sys, torch
from fldet.losses import fused_torch
from fldet.losses.formulas import Curve
from fldet.losses.fused import sigmoid_loss_sum

fused_torch._KERNEL_ENTRIES = 100  # 20 rows
fused_torch._KERNEL_CLASSES = 5
generator = torch.Generator().manual_seed(0)
labels = torch.randint(0, 6, (72,), generator=generator)
weights = torch.rand(72, generator=generator)
for *numbers, dtype in eval(sys.argv[1]):
    rows = (3 * torch.randn(72, 5, generator=generator)).to(dtype)
    channels_last = rows.view(1, 8, 9, 5).permute(0, 3, 1, 2)
    for x, shape in ((rows, (72,)), (channels_last, (1, 8, 9, 1))):
        found = []
        for compiled in (False, True):
            y = x.clone().requires_grad_()
            value = sigmoid_loss_sum(
                [y], [labels.view(shape)], [weights.view(shape)],
                curve=Curve(*numbers), alpha=0.25, scale=0.5, compiled=compiled,
            )
            value.backward()
            found.append((value.detach(), y.grad))
        torch.testing.assert_close(*found)
assert fused_torch._kernel.cache_info().currsize == len(eval(sys.argv[1]))
"""


@pytest.mark.slow
def test_compiled_sums_with_two_gammas_in_one_process_and_in_two(tmp_path):
    # Inductor keeps kernels in a folder: what one process has left must not serve another gamma.
    cache = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    single, half = torch.float32, torch.bfloat16
    for curves in (
        [(0.5, 1.0, 0.0, single)],
        [(2.0, 1.0, 0.0, single), (0.0, 2.0, 1.0, half)],
    ):
        command = [sys.executable, "-c", COMPILED, repr(curves)]
        done = subprocess.run(command, env=cache, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_compiled_sum_needs_a_compiler(monkeypatch):
    from torch._inductor import config

    monkeypatch.setattr(fused_torch, "_KERNEL_ENTRIES", K)
    monkeypatch.setattr(fused_torch, "_KERNEL_CLASSES", K)
    fused_torch._kernel.cache_clear()
    logits, labels, _ = sample()
    loss = FocalLoss(compiled=True)
    # not monkeypatch, which would leave the setting deleted
    with config.patch("cpp.cxx", (None, "no-such-compiler")):
        with pytest.raises(UnavailableError, match="compiled=True of a loss: No working C"):
            loss(logits.requires_grad_(), labels)
        with torch.no_grad():  # the value alone needs no kernel
            assert loss(logits, labels) == FocalLoss()(logits, labels)


class OnGpu(torch.Tensor):
    """Says that it is on a GPU, so that the way of a GPU is taken on a CPU."""

    is_cuda = True


def test_a_gpu_without_a_c_compiler_has_the_loss_without_the_kernel(monkeypatch, caplog):
    launches = []

    def triton_sum(*_arguments):
        launches.append(1)
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    triton = SimpleNamespace(triton_sum=triton_sum)
    monkeypatch.setitem(sys.modules, "fldet.losses.fused_triton", triton)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    fused._triton_works.cache_clear()
    logits, labels, weights = sample()
    settings = dict(curve=Curve(2.0), alpha=0.25)
    expected = value_and_grad(one_level, logits, labels, weights, **settings)
    for _ in range(2):
        found = value_and_grad(one_level, logits.as_subclass(OnGpu), labels, weights, **settings)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
    warned = {record.getMessage() for record in caplog.records}  # by more than one handler
    assert len(launches) == len(warned) == 1
    assert "Triton fails on cpu: RuntimeError: Failed to find C compiler" in caplog.text
    fused._triton_works.cache_clear()


def test_too_little_memory_does_not_count_as_no_triton(monkeypatch):
    failures = [RuntimeError("Triton Error [CUDA]: out of memory")]

    def triton_sum(*_arguments):
        if failures:
            raise failures.pop()
        return torch.zeros(())

    triton = SimpleNamespace(triton_sum=triton_sum)
    monkeypatch.setitem(sys.modules, "fldet.losses.fused_triton", triton)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    fused._triton_works.cache_clear()
    with pytest.raises(RuntimeError, match="out of memory"):
        fused._triton_works(torch.device("cpu"))
    assert fused._triton_works(torch.device("cpu"))
    fused._triton_works.cache_clear()


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "layout", "alpha", "dtype"),
    pairs([*FAMILIES], LAYOUTS, [None, 0.25, ALPHAS[-1]], DTYPES),
    ids=str,
)
def test_cuda_equals_cpu(name, layout, alpha, dtype):
    curve, _ = FAMILIES[name]
    logits, labels, weights = sample(layout, dtype)
    settings = dict(curve=curve, alpha=alpha)
    expected = value_and_grad(one_level, logits, labels, weights, **settings)
    on_gpu = [t.to("cuda") for t in (logits, labels, weights)]
    found = value_and_grad(one_level, *on_gpu, **settings)
    assert torch.equal(found[0], one_level(*on_gpu, **settings))  # the same in every run
    tolerance = dict(rtol=1e-2, atol=1e-4) if dtype.itemsize == 2 else dict(rtol=1e-4, atol=1e-6)
    torch.testing.assert_close([t.cpu() for t in found], list(expected), **tolerance)


def test_the_kernel_is_launched_on_the_device_of_the_logits(monkeypatch):
    entered, seen = [], []

    @contextmanager
    def device_of(tensor):
        entered.append(tensor)
        yield
        entered.pop()

    class Kernel:
        def __getitem__(self, grid):
            return lambda *_arguments, **_constants: seen.append((grid, *entered))

    # Triton is not on every machine, and a second GPU on few.
    triton = SimpleNamespace(cdiv=lambda a, b: -(-a // b), jit=lambda function: Kernel())
    triton.language = SimpleNamespace(constexpr=int)
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setitem(sys.modules, "triton.language", triton.language)
    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    path = Path(fused.__file__).with_name("fused_triton.py")
    spec = importlib.util.spec_from_file_location("kernel_without_triton", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    one = torch.ones(1, 1, 1)
    module.triton_sum(one, one.long(), one, one[0], one[0], Curve(), None)
    ((grid, logits),) = seen
    assert grid == (1,)
    assert logits is one


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU here")
def test_a_gpu_that_is_not_the_current_one():
    logits, labels, weights = sample()
    expected = value_and_grad(one_level, logits, labels, weights, curve=Curve(2.0))
    on_gpu = [t.to("cuda:1") for t in (logits, labels, weights)]
    found = value_and_grad(one_level, *on_gpu, curve=Curve(2.0))
    torch.testing.assert_close([t.cpu() for t in found], list(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton here")
@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("clang")), reason="no C compiler here")
def test_the_kernel_is_used_where_it_can_be():
    fused._triton_works.cache_clear()
    assert fused._triton_works(torch.device("cuda:0"))


INTERPRETED = """
import torch
from fldet.losses import fused, fused_torch as op
from fldet.losses.formulas import Curve
from fldet.losses.fused_triton import triton_sum

torch.manual_seed(0)
for shape in ((700, 5, 1), (6, 5, 77)):
    for curve in (Curve(), Curve(0.5), Curve(2.0), Curve(gain=2.0, shift=1.0)):
        x = 5 * torch.randn(shape)
        labels = torch.randint(0, 6, (shape[0], 1, shape[2]))
        alpha = torch.rand(5, 1)
        level = op.Level(x, labels, torch.rand(labels.shape), 1 - alpha, alpha, curve)
        expected, found = torch.empty_like(x), torch.full_like(x, torch.nan)
        total = op.blocked_sum(level, expected)
        other = triton_sum(*op.kernel_arguments(level), curve, found)
        torch.testing.assert_close(other, total, rtol=1e-5, atol=0)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
        assert triton_sum(*op.kernel_arguments(level), curve, None) == other
assert fused._triton_works(torch.device("cpu"))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton here")
def test_the_kernel_of_triton_as_its_interpreter_sees_it():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    result = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
