"""DrawHook: a picture for each test image, with boxes where the data are."""

from types import MappingProxyType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from fldet.engine.hooks.draw import DrawHook
from fldet.errors import DataError
from fldet.pictures.boxes import read_image
from fldet.pictures.colors import color_of
from fldet.registry import DATASETS, HOOKS

GREY = 100


class Images(list):
    """The part of a data set that drawing needs."""

    metainfo = MappingProxyType({"classes": ("cat", "dog")})
    get_data_info = list.__getitem__


def runner_of(paths):
    images = Images({"img_path": str(path)} for path in paths)
    return SimpleNamespace(test_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=images)))


def write_image(path, height=500, width=600):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((height, width, 3), GREY, np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def instances(boxes=(), labels=(), scores=None):
    data = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
    )
    if scores is not None:
        data.scores = torch.tensor(scores)
    return data


def sample(path, image_id=1, found=((), (), ()), truth=None, ignored=None):
    data = DetDataSample(metainfo={"img_path": str(path), "img_id": image_id})
    data.pred_instances = instances(*found)
    if truth is not None:
        data.gt_instances = instances(*truth)
    if ignored is not None:
        data.ignored_instances = instances(*ignored)
    return data


def panes(path, width=600, height=500):
    """Prediction and ground truth as drawn, without the captions."""
    picture = read_image(path)
    return picture[-height:, :width], picture[-height:, -width:]


def near(pane, color):
    """(H, W) truth values: pixels of a colour, after JPEG."""
    return np.abs(pane.astype(int) - np.array(color)).max(axis=2) < 60


def run(tmp_path, *samples, dataset=None, **options):
    hook = HOOKS.build({"type": "fldet.DrawHook", "out_dir": str(tmp_path / "out"), **options})
    runner = runner_of(dataset or [one.img_path for one in samples])
    hook.before_test(runner)
    hook.after_test_iter(runner, 0, None, samples)
    return hook


def test_predictions_left_ground_truth_right(tmp_path):
    path = write_image(tmp_path / "image.png")
    one = sample(
        path,
        found=([[100, 100, 300, 300]], [0], [0.9]),
        truth=([[350, 200, 550, 450]], [1]),
    )
    hook = run(tmp_path, one)
    assert hook.pictures == [tmp_path / "out" / "image.jpg"]
    left, right = panes(hook.pictures[0])
    assert near(left, color_of(0))[300, 110:290].mean() > 0.9
    assert near(right, color_of(1))[450, 360:540].mean() > 0.9
    assert np.abs(left[:, 320:].astype(int) - GREY).max() < 12  # nothing of the truth
    assert np.abs(right[:, :330].astype(int) - GREY).max() < 12  # nothing of the predictions


def test_low_scores_are_left_out(tmp_path):
    path = write_image(tmp_path / "image.png")
    found = ([[100, 100, 300, 300], [350, 100, 550, 300]], [0, 0], [0.41, 0.39])
    left, _ = panes(run(tmp_path, sample(path, found=found), score_thr=0.4).pictures[0])
    assert near(left, color_of(0))[300, 110:290].mean() > 0.9
    assert not near(left, color_of(0))[300, 360:540].any()


def test_names_are_left_out_of_both_sides(tmp_path):
    path, box = write_image(tmp_path / "image.png"), [[100, 100, 300, 300]]
    one, inks = sample(path, found=(box, [0], [0.9]), truth=(box, [1])), {}
    for hide in (False, True):
        hook = run(tmp_path, one, hide_labels=hide, hide_scores=hide)
        inks[hide] = [
            np.abs(pane[:95].astype(int) - GREY).max() for pane in panes(hook.pictures[0])
        ]
    assert min(inks[False]) > 60
    assert max(inks[True]) < 30  # of the compression


def test_ignored_boxes_are_dashed(tmp_path):
    path = write_image(tmp_path / "image.png")
    one = sample(path, truth=([], []), ignored=([[100, 100, 500, 400]], [1]))
    _, right = panes(run(tmp_path, one).pictures[0])
    assert 0.2 < near(right, color_of(1))[400, 200:490].mean() < 0.8


def test_without_ground_truth_the_right_side_is_the_image(tmp_path):
    path = write_image(tmp_path / "image.png")
    _, right = panes(run(tmp_path, sample(path)).pictures[0])
    assert np.abs(right.astype(int) - GREY).max() < 12


def test_equal_names_do_not_overwrite_each_other(tmp_path):
    paths = [write_image(tmp_path / folder / "image.png") for folder in "abc"]
    hook = run(tmp_path, *(sample(path, i) for i, path in enumerate(paths, start=7)))
    names = [path.name for path in hook.pictures]
    assert names == ["image.jpg", "8_image.jpg", "9_image.jpg"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)


