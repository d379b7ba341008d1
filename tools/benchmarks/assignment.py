"""Times fldet's MaxIoUAssigner against MMDetection's, and compares their memory.

Usage: python tools/benchmarks/assignment.py [--threads 1] [--rounds 15] [--device cpu] [--json]

The anchors are those of an image of 800 x 1344 pixels. Both sides run in this process in
alternating rounds, after their results have been found equal.
"""

import argparse
import json
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from mmengine.structures import InstanceData
from timing import Line, machine, paired, peak_extra_mib, table

from fldet.models.task_modules import AnchorGenerator, MaxIoUAssigner
from fldet.registry import TASK_UTILS

HEIGHT, WIDTH = 800, 1344
NUM_BOXES = (1, 7, 30, 100)  # 7 is the mean of COCO
GOALS, MOST_MIB = {30: 3.0, 100: 4.0}, 25.0


def main() -> None:
    """Prints one row for each number of boxes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of an operator (default 1)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds counted (default 15)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    torch.set_num_threads(1)  # a process with threads is not to be forked
    anchors = pyramid().to(args.device)
    assigners = {
        "mmdet": TASK_UTILS.build(
            {"type": "mmdet.MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4}
        ),
        "fldet": MaxIoUAssigner(),
    }
    cases = {
        number: {
            name: partial(
                assigner.assign, InstanceData(priors=anchors), truth(number).to(args.device)
            )
            for name, assigner in assigners.items()
        }
        for number in NUM_BOXES
    }
    memory = {
        number: {name: peak_extra_mib(function, args.device) for name, function in case.items()}
        for number, case in cases.items()
    }
    torch.set_num_threads(args.threads)
    results = []
    for number, case in cases.items():
        check_equal(case["mmdet"](), case["fldet"]())
        timings = paired(case, rounds=args.rounds)
        results.append(
            {
                "anchors": len(anchors),
                "boxes": number,
                "speedup": timings["fldet"].speedup,
                **{name: asdict(timing) for name, timing in timings.items()},
                "peak_extra_mib": memory[number],
            }
        )
    report = {
        "schema": 1,
        "machine": machine(),
        "rounds": args.rounds,
        "results": results,
        "lines": [asdict(line) for result in results for line in lines(result)],
    }
    print(json.dumps(report) if args.json else as_text(report))


def lines(result: dict[str, Any]) -> list[Line]:
    """Returns the figures of a number of boxes."""
    what, boxes = f"assignment {result['anchors']} x {result['boxes']}", result["boxes"]
    return [
        Line(what, "MaxIoUAssigner", result["speedup"], GOALS.get(boxes)),
        Line(f"{what}, memory", "", result["peak_extra_mib"]["fldet"], MOST_MIB, "MiB", True),
    ]


def pyramid() -> torch.Tensor:
    """Returns the (N, 4) anchors of P3 to P7."""
    generator = AnchorGenerator()
    sizes = [(-(-HEIGHT // s[1]), -(-WIDTH // s[0])) for s in generator.strides]
    return torch.cat(generator.grid_priors(sizes, device="cpu"))


def truth(number: int) -> InstanceData:
    """Returns boxes with sides of 15 to 365 pixels, small ones as frequent as large ones."""
    generator = torch.Generator().manual_seed(0)
    sides = torch.exp(torch.rand(number, 2, generator=generator) * 3.2 + 2.7)
    corner = torch.rand(number, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - sides)
    labels = torch.randint(0, 80, (number,), generator=generator)
    return InstanceData(bboxes=torch.cat([corner, corner + sides], dim=1), labels=labels)


def check_equal(expected: Any, found: Any) -> None:
    """Raises SystemExit where two results differ in a single bit."""
    for name in ("gt_inds", "max_overlaps", "labels"):
        if not torch.equal(getattr(expected, name), getattr(found, name)):
            raise SystemExit(f"{name} of fldet and of mmdet differ")


def as_text(report: dict[str, Any]) -> str:
    """Returns the report as the machine's line and a table."""
    head = ("anchors", "boxes", "mmdet ms", "fldet ms", "faster", "mmdet MiB", "fldet MiB")
    rows = [
        (
            str(r["anchors"]),
            str(r["boxes"]),
            f"{r['mmdet']['median_ms']:.1f}",
            f"{r['fldet']['median_ms']:.1f}",
            f"x{r['speedup']:.2f}",
            f"{r['peak_extra_mib']['mmdet']:.0f}",
            f"{r['peak_extra_mib']['fldet']:.0f}",
        )
        for r in report["results"]
    ]
    facts = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    return (
        f"{facts}; medians of {report['rounds']} rounds; results equal; MiB: peak beyond the "
        f"inputs\n\n{table(head, rows)}"
    )


if __name__ == "__main__":
    main()
