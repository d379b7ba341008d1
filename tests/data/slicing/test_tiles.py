import numpy as np
import pytest
from mmengine.registry import init_default_scope

from fldet.config.load import format_config, load_config
from fldet.config.prepare import prepare_config
from fldet.config.tiles import cut_into_tiles
from fldet.data.coco import CocoDataset
from fldet.data.slicing.slices import slices
from fldet.data.slicing.tiles import Tiles, tiled
from fldet.errors import ConfigError
from fldet.registry import DATASETS


@pytest.mark.parametrize("size", [(100, 100), (640, 480), (1000, 333), (3000, 2999), (101, 7)])
@pytest.mark.parametrize("overlap", [0.05, 0.2, 0.5])
def test_slices_cover_a_picture_evenly(size, overlap):
    found = slices(*size, 100, overlap)
    assert len({tuple(box) for box in found.tolist()}) == len(found)
    assert (found[:, 2:] - found[:, :2] == np.minimum(size, 100)).all()
    for axis, length in enumerate(size):
        starts = np.unique(found[:, axis])
        assert starts[0] == 0
        assert found[:, axis + 2].max() == length
        steps = np.diff(starts)
        assert not len(steps) or (steps.max() <= 100 * (1 - overlap) and np.ptp(steps) <= 1)


def box(x1, y1, x2, y2, ignored=0):
    return {"bbox": [x1, y1, x2, y2], "bbox_label": 1, "ignore_flag": ignored}


def entry(*boxes, width=180, height=100):
    return {"img_path": "a", "img_id": 1, "width": width, "height": height, "instances": [*boxes]}


def test_a_box_is_learned_where_enough_of_it_is_seen_and_ignored_elsewhere():
    picture = entry(box(70, 10, 110, 50), box(82, 0, 98, 9), box(0, 0, 180, 20, ignored=1))
    left, right = tiled([picture], Tiles(100, 0.2))
    assert [left["tile"], right["tile"]] == [(0, 0, 100, 100), (80, 0, 180, 100)]
    assert (right["width"], right["height"], right["picture"]) == (100, 100, (180, 100))
    assert left["instances"] == [
        *(box(70, 10, 100, 50), box(82, 0, 98, 9), box(0, 0, 100, 20, ignored=1))
    ]
    assert right["instances"] == [
        *(box(0, 10, 30, 50), box(2, 0, 18, 9), box(0, 0, 100, 20, ignored=1))
    ]
    left, right = tiled([picture], Tiles(100, 0.2, visible=0.8))
    assert left["instances"][0] == box(70, 10, 100, 50, ignored=1)
    assert right["instances"][0] == box(0, 10, 30, 50, ignored=1)


def test_a_box_that_hangs_over_the_border_counts_as_far_as_it_is_in_the_picture():
    left, _ = tiled([entry(box(-30, 10, 30, 50))], Tiles(100, visible=1.0, empty=1))
    assert left["instances"] == [box(0, 10, 30, 50)]


def test_strips_thinner_than_a_pixel_are_no_regions():
    left, _ = tiled([entry(box(99.5, 10, 120, 50))], Tiles(100, empty=1))
    assert left["instances"] == []


@pytest.mark.parametrize(("empty", "kept"), [(0, 0), (0.25, 1), (1, 4), (9, 8)])
def test_tiles_without_objects_by_their_number(empty, kept):
    """Four tiles with a box, eight without; small pictures stay."""
    pictures = [entry(box(10, 10, 20, 20), width=260) for _ in range(4)]
    small = [entry(width=90), entry(box(1, 1, 9, 9), width=90)]
    found = tiled([*pictures, *small], Tiles(100, 0.2, empty=empty))
    assert len(found) == 4 + kept + 2
    assert found == tiled([*pictures, *small], Tiles(100, 0.2, empty=empty))
    assert found[-2:] == small


@pytest.fixture
def cfg(tiny_config):
    cfg = load_config(tiny_config)
    cfg.train_dataloader.dataset.pipeline.insert(
        2, {"type": "Resize", "scale": (64, 64), "keep_ratio": True}
    )
    cfg.tiles = {"size": 40, "overlap": 0.25}
    return cfg


def test_the_line_of_a_config_reaches_the_data_sets_once(cfg, tmp_path):
    resolved = prepare_config(cfg, phases=("train", "val"))
    assert resolved.tiles is None
    assert resolved.model.train_cfg.assigner.ignore_iof_thr == 0.5
    assert "tiles" not in resolved.val_dataloader.dataset
    (tmp_path / "saved.py").write_text(format_config(resolved))
    again = prepare_config(load_config(tmp_path / "saved.py"), phases=("train", "val"))
    assert again.train_dataloader == resolved.train_dataloader
    init_default_scope("mmdet")
    dataset = DATASETS.build(resolved.train_dataloader.dataset)
    plain = CocoDataset(
        ann_file=dataset.ann_file,
        data_prefix=dataset.data_prefix,
        pipeline=[],
        serialize_data=False,
    )
    assert len(dataset) > 2 * len(plain)
    number = next(i for i in range(len(dataset)) if dataset.get_data_info(i)["tile"][0] == 24)
    sample = dataset[number]
    assert sample["inputs"].shape == (3, 64, 64)
    boxes = sample["data_samples"].gt_instances.bboxes.tensor.numpy() * 40 / 64
    learned = [one for one in dataset.get_data_info(number)["instances"] if not one["ignore_flag"]]
    x = [one["bbox"][0] for one in learned]
    assert len(x) == len(boxes)
    assert all(min(abs(a - b[0]), abs(40 - a - b[2])) < 1e-3 for a, b in zip(x, boxes, strict=True))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (640, "tiles is 640"),
        ({"sizes": 640}, "tiles is .*sizes"),
        ({"size": 4}, "tiles: slices of 4 pixels"),
        ({"size": 64, "overlap": 2}, "tiles: slices that overlap by 2"),
        ({"size": 64, "visible": 0}, "tiles: visible is 0"),
        ({"size": 64, "empty": -1}, "tiles: empty is -1"),
    ],
)
def test_lines_that_cannot_be(cfg, line, said):
    cfg.tiles = line
    with pytest.raises(ConfigError, match=said):
        prepare_config(cfg, phases=("train",))


def test_tiles_are_cut_from_data_sets_of_fldet_alone(cfg):
    with pytest.raises(ConfigError, match="data sets of fldet alone"):
        cut_into_tiles(cfg, [], [{"type": "LVISV1Dataset"}])
