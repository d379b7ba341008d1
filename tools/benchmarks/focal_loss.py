"""Times fldet's FocalLoss, forward and backward, against MMDetection's and plain autograd.

Usage: python tools/benchmarks/focal_loss.py [--no-compiled] [--threads 1] [--rounds 9]
       [--anchors N ...] [--peers] [--device cpu] [--json]

MMDetection's takes rows of anchors; fldet's takes rows, and maps in both memory orders. All run in
this process in alternating rounds. The error of a gradient is relative to float64, over logits from
-100 to 100 where it is above 1e-37. With ``--device cuda`` and Triton the bandwidth of the kernel
is compared with that of a copy. ``--peers``, the default on a GPU, adds plain autograd under
torch.compile, and torchvision's and kornia's functions where they are installed, with the one-hot
targets that they need.
"""

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from losses import loss_of
from timing import Line, event_ms, machine, paired, peak_extra_mib, table
from torch import Tensor

from fldet.losses import sigmoid_focal_loss
from fldet.models.losses.sigmoid_loss import FocalLoss
from fldet.registry import MODELS

CASES = ((100_000, 80), (200_000, 80), (100_000, 3))  # anchors, classes
NUM_ANCHORS, WIDTH = 10, 100  # of a place, and places in a row of the map
NUM_POSITIVES, IGNORED = 60, 0.01
GOALS = {
    ("fldet", 100_000, 80): 6.0,
    ("fldet", 200_000, 80): 10.0,
    ("compiled", 100_000, 80): 11.0,
    ("compiled", 200_000, 80): 20.0,
}
GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
PEERS = ("torch.compile", "torchvision", "kornia")
Loss = Callable[..., Tensor]


