"""Ground truth to evaluate against."""

import pytest


@pytest.fixture(scope="module")
def val_file(coco_mini):
    return coco_mini / "annotations" / "instances_val2017.json"
