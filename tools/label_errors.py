"""Plants errors into annotations and counts how many of them are ranked first, by us and others.

Usage: python tools/label_errors.py CONFIG... [--folds 2] [--share 0.05] [--seed 0]

CONFIG names training data and a detector, as ``fldet init`` writes it. A share of the boxes is
dropped, moved, relabelled or doubled, an equal number of each; the detector is trained on the rest
of these annotations for each fold, and finds objects in the fold. What is printed is the share of
planted errors among as many boxes as there are planted errors, and among as many pictures as are
that share of all. A second finding of one error counts neither as right nor as wrong. Errors that
the data had before are counted as wrong, by whomever they are found; Shapes has none.

cleanlab's scores are those of ObjectLab (Tkachenko, Thyagarajan and Mueller, 2023), of the scores
of the detector, and of these as probabilities, since its thresholds are made for such. cleanlab
must be installed: pip install cleanlab. hotcoco's candidates are wrong classes and missing boxes. A
folder that holds the detections already is not trained again.
"""

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

import fldet
from fldet.analysis.labels.compute import calibrated, find_label_errors
from fldet.config.prepare import dataset_of
from fldet.config.text import config_text
from fldet.data.folds.files import (
    DETECTIONS,
    Folds,
    list_of_fold,
    work_dir_of_fold,
    write_folds,
)
from fldet.data.image_lists import ONLY, WITHOUT, list_text
from fldet.evaluation.detected import Detected, read_detected
from fldet.evaluation.detections import load_detections
from fldet.evaluation.matching import Floats, detection_table, match, object_table, overlaps
from fldet.evaluation.out_of_fold import write_out_of_fold
from fldet.files import write_atomically
from fldet.pictures.boxes import xyxy
from fldet.text import table

PLANTED = "planted.json"  # in the folder of folds: what is wrong
Content = dict[str, Any]
KINDS = ("missing", "moved", "class", "doubled")  # in the words of ``fldet analyze labels``


# --- planting ------------------------------------------------------------------------------------


def plant(content: Content, share: float, seed: int) -> tuple[Content, list[dict[str, Any]]]:
    """Returns a copy of annotations with errors, and the errors.

    Each error has ``kind``, ``image_id``, ``bbox`` of the true box and ``ids``, the annotations
    that it concerns; crowd regions are left as they are.
    """
    rng = np.random.default_rng(seed)
    objects = [one for one in content["annotations"] if not one.get("iscrowd")]
    number = round(share * len(objects))
    chosen = rng.permutation(len(objects))[:number].tolist()
    kind_of = {objects[i]["id"]: KINDS[place % len(KINDS)] for place, i in enumerate(chosen)}
    next_id = 1 + max(one["id"] for one in content["annotations"])
    sizes = {one["id"]: (one["width"], one["height"]) for one in content["images"]}
    classes = [one["id"] for one in content["categories"]]
    left, errors = [], []
    for one in copy.deepcopy(content["annotations"]):
        kind, box = kind_of.get(one["id"]), one["bbox"]
        ids = [] if kind == "missing" else [one["id"]]
        if kind == "moved":
            one["bbox"] = _jittered(box, sizes[one["image_id"]], (0.3, 0.6), rng)
        elif kind == "class":
            one["category_id"] = int(rng.choice([k for k in classes if k != one["category_id"]]))
        elif kind == "doubled":
            twin = _jittered(box, sizes[one["image_id"]], (0.7, 0.9), rng)
            left.append({**one, "id": next_id, "bbox": twin, "area": twin[2] * twin[3]})
            ids.append(next_id)
            next_id += 1
        if kind != "missing":
            left.append({**one, "area": one["bbox"][2] * one["bbox"][3], "segmentation": []})
        if kind:
            errors.append({"kind": kind, "image_id": one["image_id"], "bbox": box, "ids": ids})
    return {**content, "annotations": left}, errors


def _jittered(
    box: list[float], size: tuple[int, int], iou: tuple[float, float], rng: np.random.Generator
) -> list[float]:
    """Returns another box in a picture whose IoU with ``box`` (xywh) lies between two values."""
    while True:
        spread = rng.uniform(0.05, 0.6)
        x, y, w, h = np.array(box) + rng.normal(0, spread, 4) * np.array([*box[2:], *box[2:]])
        x1, y1 = max(0.0, x), max(0.0, y)
        x2, y2 = min(float(size[0]), x + w), min(float(size[1]), y + h)
        moved = [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)]
        if min(moved[2:]) >= 2 and iou[0] <= _iou([moved], [box])[0, 0] <= iou[1]:
            return moved


def _iou(boxes_xywh: Sequence[Any], others_xywh: Sequence[Any]) -> Floats:
    arrays = [np.array(boxes, float).reshape(-1, 4) for boxes in (boxes_xywh, others_xywh)]
    return overlaps(arrays[0], arrays[1], np.zeros(len(arrays[1]), bool))


