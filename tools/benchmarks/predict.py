"""Times the whole prediction of RetinaNet R50 against MMDetection's, in float32 and bfloat16.

Usage: python tools/benchmarks/predict.py [--threads 1] [--rounds 3] [--shapes 800x1333 400x672]
       [--compile] [--device cpu] [--json]

One random image, from its pixels to the boxes (``test_step``): MMDetection's way in float32, and
fldet's optimized copies of the same model; with ``--device cuda`` also replayed as CUDA graphs.
Where torchvision is installed, its RetinaNet R50 is timed too, in float32 with weights of its own.
All run in this process in alternating rounds. The weights are random, scaled so that activations
keep their size and 0.1 % of the scores of the image are above 0.05; many of these are nearly equal,
so the detections that differ in bfloat16 say little about a trained model: see
``fldet test --precision bf16 --compare``.
"""

import argparse
import json
import logging
import math
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from timing import Line, machine, paired, table
from torch import nn

from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.devices import has_bfloat16
from fldet.models.fast.cuda_graph import graphed
from fldet.models.fast.optimize import as_in_mmdetection, optimized
from fldet.ops import active_backend

# Of image and way: how many times as fast as MMDetection.
GOALS = {
    ("800x1333", "fp32"): 1.35,
    ("800x1333", "bf16"): 5.0,
    ("400x672", "fp32"): 1.15,
    ("400x672", "bf16"): 3.3,
}


def main() -> None:
    """Prints one row for each size of image and way to predict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of an operator (default 1)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds counted (default 3)")
    parser.add_argument("--shapes", nargs="+", default=["800x1333", "400x672"], help="of the image")
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    torch.set_grad_enabled(False)
    torch.set_num_threads(args.threads)
    logging.disable(logging.INFO)
    model = random_model().to(args.device)
    results = []
    for shape in args.shapes:
        height, width = map(int, shape.split("x"))
        batch = random_image(height, width)
        set_fraction(model, batch, 1e-3)
        models = all_ways(model, args.compile, batch)
        ways = {name: partial(one.test_step, batch) for name, one in models.items()}
        found = {name: run()[0].pred_instances.clone() for name, run in ways.items()}
        ways |= torchvisions(batch, args.device)
        timings = paired(ways, rounds=args.rounds, warmup=1)
        results += [
            {
                "shape": shape,
                "way": name,
                **asdict(timings[name]),
                **(agreement(found["mmdet fp32"], found[name]) if name in found else {}),
            }
            for name in ways
        ]
    facts = {**machine(), "nms": active_backend()["nms"]}
    report = {
        "schema": 1,
        "machine": facts,
        "rounds": args.rounds,
        "results": results,
        "lines": [asdict(line) for line in lines(results)],
    }
    print(json.dumps(report) if args.json else as_text(report))


def lines(results: list[dict[str, Any]]) -> list[Line]:
    """Returns the ratios to MMDetection, and for R50-800 on a GPU the milliseconds."""
    found = []
    for r in results:
        way, shape = r["way"], r["shape"]
        if way != "mmdet fp32":
            goal = GOALS.get((shape, way))
            found.append(Line(f"predict R50 {shape}, {way}", "stock test_step", r["speedup"], goal))
        if way.startswith("bf16") and torch.cuda.is_initialized() and shape == "800x1333":
            found.append(Line(f"predict R50 {shape}, {way}", "", r["median_ms"], 8.0, "ms", True))
    return found


def torchvisions(batch: dict[str, Any], device: str) -> dict[str, Any]:
    """Returns torchvision's prediction of the image of a batch, by name; empty without it."""
    if not find_spec("torchvision"):
        return {}
    from torchvision.models.detection import retinanet_resnet50_fpn

    image = batch["inputs"][0].to(device).float() / 255
    small, large = sorted(image.shape[-2:])
    model = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=small, max_size=large
    )
    return {"torchvision fp32": partial(model.eval().to(device), [image])}


