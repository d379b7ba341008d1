"""Small contents of COCO files, and detections in them."""

import json

import numpy as np


def box(image_id=1, category_id=1, bbox=(10, 10, 20, 20), score=0.9):
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(bbox),
        "score": score,
    }


def truth(*annotations, images=2, categories=("cat", "dog")):
    """A COCO file as a dict; category ids 10, 20, ... so that they are no labels."""
    return {
        "images": [{"id": i} for i in range(1, images + 1)],
        "categories": [{"id": 10 * i, "name": n} for i, n in enumerate(categories, start=1)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": list(bbox), **more}
            for i, (image, category, bbox, more) in enumerate(annotations, start=1)
        ],
    }


ONE_CAT = truth((1, 10, (10, 10, 20, 20), {}))


def synthetic(ann_file, seed=0):
    """Jittered truth, wrong classes, noise, equal scores, and hits inside crowds."""
    rng = np.random.default_rng(seed)
    content = json.loads(ann_file.read_text())
    categories = [one["id"] for one in content["categories"]]
    found = []
    for one in content["annotations"]:
        for _ in range(8 if one["iscrowd"] else rng.integers(0, 4)):
            x, y, w, h = one["bbox"]
            x, y = x + rng.normal(0, 0.08) * w, y + rng.normal(0, 0.08) * h
            w, h = w * rng.uniform(0.8, 1.2), h * rng.uniform(0.8, 1.2)
            category = one["category_id"] if rng.random() < 0.85 else int(rng.choice(categories))
            score = round(rng.random(), 1)  # eleven values: many ties
            found.append(box(one["image_id"], category, (x, y, w, h), score))
    for image in content["images"]:
        for _ in range(130):  # of one class: more than COCO's 100
            corner = rng.uniform(0, 300, 2)
            bbox = (*corner, *rng.uniform(0, 120, 2))
            found.append(box(image["id"], 1, bbox, float(rng.random() * 0.5)))
    rng.shuffle(found)
    return found
