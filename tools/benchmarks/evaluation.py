"""Times the COCO evaluation against pycocotools and faster-coco-eval, on made-up detections.

Usage: python tools/benchmarks/evaluation.py [--images 5000] [--detections 100] [--rounds 3]

pycocotools and faster-coco-eval (left out where it is not installed) are called as their users
call them. fldet's figures are computed from the arrays that ``fldet test`` has, and from dicts of
a results file; it also checks every box and detection. Figures must be equal to 1e-12.

The second table is the whole step of ``fldet test`` after the network: processor time of its parts.
"""

import argparse
import contextlib
import copy
import gc
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from timing import Line, machine, paired, table

from fldet.evaluation.coco import evaluate_coco
from fldet.evaluation.detections import DetectionTable, save_detections
from fldet.evaluation.figures import COCO_FIGURES
from fldet.evaluation.ground_truth import read_ground_truth
from fldet.evaluation.metrics import CocoMetric

NUM_CLASSES = 80
GOALS = {"pycocotools": 50.0, "faster-coco-eval": 8.0}
ARRAYS = "fldet, of arrays"  # as ``fldet test`` has them


def main() -> None:
    """Prints one row for each way to compute the figures, and one for each part of a test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000, help="images (default 5000)")
    parser.add_argument("--detections", type=int, default=100, help="of an image (default 100)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds counted (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    content, detections = made_up(args.images, args.detections)
    truth, arrays = read_ground_truth(content), DetectionTable.of(detections)
    ways: dict[str, Callable[[], Any]] = {
        "pycocotools": partial(by_peer, COCO, COCOeval, content, detections),
        **faster_coco_eval(content, detections),
        "fldet, of dicts": partial(by_fldet, content, detections),
        ARRAYS: partial(by_fldet, truth, arrays),
    }
    figures: dict[str, list[float]] = {}
    for name, way in ways.items():
        ways[name] = partial(keep, figures, name, way)
    timings = paired(ways, rounds=args.rounds, warmup=0)
    for name, found in figures.items():
        if not np.allclose(found, figures["pycocotools"], rtol=0, atol=1e-12):
            raise SystemExit(f"the figures of {name} differ: {found}, {figures['pycocotools']}")
    step = parts_of_a_test(content, arrays, args.rounds)
    what = f"COCO evaluation, {args.images} images x {args.detections} detections"
    report = {
        "schema": 1,
        "machine": machine(),
        "rounds": args.rounds,
        "images": args.images,
        "detections": len(detections),
        "boxes": len(content["annotations"]),
        "figures": dict(zip(COCO_FIGURES, figures["pycocotools"], strict=True)),
        "results": {name: asdict(timing) for name, timing in timings.items()},
        "processor_seconds": step,
        "lines": [
            asdict(Line(what, name, timings[name].median_ms / timings[ARRAYS].median_ms, goal))
            for name, goal in GOALS.items()
            if name in timings
        ],
    }
    print(json.dumps(report) if args.json else as_text(report))


def keep(figures: dict[str, list[float]], name: str, way: Callable[[], list[float]]) -> None:
    """Puts what a way computes among the figures."""
    figures[name] = way()


def made_up(num_images: int, per_image: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns annotations with 7 boxes per image on average, and detections of mixed quality."""
    rng = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image_id in range(1, num_images + 1):
        count = max(1, rng.poisson(7))
        boxes_xywh = np.concatenate(
            [rng.uniform(0, 300, (count, 2)), np.exp(rng.uniform(2.3, 5.6, (count, 2)))], axis=1
        )
        labels = rng.integers(1, NUM_CLASSES + 1, count)
        for box, label in zip(boxes_xywh.tolist(), labels.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(rng.random() < 0.01),
                }
            )
        detections += detected(rng, image_id, boxes_xywh, labels, per_image)
    content = {
        "images": [{"id": i, "width": 640, "height": 480} for i in range(1, num_images + 1)],
        "annotations": annotations,
        "categories": [{"id": k, "name": str(k)} for k in range(1, NUM_CLASSES + 1)],
    }
    return content, detections


