"""What slices are worth on large pictures: AP against the whole picture, time against SAHI.

Usage: python tools/large_pictures.py CHECKPOINT ANNOTATIONS.json ... --images FOLDER
       [--slice 640] [--overlap 0.2] [--columns 5] [--rows 6] [--rounds 5] [--sahi] [--json]

Mosaics are made in memory of the pictures of COCO files, all in one folder and of the size of the
first; their boxes are moved. The checkpoint should not have been trained on them. A mosaic has
hundreds of objects, so COCO's limit of 100 detections of a class is 1000 here, for all ways alike.

``--sahi`` times a part of a mosaic with SAHI, one slice at a time: with its own model for the
checkpoints of MMDetection, around the detector as it is, and around the optimized copy that slices
go through. Needs the packages sahi and shapely.
"""

import argparse
import contextlib
import copy
import io
import json
import random
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fldet.checkpoints.files import read_checkpoint
from fldet.inference.detector import Detector

MOST = 1000  # detections of a class in a mosaic


def main() -> None:
    """Makes mosaics, prints a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("annotations", type=Path, nargs="+")
    parser.add_argument("--images", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--slice", type=int, default=640)
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--columns", type=int, default=5, help="pictures beside each other")
    parser.add_argument("--rows", type=int, default=6, help="pictures above each other")
    parser.add_argument("--mosaics", type=int, default=None, help="at most so many, 0 only times")
    parser.add_argument("--rounds", type=int, default=5, help="of the timing, of a mosaic")
    parser.add_argument("--timed", type=int, default=2176, help="side of the part that is timed")
    parser.add_argument("--sahi", action="store_true", help="time SAHI beside the slices")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    detector = Detector.load(args.checkpoint, device=args.device)
    detector.model.bbox_head.test_cfg.max_per_img = MOST  # type: ignore[union-attr]
    pictures, truth = mosaics(args.annotations, args.images, args.columns, args.rows)
    report_on = pictures if args.mosaics is None else pictures[: args.mosaics]
    cut: dict[str, Any] = {"size": args.slice, "overlap": args.overlap}
    ways = {
        "whole picture": detector,
        "slices": detector.with_views(**cut),
        "slices and whole": detector.with_views(**cut, whole=True),
        "slices, mirrored too": detector.with_views(**cut, flip=True),
    }
    size = f"{pictures[0].shape[1]} x {pictures[0].shape[0]}"
    report: dict[str, Any] = {"schema": 1, "mosaics": len(report_on), "size": size, "ap": {}}
    for name, way in ways.items() if args.mosaics != 0 else ():
        report["ap"][name] = accuracy(way, report_on, truth)
        print(f"{name}: {report['ap'][name]}", flush=True)
    if args.sahi:
        part = np.ascontiguousarray(pictures[0][: args.timed, : args.timed])
        report["time"] = times(ways["slices"], detector, part, args)
        print(report["time"], flush=True)
    if args.json:
        print(json.dumps(report))


def mosaics(files: list[Path], folder: Path, columns: int, rows: int) -> tuple[list[Any], Any]:
    """Returns pictures (H, W, 3) and the content of a COCO file with the boxes in them."""
    images, boxes = [], []
    for file in files:
        content = json.loads(file.read_text())
        images += [(file, one) for one in content["images"]]
        boxes += [(file, one) for one in content["annotations"]]
    width, height = images[0][1]["width"], images[0][1]["height"]
    images = [one for one in images if (one[1]["width"], one[1]["height"]) == (width, height)]
    random.Random(0).shuffle(images)
    pictures, annotations = [], []
    for number in range(len(images) // (columns * rows)):
        canvas = np.zeros((rows * height, columns * width, 3), np.uint8)
        for place in range(columns * rows):
            file, image = images[number * columns * rows + place]
            x, y = place % columns * width, place // columns * height
            canvas[y : y + height, x : x + width] = cv2.imread(str(folder / image["file_name"]))
            for source, one in boxes:
                if source == file and one["image_id"] == image["id"]:
                    left, top, *sides = one["bbox"]
                    moved = {"id": len(annotations) + 1, "image_id": number + 1, "iscrowd": 0}
                    box = [left + x, top + y, *sides]
                    annotations.append({**one, **moved, "bbox": box, "area": sides[0] * sides[1]})
        pictures.append(canvas)
    listed = [{"id": number + 1} for number in range(len(pictures))]
    return pictures, {
        "images": listed,
        "annotations": annotations,
        "categories": content["categories"],
    }


def accuracy(way: Any, pictures: list[Any], truth: Any) -> dict[str, float]:
    """Returns AP, AP50 and the AP of small, medium and large objects, in points."""
    ids = {one["name"]: one["id"] for one in truth["categories"]}
    found = []
    for number, picture in enumerate(pictures, 1):
        (result,) = way.predict(picture, score_thr=0.05)
        for box, score, name in zip(result.boxes, result.scores, result.names, strict=True):
            x1, y1, x2, y2 = map(float, box)
            place = {"image_id": number, "category_id": ids[name]}
            found.append({**place, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), "bbox")
        judge.params.imgIds = [*range(1, len(pictures) + 1)]
        judge.params.maxDets = [1, 10, MOST]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][..., 2]  # IoU, recall, class, size
    parts = {"AP": precision[..., 0], "AP50": precision[0, ..., 0]}
    parts |= {f"AP {size}": precision[..., 1 + row] for row, size in enumerate("sml")}
    means = {name: part[part > -1] for name, part in parts.items()}
    figures = {name: round(100 * float(p.mean()), 1) for name, p in means.items() if p.size}
    return {**figures, "detections": len(found)}


def times(way: Any, detector: Detector, picture: Any, args: Any) -> dict[str, Any]:
    """Returns the median seconds of a picture with slices and with SAHI, and their ratios."""
    from sahi.predict import get_sliced_prediction

    rgb = np.ascontiguousarray(picture[..., ::-1])  # which SAHI takes

    def with_sahi(model: Any) -> int:
        done = get_sliced_prediction(
            *(rgb, model),
            **{f"slice_{side}": args.slice for side in ("height", "width")},
            **{f"overlap_{side}_ratio": args.overlap for side in ("height", "width")},
            perform_standard_pred=False,
            verbose=0,
        )
        return len(done.object_prediction_list)

    runs = {
        "slices": lambda: len(way.predict(picture, score_thr=0.05)[0]),
        "SAHI, its model for MMDetection": partial(with_sahi, sahis_own_model(args)),
        "SAHI, Detector": partial(with_sahi, sahi_model(detector)),
        "SAHI, optimized copy": partial(with_sahi, sahi_model(way.detector)),
    }
    # of a CPU that others use too, the seconds of this process are steadier than those of the wall
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    boxes = {name: run() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(args.rounds):
        for name in sorted(runs, reverse=bool(number % 2)):
            started = clock()
            runs[name]()
            seconds[name].append(clock() - started)
    pairs = {name: zip(own, seconds["slices"], strict=True) for name, own in seconds.items()}
    return {
        name: {
            "s": round(statistics.median(seconds[name]), 2),
            "boxes": boxes[name],
            "slices are faster": round(statistics.median(a / b for a, b in pairs[name]), 2),
        }
        for name in runs
    }


def sahis_own_model(args: Any) -> Any:
    """Returns the model that SAHI makes of a checkpoint of MMDetection."""
    from sahi import AutoDetectionModel

    # MMDetection wants the whole config, which is run, as by MMDetection: trust the checkpoint.
    cfg = Config.fromstring(read_checkpoint(args.checkpoint)["meta"]["cfg"], ".py")
    cfg.model.test_cfg.max_per_img = MOST
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.py")
        cfg.dump(config)
        return AutoDetectionModel.from_pretrained(
            "mmdet",
            model_path=str(args.checkpoint),
            config_path=str(config),
            confidence_threshold=0.05,
            device=args.device,
        )


def sahi_model(detector: Detector) -> Any:
    """Returns a model of SAHI around a detector."""
    from sahi.models.base import DetectionModel
    from sahi.prediction import ObjectPrediction

    class Around(DetectionModel):
        """Hands a slice to the detector, its boxes to SAHI."""

        def check_dependencies(self, *args: Any, **kwargs: Any) -> None:
            """Does nothing: they are there."""

        def load_model(self) -> None:
            """Takes the detector."""
            self.set_model(detector)

        def set_model(self, model: Any, **_: Any) -> None:
            """Takes a detector."""
            self.model = model
            self.category_mapping = {str(i): name for i, name in enumerate(detector.classes)}

        def perform_inference(self, image: Any, *_: Any, **__: Any) -> None:
            """Finds the objects of one slice, in RGB."""
            (self._original_predictions,) = detector.predict(
                np.ascontiguousarray(image[..., ::-1]), score_thr=0.05
            )

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list: Any = None, full_shape_list: Any = None
        ) -> None:
            found: Any = self._original_predictions
            self._object_prediction_list_per_image = [
                [
                    ObjectPrediction(
                        bbox=box.tolist(),
                        score=float(score),
                        category_id=int(label),
                        category_name=name,
                        shift_amount=(shift_amount_list or [[0, 0]])[0],
                        full_shape=(full_shape_list or [None])[0],
                    )
                    for box, score, label, name in zip(
                        found.boxes, found.scores, found.labels, found.names, strict=True
                    )
                ]
            ]

    return Around(confidence_threshold=0.05, device="cpu")


if __name__ == "__main__":
    main()