@pytest.mark.parametrize(
    "names",
    [
        ["7_image.png", "image.png", "image.bmp"],
        ["試" * 81 + "a.png", "試" * 81 + "b.png", "試" * 81 + "a.bmp"],
        ["\udcff.png", "\udcfe.png", "a\nb.png"],
    ],
    ids=["id in front", "long", "no text"],
)
def test_no_name_of_an_image_loses_a_picture(tmp_path, names):
    paths = [write_image(tmp_path / name) for name in names]
    hook = run(tmp_path, *(sample(path, i) for i, path in enumerate(paths, start=5)))
    assert len(set(hook.pictures)) == len(list((tmp_path / "out").iterdir())) == len(names)


def test_two_processes_name_pictures_as_one_does(tmp_path):
    paths = [write_image(tmp_path / folder / "image.png") for folder in "abc"]
    samples = [sample(path, i) for i, path in enumerate(paths, start=7)]
    shares = [samples[::2], [samples[1], samples[0]]]  # the sampler fills up with the first
    for share in shares:
        run(tmp_path, *share, dataset=paths)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"image.jpg", "8_image.jpg", "9_image.jpg"}


def test_at_most_max_pictures_and_a_new_test_starts_afresh(tmp_path):
    paths = [write_image(tmp_path / f"{name}.png") for name in "abc"]
    samples = [sample(path) for path in paths]
    hook = run(tmp_path, *samples, max_pictures=2)
    hook.after_test_iter(runner_of(paths), 1, None, samples)
    assert [path.name for path in hook.pictures] == ["a.jpg", "b.jpg"]
    hook.before_test(runner_of(paths))
    assert hook.pictures == []


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blut_größe_血球_01.jpg", (480, 640)),
        ("name with spaces.jpg", (480, 640)),
        ("grayscale.png", (180, 240)),
        ("gray_16bit.png", (180, 240)),
        ("rgba.png", (180, 240)),
        ("cmyk.jpg", (240, 320)),
        ("exif_orientation_6.jpg", (480, 640)),
    ],
)
def test_unusual_images_are_read(bad_inputs, tmp_path, name, shape):
    path = bad_inputs / "images" / name
    image = read_image(path)
    assert image.shape == (*shape, 3)
    assert image.std() > 5
    assert run(tmp_path, sample(path)).pictures[0].stem == path.stem


@pytest.mark.parametrize("name", ["zero_bytes.jpg", "text_not_image.jpg", "not_there.jpg"])
def test_images_that_cannot_be_read(bad_inputs, name):
    with pytest.raises(DataError, match=name):
        read_image(bad_inputs / "images" / name)


def test_the_test_pipeline_gives_boxes_in_pixels_of_the_file(coco_mini, tmp_path):
    """The order that the hook relies on: boxes are loaded after the resizing."""
    dataset = DATASETS.build(
        {
            "type": "fldet.CocoDataset",
            "ann_file": str(coco_mini / "annotations" / "instances_val2017.json"),
            "data_prefix": {"img": str(coco_mini / "val2017")},
            "test_mode": True,
            "pipeline": [
                {"type": "LoadImageFromFile"},
                {"type": "mmdet.Resize", "scale": (224, 128), "keep_ratio": True},
                {"type": "mmdet.LoadAnnotations", "with_bbox": True},
                {"type": "mmdet.PackDetInputs"},
            ],
        }
    )
    index = next(
        i
        for i in range(len(dataset))
        if sum(not box["ignore_flag"] for box in dataset.get_data_info(i)["instances"]) == 1
    )
    info, data = dataset.get_data_info(index), dataset[index]["data_samples"]
    data.pred_instances = instances([], [], [])
    runner = SimpleNamespace(test_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)))
    hook = DrawHook(str(tmp_path))
    hook.after_test_iter(runner, 0, None, [data])
    left, right = panes(hook.pictures[0], info["width"], info["height"])
    truth = next(box for box in info["instances"] if not box["ignore_flag"])
    x1, y1, x2, y2 = (round(value) for value in truth["bbox"])
    changed = np.abs(left.astype(int) - right.astype(int)).max(axis=2) > 60
    ys, xs = np.nonzero(changed)
    assert xs.max() == pytest.approx(min(x2, info["width"] - 1), abs=4)
    assert ys.max() == pytest.approx(min(y2, info["height"] - 1), abs=4)
    assert xs.min() == pytest.approx(x1, abs=4)
    assert ys.min() <= y1 + 4