def main() -> None:
    """Prints one row for each size and function, and the errors of the gradients."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        default=shutil.which("g++") is not None,
        help="fldet's compiled kernel, too (default where there is g++; not on a GPU)",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of an operator (default 1)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds counted (default 9)")
    parser.add_argument(
        "--anchors", type=int, nargs="+", metavar="N", help="of 80 classes, in the place of all"
    )
    parser.add_argument("--peers", action="store_true", help="others' losses, as on a GPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    torch.set_num_threads(1)  # a process with threads is not to be forked
    compiled = args.compiled and args.device == "cpu"
    on_gpu = args.device != "cpu"
    peers = args.peers or on_gpu
    cases = [(anchors, 80) for anchors in args.anchors] if args.anchors else CASES
    memory = {case: memory_of(*case, args.device, compiled, on_gpu) for case in cases}
    torch.set_num_threads(args.threads)
    results = []
    for case in cases:
        functions = steps(*case, args.device, compiled, peers)
        check_close({name: function() for name, function in functions.items()})
        for name, timing in paired(functions, rounds=args.rounds).items():
            results.append(
                {
                    "anchors": case[0],
                    "classes": case[1],
                    "function": name,
                    **asdict(timing),
                    "peak_extra_mib": memory[case].get(name),  # of peers on a GPU only
                    "logits_mib": case[0] * case[1] * 4 / 2**20,
                }
            )
    report = {
        "schema": 1,
        "machine": machine(),
        "rounds": args.rounds,
        "results": results,
        "gradient_errors": gradient_errors(args.device, compiled),
        "bandwidth": bandwidth() if args.device != "cpu" and find_spec("triton") else [],
    }
    report["lines"] = [asdict(line) for line in lines(report)]
    print(json.dumps(report) if args.json else as_text(report))


def lines(report: dict[str, Any]) -> list[Line]:
    """Returns the figures of the report that have goals, and their kin."""
    found = []
    by_size = {(r["function"], (r["anchors"], r["classes"])): r for r in report["results"]}
    for r in report["results"]:
        name, layout = r["function"].split(", ")
        size = (r["anchors"], r["classes"])
        if name in PEERS:
            own = by_size[("fldet, rows", size)]["speedup"] / r["speedup"]
            found.append(Line(f"focal loss {size[0]} x {size[1]}, rows", name, own))
        if name not in ("fldet", "compiled") or (name, layout) == ("compiled", "map"):
            continue
        what = f"focal loss {size[0]} x {size[1]}, {layout}{', compiled' * (name == 'compiled')}"
        found.append(Line(what, "mmdet FocalLoss", r["speedup"], GOALS.get((name, *size))))
        memory = r["peak_extra_mib"] / r["logits_mib"]
        found.append(Line(f"{what}, memory", "the logits", memory, 2.0, "x", True))
    error = max(report["gradient_errors"]["fldet"].values())
    found.append(Line("focal loss, gradient error", "float64", error, 2e-5, "relative", True))
    for r in report["bandwidth"]:
        what = f"focal loss in Triton, {r['dtype']}, bandwidth"
        found.append(Line(what, "a copy", r["share"], 0.8, "of it"))
    return found


def bandwidth() -> list[dict[str, Any]]:
    """Returns GB/s of the Triton kernel, loss and gradient, and of a copy, for each data type.

    The logits are those of eight images of 800 x 1344, more than any cache holds. Counted are one
    read of them and one write of the gradient, 8 bytes for a label and 4 for a weight.
    """
    from fldet.losses.formulas import Curve
    from fldet.losses.fused_triton import triton_sum

    anchors, classes = 8 * 201_600, 80
    labels = torch.full((anchors, 1, 1), classes, device="cuda")
    weights = torch.ones(anchors, 1, 1, device="cuda")
    negative, positive = torch.full((2, classes, 1), 0.5, device="cuda")
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        logits = (torch.randn(anchors, classes, 1, device="cuda") - 4.6).to(dtype)
        grad = torch.empty_like(logits)
        kernel = partial(
            triton_sum, logits, labels, weights, negative, positive, Curve(power=2.0), grad
        )
        own = 2 * logits.numel() * logits.element_size()
        kernel_rate = (own + 12 * anchors) / event_ms(kernel, calls=50) / 1e6
        copy_rate = own / event_ms(partial(grad.copy_, logits), calls=50) / 1e6
        rows.append(
            {
                "dtype": str(dtype).removeprefix("torch."),
                "kernel_gb_per_s": kernel_rate,
                "copy_gb_per_s": copy_rate,
                "share": kernel_rate / copy_rate,
            }
        )
    return rows


def losses(gamma: float = 2.0, compiled: bool = False) -> dict[str, Loss]:
    """Returns the three losses, and perhaps the compiled one, all of the same arguments."""
    mmdets = MODELS.build({"type": "mmdet.FocalLoss", "gamma": gamma, "alpha": 0.25})

    def by_autograd(logits: Tensor, labels: Tensor, weight: Tensor, avg_factor: float) -> Tensor:
        loss = sigmoid_focal_loss(logits, labels, gamma=gamma)
        return (loss * weight[:, None]).sum() / avg_factor

    def by_mmdet(logits: Tensor, labels: Tensor, weight: Tensor, avg_factor: float) -> Tensor:
        return mmdets(logits, labels, weight, avg_factor=avg_factor)

    result = {"mmdet": by_mmdet, "autograd": by_autograd, "fldet": FocalLoss(gamma=gamma)}
    return {**result, "compiled": FocalLoss(gamma=gamma, compiled=True)} if compiled else result


def others() -> dict[str, Loss]:
    """Returns plain autograd under torch.compile, and the losses of packages that are installed."""

    def with_one_hot(
        function: Loss, logits: Tensor, labels: Tensor, weight: Tensor, avg_factor: float
    ) -> Tensor:
        targets = F.one_hot(labels, logits.shape[1] + 1)[:, :-1].to(logits.dtype)
        return (function(logits, targets) * weight[:, None]).sum() / avg_factor

    result: dict[str, Loss] = {"torch.compile": torch.compile(losses()["autograd"])}
    for name in ("torchvision", "kornia"):
        if find_spec(name):
            result[name] = partial(with_one_hot, loss_of(name, "none"))
    return result


def steps(
    anchors: int, classes: int, device: str, compiled: bool, peers: bool
) -> dict[str, Callable[[], float]]:
    """Returns for each way a function that runs forward and backward and returns the loss."""
    layouts = {n: [t.to(device) for t in v] for n, v in inputs(anchors, classes).items()}
    return {
        f"{name}, {layout}": partial(step, loss, *layouts[layout])
        for name, loss in (losses(compiled=compiled) | (others() if peers else {})).items()
        for layout in (layouts if isinstance(loss, FocalLoss) else ["rows"])
    }


def inputs(anchors: int, classes: int) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Returns logits, labels and weights of the same anchors as rows and as maps."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(anchors, classes, generator=generator) * 1.5 - 4.6
    labels, weights = torch.full((anchors,), classes), torch.ones(anchors)
    order = torch.randperm(anchors, generator=generator)
    positives, ignored = order[:NUM_POSITIVES], order[NUM_POSITIVES:][: int(anchors * IGNORED)]
    labels[positives] = torch.randint(0, classes, (NUM_POSITIVES,), generator=generator)
    weights[ignored] = 0
    shape = (1, -1, WIDTH, NUM_ANCHORS)
    channels_last = rows.view(1, -1, WIDTH, NUM_ANCHORS * classes).permute(0, 3, 1, 2)
    on_map = labels.view(shape), weights.view(shape)
    return {
        "rows": (rows, labels, weights),
        "map": (channels_last.contiguous(), *on_map),
        "channels_last": (channels_last, *on_map),
    }


def step(loss: Loss, logits: Tensor, labels: Tensor, weights: Tensor) -> float:
    """Returns the loss after a backward pass."""
    x = logits.detach().requires_grad_()
    value = loss(x, labels, weights, 100.0)
    value.backward()
    return float(value)


def memory_of(
    anchors: int, classes: int, device: str, compiled: bool, peers: bool
) -> dict[str, float]:
    """Returns the peak of each function beyond its inputs, in MiB."""
    functions = steps(anchors, classes, device, compiled, peers)
    small = steps(WIDTH * NUM_ANCHORS, classes, device, compiled, peers)
    for name in functions:
        small[name]()  # what a first call loads or compiles is not the memory of a step
    return {name: peak_extra_mib(function, device) for name, function in functions.items()}


def check_close(values: dict[str, float]) -> None:
    """Raises SystemExit where a loss differs from mmdet's by more than 1e-5 of it."""
    expected = values["mmdet, rows"]
    for name, value in values.items():
        if not abs(value - expected) <= 1e-5 * expected:
            raise SystemExit(f"{name} gives {value}, mmdet gives {expected}")