def all_ways(model: nn.Module, compile: bool, batch: dict[str, Any]) -> dict[str, Any]:
    """Returns the models to time, by name, MMDetection's way first; graphs are for the batch."""
    device = next(model.parameters()).device
    precisions = ["fp32"] + ["bf16"] * has_bfloat16(device)
    ways: dict[str, Any] = {"mmdet fp32": as_in_mmdetection(model)}
    ways |= {name: optimized(model, precision=name) for name in precisions}
    if compile:
        ways |= {f"{n} compiled": optimized(model, precision=n, compile=True) for n in precisions}
    if device.type == "cuda":
        copies = {name: optimized(model, precision=name) for name in precisions}
        if compile:
            names = {f"{n} compiled": n for n in precisions}
            copies |= {n: optimized(model, precision=p, compile=True) for n, p in names.items()}
        ways |= {f"{name}, CUDA graph": graphed(copy, batch) for name, copy in copies.items()}
    return ways


def random_model() -> Any:
    """Returns R50-FPN whose batch norms and logits have the scale of a trained model's."""
    cfg = load_config("retinanet/r50_fpn_1x.py")
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model: Any = build_model(cfg)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean over what follows
        norm.reset_running_stats()
        nn.Module.train(norm)
    model.backbone(torch.randn(2, 3, 256, 256))
    model.eval()
    head = model.bbox_head
    scores, deltas = head(model.extract_feat(torch.randn(1, 3, 256, 256)))
    head.retina_cls.weight /= (scores[0] - head.retina_cls.bias[:, None, None]).std()
    head.retina_reg.weight *= 0.2 / deltas[0].std()
    return model


def set_fraction(model: Any, batch: dict[str, Any], fraction: float) -> None:
    """Moves the bias of the scores so that a fraction of them is above 0.05 on an image."""
    inputs = model.data_preprocessor(batch, False)["inputs"]
    scores, _ = model.bbox_head(model.extract_feat(inputs))
    values = torch.cat([level.flatten() for level in scores])
    bound = values.kthvalue(round(len(values) * (1 - fraction))).values
    model.bbox_head.retina_cls.bias += math.log(0.05 / 0.95) - bound


def random_image(height: int, width: int) -> dict[str, Any]:
    """Returns a batch of one image of noise, twice as large as the original."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    meta = {
        "img_shape": (height, width),
        "ori_shape": (height // 2, width // 2),
        "scale_factor": (2.0, 2.0),
    }
    return {"inputs": [image], "data_samples": [DetDataSample(metainfo=meta)]}


def agreement(expected: InstanceData, found: InstanceData) -> dict[str, Any]:
    """Returns how many detections are found again, IoU above 0.9 and the same class, and how.

    ``score_difference`` is the largest between detections of the same rank.
    """
    same = expected.labels[:, None] == found.labels
    again = ((bbox_overlaps(expected.bboxes, found.bboxes) > 0.9) & same).any(dim=1)
    count = min(len(expected), len(found))
    difference = (expected.scores[:count] - found.scores[:count]).abs().max().item()
    return {"detections": len(expected), "again": int(again.sum()), "score_difference": difference}


def as_text(report: dict[str, Any]) -> str:
    """Returns the report as the machine's line and a table."""
    head = ("image", "way", "median ms", "from", "to", "faster", "found again", "scores within")
    rows = [
        (
            r["shape"],
            r["way"],
            f"{r['median_ms']:.0f}",
            f"{r['min_ms']:.0f}",
            f"{r['max_ms']:.0f}",
            f"x{r['speedup']:.2f}",
            f"{r['again']} of {r['detections']}" if "again" in r else "-",
            f"{r['score_difference']:.1e}" if "again" in r else "-",
        )
        for r in report["results"]
    ]
    facts = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    return f"{facts}; medians of {report['rounds']} rounds\n\n{table(head, rows)}"


if __name__ == "__main__":
    main()
