"""Times the COCO evaluation by faster-coco-eval against pycocotools, on made-up detections.

Usage: python tools/benchmarks/evaluation.py [--images 500] [--detections 100] [--rounds 3] [--json]

The first line is pycocotools as its users call it; the others are ``evaluate_coco``, which also
checks every box and detection. The twelve figures of all three must be equal, to the last bit.
"""

import argparse
import contextlib
import copy
import io
import json
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from timing import Line, machine, paired, table

from fldet.evaluation.coco import evaluate_coco
from fldet.evaluation.figures import COCO_FIGURES

NUM_CLASSES = 80
GOAL = 8.0


def main() -> None:
    """Prints one row for each way to compute the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500, help="images (default 500)")
    parser.add_argument("--detections", type=int, default=100, help="of an image (default 100)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds counted (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    truth, detections = made_up(args.images, args.detections)
    ways = {
        "pycocotools": partial(by_pycocotools, truth, detections),
        "fldet, pycocotools": partial(by_fldet, truth, detections, "pycocotools"),
        "fldet, faster-coco-eval": partial(by_fldet, truth, detections, "faster"),
    }
    figures = {name: way() for name, way in ways.items()}
    for name, found in figures.items():
        if found != figures["pycocotools"]:
            raise SystemExit(f"the figures of {name} differ: {found}, {figures['pycocotools']}")
    timings = paired(ways, rounds=args.rounds, warmup=0)
    report = {
        "schema": 1,
        "machine": machine(),
        "rounds": args.rounds,
        "images": args.images,
        "detections": len(detections),
        "boxes": len(truth["annotations"]),
        "figures": dict(zip(COCO_FIGURES, figures["pycocotools"], strict=True)),
        "results": {name: asdict(timing) for name, timing in timings.items()},
        "lines": [
            asdict(
                Line(
                    f"COCO evaluation, {args.images} images x {args.detections} detections",
                    "pycocotools",
                    timings["fldet, faster-coco-eval"].speedup,
                    GOAL,
                )
            )
        ],
    }
    print(json.dumps(report) if args.json else as_text(report))


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


def by_pycocotools(truth: dict[str, Any], detections: list[dict[str, Any]]) -> list[float]:
    """Returns the twelve figures as every user of pycocotools computes them."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO()
        ground_truth.dataset = copy.deepcopy(truth)
        ground_truth.createIndex()
        found = ground_truth.loadRes([dict(one) for one in detections])
        evaluation = COCOeval(ground_truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def by_fldet(truth: dict[str, Any], detections: list[dict[str, Any]], engine: Any) -> list[float]:
    """Returns the twelve figures of ``evaluate_coco``."""
    figures = evaluate_coco(truth, detections, engine=engine)
    return [figures.summary[name] for name in COCO_FIGURES]


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
    return (
        f"{facts}; medians of {report['rounds']} rounds; {report['images']} images, "
        f"{report['boxes']} boxes, {report['detections']} detections; the twelve figures equal\n\n"
        f"{table(head, rows)}"
    )


if __name__ == "__main__":
    main()
