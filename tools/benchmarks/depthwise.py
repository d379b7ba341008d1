"""Times the gradient of the weights of EfficientNet-Lite0's wide depthwise convolutions.

Usage: python tools/benchmarks/depthwise.py [--threads 1] [--rounds 15] [--size 512] [--json]

Against torch's, on a CPU, float32, channels_last, 4 images. Both sides run in this process in
alternating rounds, after their results have been found equal to 1e-4 of the largest gradient.
"""

import argparse
import json
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from timing import Line, machine, paired, table
from torch import Tensor, nn

from fldet.models.backbones.efficientnet_lite import EfficientNetLite
from fldet.models.fast.depthwise import is_wide_depthwise, weight_gradient

IMAGES = 4


def main() -> None:
    """Prints one row for each kind of convolution that the backbone has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of an operator (default 1)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds counted (default 15)")
    parser.add_argument("--size", type=int, default=512, help="side of the images (default 512)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    results = []
    for (x, weight, stride, padding), count in convolutions(args.size).items():
        case = case_of(x, weight, stride, padding)
        check_equal(case["torch"](), case["fldet"]())
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
        "results": results,
        "lines": [asdict(line_of(result)) for result in results],
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
    for module in filter(is_wide_depthwise, backbone.modules()):
        module.register_forward_pre_hook(note)
    with torch.no_grad():
        backbone(torch.zeros(IMAGES, 3, size, size))
    return found


def case_of(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> dict[str, Any]:
    """Returns both ways to the gradient of one weight."""
    torch.manual_seed(0)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(kernel)
    result = torch.conv2d(x, weight, None, stride, padding, groups=len(weight))
    grad = torch.randn_like(result)
    torchs = partial(
        torch.nn.grad.conv2d_weight, x, kernel, grad, stride, padding, groups=len(weight)
    )
    return {"torch": torchs, "fldet": partial(weight_gradient, grad, x, weight, stride, padding)}


def check_equal(expected: Tensor, found: Tensor) -> None:
    """Raises SystemExit where two gradients differ by more than rounding."""
    if (error := float((expected - found).abs().max() / expected.abs().max())) > 1e-4:
        raise SystemExit(f"gradients of fldet and of torch differ by {error:.1e} of the largest")


def line_of(result: dict[str, Any]) -> Line:
    """Returns the figure of a convolution."""
    channels, height = result["map"][1:3]
    what = f"gradient of depthwise weights, {channels} channels of {height} px"
    return Line(f"{what}, stride {result['stride']}", "torch", result["speedup"], 1.0)


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