# --- detections of each fold ---------------------------------------------------------------------


def detect_by_folds(config: Path, folds: int, share: float, seed: int, folder: Path) -> None:
    """Plants errors and writes what models find that were not trained on the image.

    ``planted.json`` has the errors, the other files are those of ``fldet cross-validate``.
    """
    cfg = fldet.load_config(config)
    kind, dataset = dataset_of(cfg, "train")
    content, errors = plant(dict(kind.read_truth(dataset)), share, seed)
    order = np.random.default_rng(seed).permutation(len(content["images"])).tolist()
    made = Folds(folds, seed, False, "", len(order), len(order))
    for place, i in enumerate(order):
        content["images"][i]["fold"] = 1 + place % folds
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for fold in made.numbers:
        names = [one["file_name"] for one in content["images"] if one["fold"] == fold]
        write_atomically(list_of_fold(folder, fold), list_text(names))
    write_folds(made, folder)
    write_atomically(folder / PLANTED, json.dumps(errors))
    images = Path(kind.image_folder(dataset) or ".").resolve()
    data = {
        "_delete_": True,
        "type": "fldet.CocoDataset",
        "ann_file": str(write_atomically(folder / "trained_on.json", json.dumps(content))),
        "data_prefix": {"img": str(images)},
    }
    found = [one for fold in made.numbers for one in _detections(cfg, data, folder, fold)]
    for one in content["images"]:
        one["file_name"] = str(images / one["file_name"])
    write_out_of_fold(folder, content, found)


def _detections(
    cfg: Config, data: Mapping[str, Any], folder: Path, fold: int
) -> list[dict[str, Any]]:
    """Trains on all folds but one and returns what is found in that one."""
    changes = {}
    for loader, listed in (("train_dataloader", WITHOUT), ("val_dataloader", ONLY)):
        part = {**data, listed: str(list_of_fold(folder, fold))}
        part["pipeline"] = cfg[loader].dataset.pipeline
        changes[loader] = {"dataset": part}
    text = f'"""Fold {fold}."""\n_base_ = {str(Path(cfg.filename).resolve())!r}\n'
    own = folder / f"config_{fold}.py"
    write_atomically(own, text + config_text(changes))
    cfg = fldet.load_config(own)
    cfg.train_cfg.val_interval = cfg.default_hooks.checkpoint.interval = cfg.train_cfg.max_iters
    work_dir = work_dir_of_fold(folder, fold)
    fldet.train(cfg, work_dir=work_dir, resume=True)
    out = work_dir / DETECTIONS
    fldet.test(cfg, work_dir, work_dir=work_dir / "test", out=out)
    return load_detections(out)


# --- scoring -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranked:
    """What somebody suspects, the likeliest first, and all images in the order of theirs."""

    findings: list[tuple[Any, list[Any], list[float]]]  # image id, annotation ids, box xywh or []
    images: list[Any]  # ids


def ours(detected: Detected) -> Ranked:
    """Returns the ranking of ``fldet analyze labels``."""
    found = find_label_errors(detected)
    findings = [
        (one.image_id, list(one.annotation_ids), list(one.other_xywh or ()))
        for one in found.findings
    ]
    return Ranked(findings, [one.image_id for one in found.images])


def as_probabilities(detected: Detected) -> Detected:
    """Returns the detections with the share of right ones of their score in its place."""
    truth, categories = detected.truth, tuple(detected.truth.categories)
    found = detection_table(detected.detections, truth.images, categories)
    matches = match(found, object_table(truth.annotations, truth.images, categories))
    p = calibrated(found.score, matches.correct)
    entries = [
        {
            "image_id": truth.images[found.image[i]],
            "category_id": categories[found.label[i]],
            "bbox": found.boxes_xywh[i].tolist(),
            "score": float(p[i]),
        }
        for i in range(len(p))
    ]
    return replace(detected, detections=entries)