def gradient_errors(device: str, compiled: bool) -> dict[str, dict[str, float]]:
    """Returns for each loss and gamma the largest relative error; NaN where one is not finite."""
    logits = torch.linspace(-100, 100, 20_001, device=device).repeat(2)[:, None]
    labels = torch.arange(2, device=device).repeat_interleave(
        20_001
    )  # all positive, then all negative
    errors: dict[str, dict[str, float]] = {}
    for gamma in GAMMAS:
        x = logits.double().requires_grad_()
        sigmoid_focal_loss(x, labels, gamma=gamma).sum().backward()
        for name, loss in losses(gamma, compiled).items():
            y = logits.clone().requires_grad_()
            loss(y, labels, torch.ones_like(labels, dtype=torch.float32), 1.0).backward()
            error = ((y.grad - x.grad).abs() / x.grad.abs())[x.grad.abs() > 1e-37].max()
            errors.setdefault(name, {})[str(gamma)] = float(error)
    return errors


def as_text(report: dict[str, Any]) -> str:
    """Returns the report as the machine's line and two tables."""
    head = ("anchors", "classes", "function", "ms", "least", "most", "faster", "MiB", "logits MiB")
    rows = [
        (
            str(r["anchors"]),
            str(r["classes"]),
            r["function"],
            *(f"{r[key]:.1f}" for key in ("median_ms", "min_ms", "max_ms")),
            f"x{r['speedup']:.1f}",
            "-" if r["peak_extra_mib"] is None else f"{r['peak_extra_mib']:.0f}",
            f"{r['logits_mib']:.0f}",
        )
        for r in report["results"]
    ]
    errors = [
        (name, *(f"{e:.1e}" for e in by_gamma.values()))
        for name, by_gamma in report["gradient_errors"].items()
    ]
    rates = "".join(
        f"\n\nTriton kernel, {r['dtype']}: {r['kernel_gb_per_s']:.0f} GB/s, "
        f"{r['share']:.0%} of a copy"
        for r in report["bandwidth"]
    )
    facts = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    return (
        f"{facts}; medians of {report['rounds']} rounds; faster: than mmdet; MiB: peak beyond the "
        f"inputs\n\n{table(head, rows)}\n\nlargest relative error of a gradient\n\n"
        f"{table(('loss', *(f'gamma {g}' for g in GAMMAS)), errors)}{rates}"
    )


if __name__ == "__main__":
    main()
