"""Times the gradients of EfficientNet-Lite0's depthwise convolutions that torch is slow in.

Usage: python tools/benchmarks/depthwise.py [--precision bf16] [--threads 1] [--rounds 15] [--json]

Of map and weight, against torch's, on a CPU, in channels_last, 4 images. Both sides run in this
process in alternating rounds, after their results have been found equal to 1e-4 of the largest
gradient, in bfloat16 to its rounding.
"""

import argparse
import json
from dataclasses import asdict
from typing import Any

import torch
from timing import Line, machine, paired, table
from torch import Tensor, nn

from fldet.models.backbones.efficientnet_lite import EfficientNetLite
from fldet.models.fast.depthwise import is_slow_depthwise, map_gradient, weight_gradient

IMAGES = 4
# what gradients of both sides may differ by, over the largest of them
PRECISIONS = {"fp32": (torch.float32, 1e-4), "bf16": (torch.bfloat16, 2**-7)}


def main() -> None:
    """Prints one row for each kind of convolution that the backbone has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="(default fp32)")
    parser.add_argument("--threads", type=int, default=1, help="threads of an operator (default 1)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds counted (default 15)")
    parser.add_argument("--size", type=int, default=512, help="side of the images (default 512)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    dtype, tolerance = PRECISIONS[args.precision]
    results = []
    for (x, weight, stride, padding), count in convolutions(args.size).items():
        case = case_of(x, weight, stride, padding, dtype)
        for expected, found in zip(case["torch"](), case["fldet"](), strict=True):
            check_equal(expected, found, tolerance)
        timings = paired(case, rounds=args.rounds)
        results.append(
            {
                "map": list(x),
                "kernel": list(weight[2:]),
                "stride": stride[0],
                "times": count,
                "speedup": timings["fldet"].speedup,
                **{name: asdict(timing) for name, timing in timings.items()},
            }
        )
    report = {
        "schema": 1,
        "machine": machine(),
        "rounds": args.rounds,
        "precision": args.precision,
        "results": results,
        "lines": [asdict(line_of(result, args.precision)) for result in results],
    }
    print(json.dumps(report) if args.json else as_text(report))


def convolutions(size: int) -> dict[tuple[Any, ...], int]:
    """Returns shapes of map and weight, stride and padding, and how often the backbone has them."""
    found: dict[tuple[Any, ...], int] = {}

    def note(module: Any, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        weight = module.weight
        if hasattr(module, "weight_for"):
            weight = module.weight_for(x, weight)
        key = (tuple(x.shape), tuple(weight.shape), module.stride, module.padding)
        found[key] = found.get(key, 0) + 1

    backbone: nn.Module = EfficientNetLite("lite0").eval()
    for module in filter(is_slow_depthwise, backbone.modules()):
        module.register_forward_pre_hook(note)
    with torch.no_grad():
        backbone(torch.zeros(IMAGES, 3, size, size))
    return found


def case_of(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Returns both ways to the gradients of one map and weight."""
    torch.manual_seed(0)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last).to(dtype)
    weight = torch.randn(kernel).to(dtype)
    grad = torch.randn_like(torch.conv2d(x, weight, None, stride, padding, groups=len(weight)))
    of = (grad, x, weight, stride, padding)

    def torchs() -> tuple[Tensor, ...]:
        more = (None, stride, padding, (1, 1), False, (0, 0), len(weight))
        gradients = torch.ops.aten.convolution_backward(grad, x, weight, *more, [True, True, False])
        return gradients[:2]

    return {"torch": torchs, "fldet": lambda: (map_gradient(*of), weight_gradient(*of))}


def check_equal(expected: Tensor, found: Tensor, tolerance: float) -> None:
    """Raises SystemExit where two gradients differ by more than rounding."""
    if (error := float((expected - found).abs().max() / expected.abs().max())) > tolerance:
        raise SystemExit(f"gradients of fldet and of torch differ by {error:.1e} of the largest")


def line_of(result: dict[str, Any], precision: str) -> Line:
    """Returns the figure of a convolution."""
    channels, height = result["map"][1:3]
    side, stride = result["kernel"][1], result["stride"]
    what = f"gradients of a depthwise convolution, {channels} channels of {height} px"
    return Line(
        f"{what}, kernel {side}, stride {stride}, {precision}", "torch", result["speedup"], 1.0
    )


def as_text(report: dict[str, Any]) -> str:
    """Returns the table for people."""
    rows = [
        [
            " x ".join(map(str, result["map"])),
            " x ".join(map(str, result["kernel"])),
            *(str(result["stride"]), str(result["times"])),
            *(f"{result[name]['median_ms']:.1f}" for name in ("torch", "fldet")),
            f"{result['speedup']:.2f}",
        ]
        for result in report["results"]
    ]
    head = ["map", "kernel", "stride", "in the network", "torch ms", "fldet ms", "speedup"]
    return table(head, rows)


if __name__ == "__main__":
    main()
