"""Times whole training steps of RetinaNet R50 against MMDetection's, and the loss within them.

Usage: python tools/benchmarks/train_step.py [--device cpu] [--threads 1] [--rounds 5]
       [--shape 480x640] [--batch 2] [--boxes 7] [--compile] [--memory] [--json]

A step is ``train_step``: from the pixels of a batch to the changed weights, by SGD. All ways start
from the same weights. Lean is amp, channels_last and fold_batch_norms. Two comparisons, each in
alternating rounds: against MMDetection's classes in float32; and, in the same lean network,
against MMDetection's head, whose loss gets the maps in float32. ``--memory`` takes two steps of
each way by itself: the peak of resident memory above that of the process before, on a GPU the peak
that torch allocated.
"""

import argparse
import copy
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData
from timing import Line, machine, paired, peak_extra_mib, table

from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.config.train_step import set_train_step
from fldet.models.fast.train_step import avoid_faults_of_cpus, set_up_model

STOCK, STOCK_LOSS = "mmdet float32", "mmdet's head, lean network"
OURS, UNFOLDED, COMPILED = "fldet lean", "fldet lean, norms unfolded", "fldet lean, compiled"
SMALL = "fldet lean, checkpoints"
LEAN = {"amp": True, "channels_last": True, "fold_batch_norms": True}
LINES = {
    STOCK: {},
    STOCK_LOSS: LEAN,
    OURS: LEAN,
    UNFOLDED: {**LEAN, "fold_batch_norms": False},
    COMPILED: {**LEAN, "compile": True},
    SMALL: {**LEAN, "gradient_checkpointing": True},
}


def main() -> None:
    """Prints one row for each way in each comparison, and the memory of each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--threads", type=int, default=1, help="threads of an operator (default 1)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds counted (default 5)")
    parser.add_argument("--shape", default="480x640", help="of the images (default 480x640)")
    parser.add_argument("--batch", type=int, default=2, help="images of a step (default 2)")
    parser.add_argument("--boxes", type=int, default=7, help="boxes of an image (default 7)")
    parser.add_argument("--depth", type=int, default=50, help="of the ResNet (default 50)")
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--memory", action="store_true", help="the peak memory of each way too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    logging.disable(logging.INFO)
    device = torch.device(args.device)
    height, width = map(int, args.shape.split("x"))
    batch = random_batch(args.batch, height, width, args.boxes)
    make = partial(make_step, batch=batch, device=device, depth=args.depth)
    memory = {}
    if args.memory:
        torch.set_num_threads(1)  # a process with threads is not to be forked
        memory = {name: peak_of(make, name, device) for name in LINES if name != COMPILED}
    torch.set_num_threads(args.threads)
    ours = [OURS, UNFOLDED, *([COMPILED] if args.compile else [])]
    steps = {name: make(name) for name in (STOCK, STOCK_LOSS, *ours)}
    first_losses = {name: step() for name, step in steps.items()}
    results = []
    for base, others in ((STOCK, ours), (STOCK_LOSS, [OURS])):
        ways = {name: steps[name] for name in (base, *others)}
        for name, timing in paired(ways, rounds=args.rounds, warmup=1).items():
            row = {"against": base, "way": name, **asdict(timing), "first_loss": first_losses[name]}
            results.append(row)
    facts = {**machine(), "device": device_name(device)}
    setting = {name: getattr(args, name) for name in ("shape", "batch", "boxes", "depth", "rounds")}
    report = {"schema": 1, "machine": facts, **setting, "results": results, "peak_mib": memory}
    report["lines"] = [asdict(line) for line in lines(results, args.shape)]
    print(json.dumps(report) if args.json else as_text(report))


def make_step(
    name: str, *, batch: dict[str, Any], device: torch.device, depth: int
) -> Callable[[], float]:
    """Returns a function that takes one training step and returns its loss."""
    cfg = load_config("retinanet/r50_fpn_1x.py")
    cfg.model.backbone.update(depth=depth, init_cfg=None)
    if depth < 50:
        cfg.model.neck.in_channels = [64, 128, 256, 512]
    if name in (STOCK, STOCK_LOSS):
        use_mmdets_head(cfg)
    cfg.update(copy.deepcopy(LINES[name]))
    set_train_step(cfg, device)
    torch.manual_seed(0)
    model: Any = build_model(cfg)
    set_up_model(model, cfg)
    model.to(device).train()
    avoid_faults_of_cpus(model, cfg)
    if name == STOCK_LOSS:
        model.bbox_head.register_forward_hook(
            lambda _module, _inputs, maps: tuple([m.float() for m in part] for part in maps)
        )
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)

    def step() -> float:
        own = {"inputs": batch["inputs"], "data_samples": copy.deepcopy(batch["data_samples"])}
        losses = model.train_step(own, wrapper)
        return losses["loss"].item()  # waits for the forward pass; the rest is waited for below

    def whole_step() -> float:
        loss = step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return loss

    return whole_step


def lines(results: list[dict[str, Any]], shape: str) -> list[Line]:
    """Returns the rows of the table over all benchmarks."""
    goals = {STOCK: 3.4, STOCK_LOSS: 1.3}
    return [
        Line(f"training step {shape}, {r['way']}", r["against"], r["speedup"], goals[r["against"]])
        for r in results
        if r["way"] == OURS
    ]


def use_mmdets_head(cfg: Config) -> None:
    """Puts MMDetection's head, anchors, assigner and focal loss in the place of ours."""
    head = cfg.model.bbox_head
    for key in ("prior_prob", "normalizer"):
        head.pop(key)
    head.type = "RetinaHead"
    head.anchor_generator = {
        "type": "AnchorGenerator",
        "octave_base_scale": 4,
        "scales_per_octave": 3,
        "ratios": [0.5, 1.0, 2.0],
        "strides": [8, 16, 32, 64, 128],
    }
    head.loss_cls.type = "FocalLoss"
    cfg.model.train_cfg.assigner.type = "MaxIoUAssigner"


