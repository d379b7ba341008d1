"""Times the head's post-processing against MMDetection's, and compares their memory.

Usage: python tools/benchmarks/post_process.py [--threads 1] [--rounds 9] [--device cpu] [--json]

The maps are random, of an image of 800 x 1333 pixels and 80 classes (16 million logits), shifted
until so many scores are above 0.05 as each case says. Both sides run in this process in alternating
rounds, after their detections have been found equal to the last bit.
"""

import argparse
import json
import math
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from mmengine.registry import init_default_scope
from timing import Line, machine, paired, peak_extra_mib, table

from fldet.config.load import load_config
from fldet.ops import active_backend
from fldet.registry import MODELS

IMAGE = (800, 1333)
LEVELS = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
GOAL = 5.0
CASES = {"160 scores": 1e-5, "16k scores": 1e-3, "5000 boxes": None}  # fraction above 0.05


def main() -> None:
    """Prints one row for each number of scores and memory format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of an operator (default 1)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds counted (default 9)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    torch.set_grad_enabled(False)
    torch.set_num_threads(1)  # a process with threads is not to be forked
    cases = {
        (name, layout): both_ways(fraction, memory_format, args.device)
        for name, fraction in CASES.items()
        for layout, memory_format in FORMATS.items()
    }
    memory = {
        key: {way: peak_extra_mib(run, args.device) for way, run in case.items()}
        for key, case in cases.items()
    }
    torch.set_num_threads(args.threads)
    results = []
    for (name, layout), case in cases.items():
        detections = check_equal(case["stock"](), case["lean"]())
        timings = paired(case, rounds=args.rounds)
        results.append(
            {
                "case": name,
                "layout": layout,
                "detections": detections,
                "speedup": timings["lean"].speedup,
                **{way: asdict(timing) for way, timing in timings.items()},
                "peak_extra_mib": memory[name, layout],
            }
        )
    facts = {**machine(), "nms": active_backend()["nms"]}
    report = {
        "schema": 1,
        "machine": facts,
        "rounds": args.rounds,
        "results": results,
        "lines": [
            asdict(
                Line(
                    f"post-process 800x1333, {r['case']}, {r['layout']} maps",
                    "stock predict_by_feat",
                    r["speedup"],
                    GOAL,
                )
            )
            for r in results
        ],
    }
    print(json.dumps(report) if args.json else as_text(report))


def both_ways(
    fraction: float | None, memory_format: torch.memory_format, device: str
) -> dict[str, Any]:
    """Returns the two ways to treat the same maps, as functions without arguments."""
    init_default_scope("mmdet")
    model = load_config("retinanet/r50_fpn_1x.py").model
    head = model.bbox_head
    head.update(train_cfg=model.train_cfg, test_cfg=model.test_cfg)
    head = MODELS.build(head).eval().to(device)
    scores, deltas = random_maps(fraction)
    scores = [s.to(device).contiguous(memory_format=memory_format) for s in scores]
    deltas = [d.to(device).contiguous(memory_format=memory_format) for d in deltas]
    meta = {"img_shape": IMAGE, "scale_factor": (2.0, 2.0)}
    return {
        way: partial(
            head.predict_by_feat,
            scores,
            deltas,
            batch_img_metas=[meta],
            cfg=type(model.test_cfg)(model.test_cfg, post_process=way),
            rescale=True,
        )
        for way in ("stock", "lean")
    }


def random_maps(fraction: float | None) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Returns scores and deltas of each level; normal logits of variance 1, boxes hardly moved.

    Args:
        fraction: of all scores above 0.05; None puts 1500 of each level there.
    """
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(1, 720, h, w, generator=generator) for h, w in LEVELS]
    deltas = [0.2 * torch.randn(1, 36, h, w, generator=generator) for h, w in LEVELS]
    logit = math.log(0.05 / 0.95)
    every = torch.cat([level.flatten() for level in scores])
    for level in scores:
        values = level.flatten() if fraction is None else every
        count = 1500 if fraction is None else round(fraction * len(every))
        level += logit - values.kthvalue(len(values) - count).values
    return scores, deltas


def check_equal(stock: list[Any], lean: list[Any]) -> int:
    """Returns how many detections there are; SystemExit where two differ in a single bit."""
    for name in ("bboxes", "scores", "labels"):
        if not torch.equal(stock[0][name], lean[0][name]):
            raise SystemExit(f"{name} of both ways differ")
    return len(lean[0])


def as_text(report: dict[str, Any]) -> str:
    """Returns the report as the machine's line and a table."""
    head = ("case", "maps", "found", "stock ms", "lean ms", "faster", "stock MiB", "lean MiB")
    rows = [
        (
            r["case"],
            r["layout"],
            str(r["detections"]),
            f"{r['stock']['median_ms']:.1f}",
            f"{r['lean']['median_ms']:.1f}",
            f"x{r['speedup']:.1f}",
            f"{r['peak_extra_mib']['stock']:.0f}",
            f"{r['peak_extra_mib']['lean']:.0f}",
        )
        for r in report["results"]
    ]
    facts = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    return (
        f"{facts}; medians of {report['rounds']} rounds; detections equal; MiB: peak beyond the "
        f"maps\n\n{table(head, rows)}"
    )


if __name__ == "__main__":
    main()
