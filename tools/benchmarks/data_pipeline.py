"""Times fldet's training pipeline against MMDetection's, and the way from there to the network.

Usage: python tools/benchmarks/data_pipeline.py [DATA_ROOT] [--split train2017] [--images 40]
       [--json]

DATA_ROOT holds images in the layout of COCO; without it images of 640 x 480 are made up, JPEGs of
about 115 KB. Both sides run in this process in alternating rounds, with equal random numbers, after
their results have been found equal. "decode and resize" is what no pipeline can do without; "to the
network" adds the preprocessor, in pairs of images, with a batch in channels_last at the end. No
sample is kept: a loader's process hands each batch on, and holding all of them would time how the
system finds fresh memory.
"""

import argparse
import copy
import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.utils import register_all_modules
from mmengine.dataset import Compose, pseudo_collate
from timing import Line, machine, paired, table

from fldet.config.decoder import with_decoder
from fldet.data.coco import CocoDataset
from fldet.registry import MODELS

Infos = list[dict[str, Any]]
LARGE = "made-up JPEGs of 12 megapixels to 1333x800"
GOAL = 2.0  # of the pipeline to 1333x800

RESIZES = {
    "1333x800": {"type": "Resize", "scale": (1333, 800), "keep_ratio": True},
    "640 to 800": {"type": "RandomResize", "scale": [(1333, 640), (1333, 800)], "keep_ratio": True},
}
PREPROCESSOR = {
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "bgr_to_rgb": True,
    "pad_size_divisor": 32,
}


