"""The small models on data of one's own: they fit it, and their networks can be run."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from fldet.compare.models import MODELS, default_box_sizes, ssd_blocks, write_models
from fldet.config.load import CONFIGS, load_config
from fldet.data.random_batches import random_batch
from fldet.errors import DataError, UsageError
from fldet.registry import MODELS as REGISTERED


def there(name):
    """Whether fldet has the config that a model comes from."""
    return (CONFIGS / MODELS[name].config.removeprefix("fldet::")).is_file()


NAMES = [
    pytest.param(name, marks=pytest.mark.skipif(not there(name), reason="no such config"))
    for name in MODELS
]


@pytest.mark.parametrize(
    ("cells", "kernels", "strides"),
    [
        (20, (2, 2, 3, 3), (2, 2, 1, 1)),  # SSD321 of the authors
        (10, (2, 3, 3), (2, 1, 1)),  # the small one on Shapes
        (9, (3, 2, 2), (2, 2, 2)),
        (7, (3, 3), (2, 1)),
        (2, (2,), (2,)),
    ],
)
def test_blocks_of_ssd_by_hand(cells, kernels, strides):
    found = ssd_blocks(cells)
    assert tuple(kernel for _, kernel, _ in found) == kernels
    assert tuple(stride for _, _, stride in found) == strides


@pytest.mark.parametrize("cells", range(2, 90))
def test_blocks_of_ssd_end_at_one_cell_and_leave_out_none(cells):
    x = torch.zeros(1, 1, cells, cells)
    for before, kernel, stride in ssd_blocks(cells):
        assert x.shape[-1] == before
        x = torch.nn.functional.avg_pool2d(x, kernel, stride)
        assert x.shape[-1] >= 1
    assert x.shape[-2:] == (1, 1)


def test_default_boxes_are_those_of_the_config_on_shapes_at_its_size():
    small, large = default_box_sizes(160, 5)
    assert small == [16, 32, 72, 112, 152]
    assert large == [32, 72, 112, 152, 192]


@pytest.mark.skipif(not there("ssd"), reason="no such config")
def test_ssd_on_shapes_is_the_config_on_shapes(tmp_path, tiny_coco):
    path = write_models(("ssd",), tiny_coco, (160, 160), tmp_path)["ssd"]
    found, original = load_config(path), load_config(MODELS["ssd"].config)
    assert found.model.neck.to_dict() == original.model.neck.to_dict()
    boxes = [one.model.bbox_head.anchor_generator.to_dict() for one in (found, original)]
    assert boxes[0] == boxes[1]
    assert found.train_dataloader.dataset.pipeline[2].scale == (160, 160)
    assert found.train_dataloader.dataset.pipeline[2].keep_ratio is False
    assert found.val_dataloader.dataset.pipeline[1].keep_ratio is False


@pytest.mark.parametrize("name", NAMES)
def test_models_take_images_of_the_data_and_give_a_finite_loss(name, tmp_path, tiny_coco):
    cfg = load_config(write_models((name,), tiny_coco, (96, 64), tmp_path)[name])
    assert cfg.augment == "none"  # whose steps do not fit all of them
    step = next(one for one in cfg.train_dataloader.dataset.pipeline if one.type == "Resize")
    width, height = step.scale
    assert (step.keep_ratio, width, height) == (
        name != "ssd",
        *((80, 80) if name == "ssd" else (96, 64)),
    )
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = REGISTERED.build(cfg.model)
    model.init_weights()
    batch = random_batch(2, (height, width), 1, boxes=2)
    losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
    total = float(model.parse_losses(losses)[0].detach())
    assert math.isfinite(total)
    assert total > 0


@pytest.mark.skipif(not there("yolov2"), reason="no such config")
def test_priors_of_yolov2_are_sizes_of_the_boxes_in_cells(tmp_path, tiny_coco):
    path = write_models(("yolov2",), tiny_coco, (128, 128), tmp_path)["yolov2"]
    truth = json.loads((tiny_coco / "annotations" / "instances_train2017.json").read_text())
    head = load_config(path).model.bbox_head
    sides = [2 * one["bbox"][2] / head.stride for one in truth["annotations"] if not one["iscrowd"]]
    priors = np.array(head.priors)
    assert priors.shape == (5, 2)
    assert priors.min() >= min(sides) - 1e-3
    assert priors.max() <= max(sides) + 1e-3
    np.testing.assert_allclose(priors[:, 0], priors[:, 1])  # all boxes are square


def test_anchors_of_faster_rcnn_follow_those_of_retinanet(tmp_path, tiny_coco):
    paths = write_models(("retinanet", "faster_rcnn"), tiny_coco, None, tmp_path)
    one, two = (load_config(paths[name]) for name in ("retinanet", "faster_rcnn"))
    factor = one.model.bbox_head.anchor_generator.sizes[0] / 24
    original = load_config(MODELS["faster_rcnn"].config).model.rpn_head.anchor_generator.sizes
    assert two.model.rpn_head.anchor_generator.sizes == [factor * size for size in original]


def test_configs_that_are_there_stay(tmp_path, tiny_coco):
    path = write_models(("retinanet",), tiny_coco, None, tmp_path)["retinanet"]
    path.write_text(f"{path.read_text()}# mine\n")
    write_models(("retinanet", "faster_rcnn"), tiny_coco, None, tmp_path)
    assert path.read_text().endswith("# mine\n")


def test_unknown_models_and_data_without_a_validation_split(tmp_path, tiny_coco):
    with pytest.raises(UsageError, match="unknown model 'retinanett'"):
        write_models(("retinanett",), tiny_coco, None, tmp_path)
    data = tmp_path / "data"
    shutil.copytree(tiny_coco, data)
    (data / "annotations" / "instances_val2017.json").unlink()
    shutil.rmtree(data / "val2017")
    paths = write_models(("retinanet", "ssd"), data, None, tmp_path / "configs")
    listed = str(tmp_path / "configs" / "data_val.json")
    for path in paths.values():
        cfg = load_config(path)
        assert cfg.val_dataloader.dataset.only_images == listed
        assert cfg.train_dataloader.dataset.without_images == listed
    for file in (data / "train2017").iterdir():  # no one can be read
        file.write_bytes(b"")
    with pytest.raises(DataError, match="no images to validate on"):
        write_models(("retinanet",), data, None, tmp_path / "more")
