"""A photograph on which a config of any detector can take a step."""

import json

import pytest


@pytest.fixture(scope="module")
def real_image(coco_mini):
    """One photograph with its boxes, as a data set hands it to a pipeline."""
    content = json.loads((coco_mini / "annotations" / "instances_train2017.json").read_text())
    image = next(image for image in content["images"] if image["id"] == most_boxes(content))
    return {
        "img_path": str(coco_mini / "train2017" / image["file_name"]),
        "img_id": image["id"],
        "height": image["height"],
        "width": image["width"],
        "instances": [
            {
                "bbox": [x, y, x + width, y + height],
                "bbox_label": annotation["category_id"] % 3,
                "ignore_flag": 0,
            }
            for annotation in content["annotations"]
            if annotation["image_id"] == image["id"]
            for x, y, width, height in [annotation["bbox"]]
        ],
    }


def most_boxes(content):
    ids = [annotation["image_id"] for annotation in content["annotations"]]
    return max(set(ids), key=lambda image: (ids.count(image), image))