def cleanlabs(detected: Detected) -> Ranked:
    """Returns the ranking by ObjectLab's scores: of boxes, of detections, and of images."""
    from cleanlab.object_detection import rank

    by_image = {key: ([], []) for key in detected.truth.images}
    for one in detected.content["annotations"]:
        if not one.get("iscrowd"):
            by_image[one["image_id"]][0].append(one)
    for one in detected.detections:
        by_image[one["image_id"]][1].append(one)
    place = {key: i for i, key in enumerate(detected.truth.categories)}
    labels, predictions = [], []
    for boxes, found in by_image.values():
        labels.append(
            {
                "bboxes": xyxy([one["bbox"] for one in boxes]),
                "labels": np.array([place[one["category_id"]] for one in boxes], int),
            }
        )
        by_class = np.empty(len(place), object)
        for i, key in enumerate(place):
            mine = [one for one in found if one["category_id"] == key]
            scores = np.array([one["score"] for one in mine]).reshape(-1, 1)
            by_class[i] = np.hstack([xyxy([one["bbox"] for one in mine]), scores])
        predictions.append(by_class)
    both = {"labels": labels, "predictions": predictions}
    moved, swapped = rank.compute_badloc_box_scores(**both), rank.compute_swap_box_scores(**both)
    overlooked = rank.compute_overlooked_box_scores(**both)
    suspects = []
    for i, (key, (boxes, _)) in enumerate(by_image.items()):
        for one, *quality in zip(boxes, moved[i], swapped[i], strict=True):
            suspects.append((np.nanmin(quality), (key, [one["id"]], [])))
        found = np.concatenate(list(predictions[i]))  # as cleanlab orders them
        for row, quality in zip(found, overlooked[i], strict=True):
            if not np.isnan(quality):
                box = [*row[:2].tolist(), *(row[2:4] - row[:2]).tolist()]
                suspects.append((quality, (key, [], box)))
    suspects.sort(key=lambda one: one[0])
    order = np.argsort(rank.get_label_quality_scores(**both, verbose=False), kind="stable")
    keys = list(by_image)
    return Ranked([one for _, one in suspects], [keys[i] for i in order])


def hotcocos(detected: Detected) -> Ranked:
    """Returns hotcoco's candidates, wrong classes and missing boxes, in its order of scores."""
    from hotcoco import COCO, COCOeval

    truth = COCO({**detected.content})
    found = truth.load_res([{**one} for one in detected.detections])
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.evaluate()
    candidates = evaluation.image_diagnostics(score_thr=0.0)["label_errors"]
    boxes = {one["id"]: one["bbox"] for one in found.dataset["annotations"]}
    findings = [
        (one["image_id"], [] if one["gt_id"] is None else [one["gt_id"]], boxes[one["dt_id"]])
        for one in candidates
    ]
    return Ranked(findings, list(dict.fromkeys(one["image_id"] for one in candidates)))


def hits(ranked: Ranked, errors: Sequence[Mapping[str, Any]], most: int) -> dict[str, int]:
    """Returns how many of each kind of error are among the first findings.

    A finding that points to an error found already is passed over.
    """
    left = dict(enumerate(errors))
    counts, looked_at = dict.fromkeys(KINDS, 0), 0
    for image, ids, box in ranked.findings:
        at = [i for i, one in enumerate(errors) if _points_to(one, image, ids, box)]
        if at and not any(i in left for i in at):
            continue
        if looked_at == most:
            break
        looked_at += 1
        for i in at[:1]:
            counts[errors[i]["kind"]] += 1
        for i in at:
            left.pop(i, None)
    return counts


def _points_to(error: Mapping[str, Any], image: Any, ids: list[Any], box: list[float]) -> bool:
    if error["image_id"] != image:
        return False
    if set(ids) & set(error["ids"]):
        return True
    # a detection without a box: it may show where a dropped or a moved box was
    return not ids and bool(box) and bool(_iou([box], [error["bbox"]])[0, 0] >= 0.5)


def rows_of(name: str, folder: Path, share: float) -> list[tuple[str, ...]]:
    """Returns a row for each ranking of a data set."""
    errors = json.loads((folder / PLANTED).read_text())
    detected = read_detected(folder)
    images = {one["image_id"] for one in errors}
    most = round(share * len(detected.truth.images))
    rows = []
    probable = as_probabilities(detected)
    for who, rank, what in (
        ("fldet", ours, detected),
        ("cleanlab", cleanlabs, detected),
        ("cleanlab, probabilities", cleanlabs, probable),
        ("hotcoco", hotcocos, detected),
    ):
        ranked = rank(what)
        counts = hits(ranked, errors, len(errors))
        of_kind = (f"{counts[kind]}/{sum(one['kind'] == kind for one in errors)}" for kind in KINDS)
        right = sum(key in images for key in ranked.images[:most])
        shares = (sum(counts.values()) / len(errors), right / most)
        rows.append((name, who, *(f"{one:.2f}" for one in shares), *of_kind))
    base = (len(errors) / len(detected.truth.annotations), len(images) / len(detected.truth.images))
    return [*rows, (name, "by chance", *(f"{one:.2f}" for one in base), *["-"] * len(KINDS))]


def main() -> None:
    """Plants, trains, and prints a table for each data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs", "label_errors"))
    options = parser.parse_args()
    rows: list[tuple[str, ...]] = []
    for config in options.configs:
        folder = options.work_dir / config.stem
        if not (folder / DETECTIONS).exists():
            detect_by_folds(config, options.folds, options.share, options.seed, folder)
        rows += rows_of(config.stem, folder, options.share)
    header = ("data", "ranking", "boxes", "images", *KINDS)
    print(table(header, rows))


if __name__ == "__main__":
    main()
