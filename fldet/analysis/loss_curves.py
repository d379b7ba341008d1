"""Figures 1, 5 and 6: the losses as curves, drawn from the functions that training uses."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fldet.losses.formulas import cross_entropy, focal_loss, focal_loss_star
from fldet.pictures.figure import figure, greek, line_style, save
from fldet.results import ANALYSES, Analysis

GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
LANDMARKS = (0.1, 0.5, 0.9, 0.968)  # values of p_t; the last two are those of the paper's text

# Figures 5 and 6. On a logit axis CE is the same curve as FL with gamma = 0.
VARIANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "CE": cross_entropy,
    "FL, gamma = 2": lambda x_t: focal_loss(x_t, 2.0),
    "FL*, gamma = 2, beta = 1": lambda x_t: focal_loss_star(x_t, 2.0, 1.0),
    "FL*, gamma = 4, beta = 0": lambda x_t: focal_loss_star(x_t, 4.0, 0.0),
}

_POINTS = 801


@dataclass(frozen=True)
class LossCurves:
    """Points of the curves; every list is as long as the axis that it belongs to."""

    p_t: tuple[float, ...]  # axis of Figure 1, inside (0, 1)
    by_gamma: dict[float, tuple[float, ...]]  # focal loss over ``p_t`` in nats, by gamma
    x_t: tuple[float, ...]  # axis of Figures 5 and 6, in logits
    losses: dict[str, tuple[float, ...]]  # loss over ``x_t`` in nats, by name
    derivatives: dict[str, tuple[float, ...]]  # its derivative with respect to ``x_t``, by name
    # for each gamma the focal loss at the p_t of ``LANDMARKS``, by p_t
    landmarks: dict[float, dict[float, float]]

    def __str__(self) -> str:
        head = "gamma  " + "  ".join(f"{f'p_t = {p_t:g}':>11}" for p_t in LANDMARKS)
        rows = [
            f"{gamma:<5g}  " + "  ".join(f"{loss:>11.3g}" for loss in losses.values())
            for gamma, losses in self.landmarks.items()
        ]
        return "\n".join(["focal loss in nats", head, "-" * len(head), *rows])


def analyze_loss_curves(*, out_dir: Path = ANALYSES) -> Analysis[LossCurves]:
    """Draws Figures 1, 5 and 6 into a folder."""
    curves = loss_curves()
    return Analysis(curves, plot_loss_curves(curves, out_dir))


def loss_curves() -> LossCurves:
    """Returns the curves; the same at every call."""
    p_t = torch.linspace(0.001, 0.999, _POINTS, dtype=torch.float64)
    x_t = torch.linspace(-5, 5, _POINTS, dtype=torch.float64)
    curves = {name: value_and_slope(loss, x_t) for name, loss in VARIANTS.items()}
    places = torch.tensor(LANDMARKS, dtype=torch.float64)
    return LossCurves(
        p_t=_floats(p_t),
        by_gamma={gamma: _floats(focal_loss(torch.logit(p_t), gamma)) for gamma in GAMMAS},
        x_t=_floats(x_t),
        losses={name: _floats(value) for name, (value, _) in curves.items()},
        derivatives={name: _floats(slope) for name, (_, slope) in curves.items()},
        landmarks={
            gamma: dict(
                zip(LANDMARKS, _floats(focal_loss(torch.logit(places), gamma)), strict=True)
            )
            for gamma in GAMMAS
        },
    )


def value_and_slope(loss: Callable[[Tensor], Tensor], x_t: Tensor) -> tuple[Tensor, Tensor]:
    """Returns an elementwise loss and its derivative at every x_t."""
    x_t = x_t.detach().clone().requires_grad_()
    value = loss(x_t)
    (slope,) = torch.autograd.grad(value.sum(), x_t)
    return value.detach(), slope


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(values.tolist())


def plot_loss_curves(curves: LossCurves, out_dir: Path) -> list[Path]:
    """Draws the three figures into a folder and returns the paths of PNG and SVG."""
    figures = {
        "figure1_focal_loss": _plot_focal_loss,
        "figure5_loss": _plot_variants,
        "figure6_derivative": _plot_derivatives,
    }
    paths = []
    for name, plot in figures.items():
        with figure(9, 6.6) as drawn:
            plot(drawn.add_subplot(), curves)
            paths += save(drawn, out_dir / name)
    return paths


def _plot_focal_loss(axes: Any, curves: LossCurves) -> None:  # Figure 1
    for index, (gamma, losses) in enumerate(curves.by_gamma.items()):
        name = "gamma = 0 (cross entropy)" if gamma == 0 else f"gamma = {gamma:g}"
        axes.plot(curves.p_t, losses, label=greek(name), **line_style(index))
    axes.axvspan(0.5, 1, color="#009E73", alpha=0.1, linewidth=0)
    axes.text(0.75, 1.15, "well-classified\nexamples ($p_t > .5$)", ha="center", va="bottom")
    axes.set(
        xlim=(0, 1),
        ylim=(0, 5),
        xlabel="probability of the ground truth class, $p_t$",
        ylabel="loss [nats]",
        title=r"Focal loss  $\mathrm{FL}(p_t) = -(1 - p_t)^\gamma\, \log(p_t)$",
    )
    axes.legend(loc="upper right", handlelength=3)


def _plot_variants(axes: Any, curves: LossCurves) -> None:  # Figure 5
    _draw_over_x_t(axes, curves.x_t, curves.losses)
    axes.set(ylim=(0, 5), ylabel="loss [nats]", title="Cross entropy, FL and FL*")
    axes.text(2.5, 1.15, "well-classified\nexamples ($x_t > 0$)", ha="center", va="bottom")
    axes.legend(loc="upper right", handlelength=3)


def _plot_derivatives(axes: Any, curves: LossCurves) -> None:  # Figure 6
    _draw_over_x_t(axes, curves.x_t, curves.derivatives)
    axes.set(
        ylabel=r"derivative of the loss,  $dL / dx_t$",
        title="Derivatives of cross entropy, FL and FL*",
    )
    axes.legend(loc="lower right", handlelength=3)


def _draw_over_x_t(axes: Any, x_t: tuple[float, ...], curves: dict[str, tuple[float, ...]]) -> None:
    for index, (name, values) in enumerate(curves.items()):
        axes.plot(x_t, values, label=greek(name), **line_style(index))
    axes.axvline(0, color="0.55", linewidth=1.2, linestyle="dotted")
    axes.set(xlim=(x_t[0], x_t[-1]), xlabel="signed logit, $x_t = y x$")