def main() -> None:
    """Prints the rows of each resizing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_root", nargs="?", help="folder in the layout of COCO")
    parser.add_argument("--split", default="train2017", help="of the images (default train2017)")
    parser.add_argument("--images", type=int, default=40, help="how many (default 40)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds counted (default 9)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # as in a loader's process
    register_all_modules()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        if args.data_root:
            infos = read_infos(args.data_root, args.split, args.images)
        else:
            infos = make_up_infos(Path(folder), args.images)
        for name, resize in RESIZES.items():
            for stage, case in cases(infos, resize).items():
                timings = paired(case, rounds=args.rounds)
                rows = {way: asdict(timing) for way, timing in timings.items()}
                results.append({"resize": name, "stage": stage, **rows})
        large = paired(decoders(Path(folder)), rounds=args.rounds)
    report = {
        "schema": 1,
        "machine": {**machine(), "opencv": cv2.__version__},
        "rounds": args.rounds,
        "images": len(infos),
        "made_up": not args.data_root,
        "results": results,
        "lines": [
            asdict(
                Line(
                    f"{r['stage']}, {r['resize']}",
                    "MMDetection's transforms",
                    r["fldet"]["speedup"],
                    GOAL if (r["stage"], r["resize"]) == ("pipeline", "1333x800") else None,
                )
            )
            for r in results
        ]
        + [asdict(Line(f"{LARGE}, decoder = 'fast'", "'exact'", large["fast"].speedup))],
        "large": {decoder: asdict(timing) for decoder, timing in large.items()},
    }
    print(json.dumps(report) if args.json else as_text(report))


def read_infos(root: str, split: str, count: int) -> Infos:
    """Returns what the data set hands to a pipeline, of its first images."""
    dataset = CocoDataset(
        data_root=root,
        ann_file=f"annotations/instances_{split}.json",
        data_prefix={"img": split},
        pipeline=[],
    )
    return [dataset.get_data_info(index) for index in range(min(count, len(dataset)))]


def make_up_infos(folder: Path, count: int, size: tuple[int, int] = (640, 480)) -> Infos:
    """Writes JPEGs of coarse and fine noise, 115 KB at 640 x 480, and returns what to load."""
    rng = np.random.default_rng(0)
    infos: Infos = []
    for index in range(count):
        image = cv2.resize(rng.integers(0, 256, (12, 16, 3)).astype(np.float32), size)
        image += rng.normal(0, 9, image.shape)
        path = folder / f"{index}.jpg"
        cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
        corners, sides = rng.uniform(0, 300, (7, 2)), rng.uniform(10, 180, (7, 2))
        boxes = np.concatenate([corners, corners + sides], axis=1).tolist()
        instances = [{"bbox": box, "bbox_label": 0, "ignore_flag": 0} for box in boxes]
        infos.append(
            {
                "img_path": str(path),
                "img_id": index,
                "height": size[1],
                "width": size[0],
                "instances": instances,
            }
        )
    return infos


def decoders(folder: Path) -> dict[str, Callable[[], Any]]:
    """Returns our pipeline to 1333x800 on large photographs, by the decoder of their JPEGs."""
    (folder / "large").mkdir()
    infos = make_up_infos(folder / "large", 3, (4000, 3000))
    steps = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True},
        RESIZES["1333x800"],
        {"type": "fldet.PackDetInputs"},
    ]
    ways = {decoder: with_decoder(steps, decoder) for decoder in ("exact", "fast")}
    return {decoder: partial(run, infos, Compose(way)) for decoder, way in ways.items()}


def cases(infos: Infos, resize: dict[str, Any]) -> dict[str, dict[str, Callable[[], Any]]]:
    """Returns what is timed, by stage and way, after a check that the results are equal."""
    ways = {name: (pipeline(resize, scope), preprocessor(name)) for name, scope in SCOPES.items()}
    check_equal(*(to_network(infos, *way) for way in ways.values()))
    packed: dict[str, Callable[[], Any]] = {
        name: partial(run, infos, steps) for name, (steps, _) in ways.items()
    }
    if resize["type"] == "Resize":
        packed["decode and resize"] = partial(decode_and_resize, infos, resize["scale"])
    network = {name: partial(to_network, infos, *way) for name, way in ways.items()}
    return {"pipeline": packed, "to the network": network}


SCOPES = {"mmdet": "mmdet.", "fldet": "fldet."}


def pipeline(resize: dict[str, Any], scope: str) -> Compose:
    """Returns load, resize, flip and pack."""
    return Compose(
        [
            {"type": "LoadImageFromFile" if scope == "mmdet." else "fldet.LoadImage"},
            {"type": "LoadAnnotations", "with_bbox": True},
            resize,
            {"type": f"{scope}RandomFlip", "prob": 0.5},
            {"type": f"{scope}PackDetInputs"},
        ]
    )


def preprocessor(scope: str) -> Any:
    """Returns the preprocessor of a scope."""
    return MODELS.build({"type": f"{scope}.DetDataPreprocessor", **PREPROCESSOR})


def run(infos: Infos, steps: Compose) -> None:
    """Packs the images one after the other, the same random numbers at each call."""
    random.seed(0)
    np.random.seed(0)
    for info in infos:
        steps(copy.copy(info))


def to_network(infos: Infos, steps: Compose, preprocess: Any) -> list[torch.Tensor]:
    """Returns the batches of two in channels_last."""
    random.seed(0)
    np.random.seed(0)
    batches = []
    for start in range(0, len(infos), 2):
        samples = [steps(copy.copy(info)) for info in infos[start : start + 2]]
        inputs = preprocess(pseudo_collate(samples), training=True)["inputs"]
        batches.append(inputs.contiguous(memory_format=torch.channels_last))
    return batches


def decode_and_resize(infos: Infos, scale: tuple[int, int]) -> None:
    """Does what OpenCV has to do for a pipeline, and nothing else."""
    for info in infos:
        with open(info["img_path"], "rb") as file:
            image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
        height, width = image.shape[:2]
        factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
        cv2.resize(image, (int(width * factor + 0.5), int(height * factor + 0.5)))


def check_equal(expected: list[torch.Tensor], found: list[torch.Tensor]) -> None:
    """Raises SystemExit where two batches differ in a single bit."""
    if not all(torch.equal(*pair) for pair in zip(expected, found, strict=True)):
        raise SystemExit("the batches of fldet and of mmdet differ")


def as_text(report: dict[str, Any]) -> str:
    """Returns the report as the machine's line and a table, in milliseconds per image."""
    head = ("resize", "stage", "", "ms per image", "least", "most", "faster")
    rows = [
        (
            result["resize"],
            result["stage"],
            way,
            *(f"{row[key] / report['images']:.2f}" for key in ("median_ms", "min_ms", "max_ms")),
            f"x{row['speedup']:.2f}",
        )
        for result in report["results"]
        for way, row in result.items()
        if isinstance(row, dict)
    ]
    facts = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    return (
        f"{facts}; medians of {report['rounds']} rounds of {report['images']} "
        f"{'made-up ' * report['made_up']}images; batches equal\n\n{table(head, rows)}\n"
        f"{LARGE}: {report['large']['fast']['speedup']:.2f} times as fast with decoder = 'fast'"
    )


if __name__ == "__main__":
    main()
