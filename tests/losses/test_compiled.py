"""The losses inside programs that torch has traced, and where torch is all there is."""

import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import fldet.losses as losses

ALL = {
    "sigmoid": losses.sigmoid_focal_loss,
    "sigmoid, gamma of classes": partial(losses.sigmoid_focal_loss, gamma=[0.5, 2.0, 3.0]),
    "cross entropy": partial(losses.sigmoid_focal_loss, alpha=None, gamma=0.0),
    "star": losses.sigmoid_focal_loss_star,
    "poly1": losses.poly1_focal_loss,
    "asymmetric": losses.asymmetric_loss,
    "quality": losses.quality_focal_loss,
    "varifocal": losses.varifocal_loss,
    "equalized": partial(losses.equalized_focal_loss, ratios=[0.1, 0.5, 1.0]),
    "ghm": losses.ghm_loss,
    "softmax": losses.softmax_focal_loss,
    "softmax, gamma of classes": partial(losses.softmax_focal_loss, gamma=[0.5, 2.0, 3.0]),
    "softmax, smoothed": partial(losses.softmax_focal_loss, label_smoothing=0.1),
    "module": losses.FocalLoss(),
    "softmax module": losses.SoftmaxFocalLoss(torch.ones(3)),
}
each = pytest.mark.parametrize("name", ALL)


def sample():
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)) * 3
    return x, torch.tensor([0, 1, 2, 0, -100, 2, 1, 1])


def value_and_slope(loss, x, y):
    x = x.clone().requires_grad_()
    value = loss(x, y)
    value.sum().backward()
    return value.detach(), x.grad


@each
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_compiled_without_a_break(name, reduction):
    loss = ALL[name]
    if not isinstance(loss, torch.nn.Module):
        loss = partial(loss, reduction=reduction)
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for found, expected in zip(
        value_and_slope(compiled, *sample()), value_and_slope(loss, *sample()), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["sigmoid", "star", "softmax", "softmax, gamma of classes"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ["labels", "what is ignored is NaN", "shares", "weights", "map"])
def test_what_is_compiled_with_its_gradient_is_the_eager_loss(name, dtype, kind):
    x, y = sample()
    x = x.to(dtype)
    settings = {"reduction": "sum"}
    if kind == "shares":
        y = torch.nn.functional.one_hot(y.clamp(min=0), 3) * 0.8
    elif kind == "weights":
        weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
        settings["weight" if "softmax" in name else "class_weight"] = weight
    elif kind == "map":
        x, y = x.T[None].reshape(1, 3, 4, 2), y.reshape(1, 4, 2)
    elif kind == "what is ignored is NaN":
        x[y == -100] = torch.nan
    torch.compiler.reset()
    loss = partial(ALL[name], **settings)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    both = zip(value_and_slope(compiled, x, y), value_and_slope(loss, x, y), strict=True)
    for found, expected in both:
        torch.testing.assert_close(found, expected)


@each
def test_compiled_nothing_gives_what_it_gives_eagerly(name):
    x, _ = sample()
    y = torch.full((8,), -100)
    torch.compiler.reset()
    loss = ALL[name]
    if not isinstance(loss, torch.nn.Module):
        loss = partial(loss, reduction="mean")
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    both = zip(value_and_slope(compiled, x, y), value_and_slope(loss, x, y), strict=True)
    for found, expected in both:
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_compiled_transforms(name):
    x, y = sample()
    loss = partial(ALL[name], reduction="sum")
    for transform in (torch.vmap, torch.func.grad, lambda f: torch.vmap(torch.func.grad(f))):
        torch.compiler.reset()
        compiled = torch.compile(transform(loss), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x, y), transform(loss)(x, y))


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_compiled_weights_that_want_a_gradient_get_it(name):
    x, y = sample()
    key = "weight" if name == "softmax" else "class_weight"

    def slopes(compile_it):
        weight = torch.ones(3, requires_grad=True)
        loss = partial(ALL[name], reduction="sum", **{key: weight})
        torch.compiler.reset()
        if compile_it:
            loss = torch.compile(loss, fullgraph=True, backend="aot_eager")
        loss(x, y).backward()
        return weight.grad

    assert slopes(True).abs().min() > 0
    torch.testing.assert_close(slopes(True), slopes(False))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="Inductor needs a C++ compiler")
@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_inductor_computes_the_same(name):
    compiled = torch.compile(partial(ALL[name], reduction="sum"), fullgraph=True)
    loss = partial(ALL[name], reduction="sum")
    for found, expected in zip(
        value_and_slope(compiled, *sample()), value_and_slope(loss, *sample()), strict=True
    ):
        torch.testing.assert_close(found, expected)


@each
def test_exported(name):
    class Program(torch.nn.Module):
        def forward(self, x, y):
            return ALL[name](x, y)

    torch.compiler.reset()
    program = torch.export.export(Program(), sample())
    torch.testing.assert_close(program.module()(*sample()), ALL[name](*sample()))


def test_of_meta_tensors_only_the_shape_is_known():
    x = torch.empty(8, 3, device="meta")
    assert losses.sigmoid_focal_loss(x, torch.empty(8, 3, device="meta")).shape == (8, 3)
    with pytest.raises(ValueError, match="expected labels of shape"):
        losses.sigmoid_focal_loss(x, torch.empty(8, 4, device="meta"))


NEEDED = [  # by torch itself
    *("torch", "torchgen", "functorch", "typing_extensions.py", "sympy", "mpmath", "networkx"),
    *("filelock", "fsspec", "jinja2", "markupsafe", "setuptools", "_distutils_hack"),
]
CHANGES_NOTHING = """
import os, sys
import torch
before = list(sys.meta_path), dict(os.environ), torch.get_num_threads(), torch.get_default_dtype()
import fldet.losses
assert before == (
    sys.meta_path, dict(os.environ), torch.get_num_threads(), torch.get_default_dtype()
)
"""


def test_torch_is_all_that_the_training_of_the_page_needs(tmp_path, installed_wheel):
    """The wheel, torch and what torch needs are all that can be imported."""
    site = Path(torch.__file__).parent.parent
    for name in NEEDED:
        if (site / name).exists():
            (tmp_path / name).symlink_to(site / name)
    page = (Path(__file__).parents[2] / "docs" / "losses.md").read_text()
    (training,) = re.findall(r"<!-- ten lines -->\n\n```python\n(.*?)```", page, re.DOTALL)
    start = f"import sys\nsys.path[:0] = {[str(installed_wheel), str(tmp_path)]}\n"
    check = "assert float(loss) < 0.1, loss\n"
    for text in (CHANGES_NOTHING, training + check):
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-W", "ignore", "-c", start + text],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", f"{start}import fldet.registry"],
            check=True,
            capture_output=True,
        )