def random_batch(num_images: int, height: int, width: int, num_boxes: int) -> dict[str, Any]:
    """Returns images of noise with boxes of 16 pixels to half of the image."""
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for _ in range(num_images):
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
        extent = torch.tensor([width, height])
        side = 16 + torch.rand(num_boxes, 2, generator=generator) * (extent / 2 - 16)
        corner = torch.rand(num_boxes, 2, generator=generator) * (extent - side)
        sample = DetDataSample(metainfo={"img_shape": (height, width)})
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + side], dim=1),
            labels=torch.randint(0, 80, (num_boxes,), generator=generator),
        )
        inputs.append(image)
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


def peak_of(make: Callable[[str], Callable[[], float]], name: str, device: torch.device) -> float:
    """Returns the peak memory in MiB of building a model and taking two steps."""

    def two_steps() -> None:
        step = make(name)
        step()
        step()

    if device.type != "cuda":
        return peak_extra_mib(two_steps)
    torch.cuda.reset_peak_memory_stats(device)
    two_steps()
    return torch.cuda.max_memory_allocated(device) / 2**20


def device_name(device: torch.device) -> str:
    """Returns the name of a GPU, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def as_text(report: dict[str, Any]) -> str:
    """Returns the report as the machine's line and tables."""
    head = ("against", "way", "median ms", "from", "to", "faster", "first loss")
    rows = [
        (
            r["against"],
            r["way"],
            f"{r['median_ms']:.0f}",
            f"{r['min_ms']:.0f}",
            f"{r['max_ms']:.0f}",
            f"x{r['speedup']:.2f}",
            f"{r['first_loss']:.5f}",
        )
        for r in report["results"]
    ]
    facts = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    text = (
        f"{facts}; medians of {report['rounds']} rounds; R{report['depth']}-FPN, {report['batch']} "
        f"images of {report['shape']}, {report['boxes']} boxes each\n\n{table(head, rows)}"
    )
    if report["peak_mib"]:
        memory = [(name, f"{value:.0f}") for name, value in report["peak_mib"].items()]
        text += f"\n\n{table(('way', 'peak MiB of two steps'), memory)}"
    return text


if __name__ == "__main__":
    main()
