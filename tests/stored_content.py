"""Files of fldet's as it writes them, and the same with another value in one place."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fldet.analysis.errors.collect import TestedData
from fldet.analysis.errors.compute import find_errors
from fldet.analysis.errors.result import save
from fldet.analysis.loss_cdf.curves import (
    Procedure,
    loss_cdf_of,
    read_sample,
)
from fldet.anchors.cover import AnchorScheme, AssignRule, BoxSet
from fldet.benchmark.results import SpeedResult
from fldet.engine.results import PrecisionCheck, TestResult
from fldet.errors import FldetError
from fldet.evaluation.figures import CocoFigures, VocFigures
from fldet.evaluation.ground_truth import GroundTruth
from fldet.results import to_json


def places(content, path=()):
    """Yields the path of every value; of a list only that of the first item."""
    yield path
    if isinstance(content, dict):
        for key, value in content.items():
            yield from places(value, (*path, key))
    elif isinstance(content, list) and content:
        yield from places(content[0], (*path, 0))


def at(content, place):
    """Returns the value at a path of ``places``."""
    for key in place:
        content = content[key]
    return content


def replaced(content, place, value):
    """Returns a copy with another value at one place, or without it where that is ``KeyError``."""
    if not place:
        return None if value is KeyError else value
    copy = json.loads(json.dumps(content))
    *way, last = place
    if value is KeyError:
        del at(copy, way)[last]
    else:
        at(copy, way)[last] = value
    return copy


def refusal(what, read, path):
    """Returns what an error of ours says of a file, nothing where it is read."""
    try:
        read(path)
    except FldetError as error:
        return str(error)
    except Exception as error:
        pytest.fail(f"{what}: {error!r}")
    return ""


def errors(folder):
    entry = {"image_id": 1, "category_id": 1, "bbox": [2.0, 3.0, 10.0, 9.0]}
    objects = [{**entry, "category_id": k, "area": 90.0, "iscrowd": 0} for k in (1, 2)]
    objects[1]["bbox"] = [50.0, 50.0, 9.0, 10.0]
    truth = GroundTruth((1, 2), {1: "cat", 2: "dog"}, tuple(objects))
    found = [{**entry, "category_id": k, "score": score} for k, score in ((1, 0.9), (2, 0.8))]
    found.append({**entry, "category_id": 2, "bbox": objects[1]["bbox"], "score": 0.5})
    files = folder, Path("a.json"), Path("b.json")
    tested = TestedData(truth, found, {1: "a.png"}, *files)
    analysis = find_errors(tested, num_worst=1, num_random=1)
    return json.loads(save(analysis, folder / "errors.json").read_text())


PROCEDURE = Procedure("r50", "best.pth", "val", "anchor-class", 12, 3, 50, 5000)

LOGITS = np.linspace(-3, 3, 20, dtype=np.float32)

SAMPLE = {"positives": LOGITS, "negatives": LOGITS, "procedure": json.dumps(vars(PROCEDURE))}

COCO = CocoFigures({"AP": 0.3, "AP_S": math.nan}, {"cat": 0.3}, 2, 5, "faster")

VOC = VocFigures({"mAP": 0.3}, {"cat": 0.3}, 2, 5, "own", {"cat": 0.2})

CHECK = PrecisionCheck(0.3, 0.0, 0.1, True)

TESTED = TestResult(
    *(COCO, Path("w/iter_4.pth"), Path("w"), Path("w/detections.json"), (Path("a.png"),), 3.5),
    check=CHECK,
    others={"voc": VOC},
    image_ids=(1, "b"),
)


def outcome(_folder):
    return json.loads(to_json("test", TESTED))


def speed(_folder):
    return json.loads(to_json("benchmark", SpeedResult(50.0, 60.0, 9, (8, 8), "cpu", "float32", 2)))


SCHEME = AnchorScheme((32.0, 64.0), (8, 16), 3, (0.5, 1.0, 2.0))

BOXES = BoxSet(
    np.array([[0, 0, 30, 30], [5, 5, 70, 60]], np.float32),
    np.array([0, 1]),
    np.array([[96, 64], [96, 96]]),
    np.array([900.0, 3000.0], np.float32),
    *(SCHEME, AssignRule()),
    about={"config": "c", "split": "train", "images": "2 images", "resizing": "none"},
)


def read_curves_of_sample(path):
    return str(loss_cdf_of(read_sample(path)))