def detected(
    rng: np.random.Generator, image_id: int, boxes_xywh: Any, labels: Any, count: int
) -> list[dict[str, Any]]:
    """Returns two good detections for each box of an image and random ones for the rest."""
    source = rng.integers(0, len(labels), count)
    good = np.arange(count) < 2 * len(labels)
    source[good] = np.arange(good.sum()) % len(labels)
    found = boxes_xywh[source]
    found[:, :2] += rng.normal(0, np.where(good, 0.08, 1.5)[:, None], (count, 2)) * found[:, 2:]
    found[:, 2:] *= np.exp(rng.normal(0, 0.15, (count, 2)))
    classes = np.where(good, labels[source], rng.integers(1, NUM_CLASSES + 1, count))
    scores = np.where(good, rng.beta(4, 2, count), rng.beta(1, 6, count))
    return [
        {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
        for label, box, score in zip(classes.tolist(), found.tolist(), scores.tolist(), strict=True)
    ]


def faster_coco_eval(content: dict[str, Any], detections: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the way of faster-coco-eval by its name, nothing where it is not installed."""
    if find_spec("faster_coco_eval") is None:
        return {}
    import faster_coco_eval as faster

    judge = partial(faster.COCOeval_faster, print_function=lambda *_: None)
    return {"faster-coco-eval": partial(by_peer, faster.COCO, judge, content, detections)}


def by_peer(
    data_class: Any, judge: Any, content: dict[str, Any], detections: list[dict[str, Any]]
) -> list[float]:
    """Returns the twelve figures as every user of pycocotools computes them."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = data_class()
        ground_truth.dataset = copy.deepcopy(content)
        ground_truth.createIndex()
        found = ground_truth.loadRes([dict(one) for one in detections])
        evaluation = judge(ground_truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def by_fldet(truth: Any, detections: Any) -> list[float]:
    """Returns the twelve figures of ``evaluate_coco``."""
    figures = evaluate_coco(truth, detections)
    if figures.engine != "hotcoco":
        raise SystemExit("hotcoco cannot be used")
    return [figures.summary[name] for name in COCO_FIGURES]


# --- the step of a test --------------------------------------------------------------------------


def parts_of_a_test(
    content: dict[str, Any], arrays: DetectionTable, rounds: int
) -> dict[str, float]:
    """Returns the seconds of a processor of each part, medians of the rounds."""
    samples = predictions(content, arrays)
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            annotations, results = Path(folder, "truth.json"), Path(folder, "found.json")
            annotations.write_text(json.dumps(content))
            metric = CocoMetric(str(annotations))
            metric.dataset_meta = {"classes": [one["name"] for one in content["categories"]]}
            for name, part in {
                "read the annotations": lambda metric=metric: metric.truth,
                "keep the predictions": lambda metric=metric: [
                    metric.process({}, samples[start : start + 8])
                    for start in range(0, len(samples), 8)
                ],
                "write the results file": partial(save_detections, results, arrays),
                "compute the figures": lambda metric=metric: metric.evaluate(len(samples)),
            }.items():
                gc.collect()
                start = time.process_time()
                part()
                times.setdefault(name, []).append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def predictions(content: dict[str, Any], arrays: DetectionTable) -> list[dict[str, Any]]:
    """Returns detections as a detector gives them, image by image."""
    ids = [one["id"] for one in content["categories"]]
    label_of = np.array([ids.index(one) for one in arrays.categories])
    boxes = torch.tensor(arrays.boxes_xywh, dtype=torch.float32)
    boxes[:, 2:] += boxes[:, :2]
    bounds = np.searchsorted(arrays.image, np.arange(len(arrays.images) + 1)).tolist()
    return [
        {
            "img_id": image,
            "pred_instances": {
                "bboxes": boxes[start:end],
                "scores": torch.tensor(arrays.scores[start:end], dtype=torch.float32),
                "labels": torch.tensor(label_of[arrays.category[start:end]]),
            },
        }
        for image, start, end in zip(arrays.images, bounds, bounds[1:], strict=False)
    ]


def as_text(report: dict[str, Any]) -> str:
    """Returns the report as the machine's line and a table."""
    head = ("", "seconds", "least", "most", "faster")
    rows = [
        (
            name,
            *(f"{r[key] / 1000:.2f}" for key in ("median_ms", "min_ms", "max_ms")),
            f"x{r['speedup']:.2f}",
        )
        for name, r in report["results"].items()
    ]
    facts = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    seconds = report["processor_seconds"]
    parts = [
        (name, f"{value:.2f}", f"{value / sum(seconds.values()):.0%}")
        for name, value in seconds.items()
    ]
    return (
        f"{facts}; medians of {report['rounds']} rounds; {report['images']} images, "
        f"{report['boxes']} boxes, {report['detections']} detections; the twelve figures equal\n\n"
        f"{table(head, rows)}\n\n"
        f"{table(('part of a test, after the network', 'processor seconds', 'share'), parts)}"
    )


if __name__ == "__main__":
    main()
