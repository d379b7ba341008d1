"""The drawn data set: the same pixels every time, and a truth that means what it says."""

import contextlib
import io
import json
import multiprocessing
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fldet.data.shapes import drawing as shapes_drawing
from fldet.data.shapes import files as shapes
from fldet.data.shapes import scene as shapes_scene
from fldet.data.shapes.files import generate_shapes
from fldet.data.shapes.scene import CLASSES, draw_image
from fldet.errors import DataError

SMALL = {"num_train": 6, "num_val": 3, "image_size": 96}


@pytest.fixture(scope="module")
def drawings():
    """Enough images at the default size for everything rare to be there."""
    return [draw_image(0, "train", index, 160) for index in range(150)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return generate_shapes(tmp_path_factory.mktemp("shapes") / "set", **SMALL)


def outline(name):
    return shapes_drawing.object_outline(np.random.default_rng(0), name)


def all_annotations(drawings, *, iscrowd):
    return [a for d in drawings for a in d.annotations if a["iscrowd"] == iscrowd]


def file_contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*.*")}


# --- one image


def test_the_same_seed_draws_the_same_image():
    first, second = (draw_image(3, "val", 5, 128) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    assert first.annotations == second.annotations


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((4, "val", 5), id="seed"),
        pytest.param((3, "train", 5), id="split"),
        pytest.param((3, "val", 6), id="index"),
    ],
)
def test_another_one_draws_another_image(other):
    first, second = draw_image(3, "val", 5, 128), draw_image(*other, 128)
    assert first.image.shape != second.image.shape or (first.image != second.image).any()


def test_images_are_landscape_portrait_and_square(drawings):
    sizes = Counter(drawing.image.shape for drawing in drawings)
    assert set(sizes) == {(120, 160, 3), (160, 120, 3), (160, 160, 3)}
    assert sizes.most_common(1)[0][0] == (120, 160, 3)


# --- the truth


def test_boxes_lie_inside_their_image_and_have_an_area(drawings):
    for drawing in drawings:
        height, width = drawing.image.shape[:2]
        for annotation in drawing.annotations:
            x, y, w, h = annotation["bbox"]
            assert x >= 0
            assert y >= 0
            assert x + w <= width + 1e-6
            assert y + h <= height + 1e-6
            # whole pixels, counted from half covered on: up to one more in each direction
            assert 0 < annotation["area"] <= (w + 1) * (h + 1)


def test_class_frequencies_fall_in_the_order_of_the_classes(drawings):
    counts = Counter(a["category_id"] for a in all_annotations(drawings, iscrowd=0))
    in_order = [counts[shape.category_id] for shape in CLASSES]
    assert in_order == sorted(in_order, reverse=True)
    shares = np.array(in_order) / sum(in_order)
    np.testing.assert_allclose(shares, [shape.frequency for shape in CLASSES], atol=0.06)


def test_frequencies_are_shares_and_category_ids_have_gaps():
    assert sum(shape.frequency for shape in CLASSES) == pytest.approx(1)
    ids = [shape.category_id for shape in CLASSES]
    assert ids == sorted(set(ids))
    assert ids != list(range(1, len(ids) + 1))


def test_objects_of_all_three_coco_sizes(drawings):
    areas = np.array([a["area"] for a in all_annotations(drawings, iscrowd=0)])
    small, large = (areas < 32**2).sum(), (areas > 96**2).sum()
    assert small > len(areas) - small - large > large >= 10


def test_empty_ordinary_and_crowded_images(drawings):
    counts = np.array([len(all_annotations([drawing], iscrowd=0)) for drawing in drawings])
    assert 0.03 <= (counts == 0).mean() <= 0.15
    assert 0.05 <= (counts >= 20).mean() <= 0.2
    assert ((counts > 0) & (counts < 20)).mean() > 0.6


def test_objects_of_one_image_can_survive_suppression(drawings):
    for drawing in drawings:
        boxes = [a["bbox"] for a in drawing.annotations]
        for index, box in enumerate(boxes):
            assert all(shapes_drawing.iou_xywh(box, other) <= 0.45 for other in boxes[:index])


def test_crowd_regions_are_exact_masks(drawings):
    regions = all_annotations(drawings, iscrowd=1)
    assert 3 <= len(regions) <= 20
    for region in regions:
        counts = region["segmentation"]["counts"]
        height, width = region["segmentation"]["size"]
        assert sum(counts) == height * width
        assert sum(counts[1::2]) == region["area"]  # every second run is of ones


@pytest.mark.parametrize("name", [shape.name for shape in CLASSES])
def test_the_box_fits_the_pixels(name):
    contours = [20.3 * c + (50.2, 49.6) for c in outline(name)]
    mask = shapes_drawing.alpha_mask(contours, (100, 100)) >= 128
    x, y, w, h = shapes_drawing.clipped_xywh(contours, (100, 100))
    ys, xs = np.nonzero(mask)
    edges = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    sharp_tips = 2.0 if name in ("star", "triangle") else 0.75  # thinner than half a pixel
    np.testing.assert_allclose(edges, (x, y, x + w, y + h), atol=sharp_tips)
    # Edges are drawn up to an eighth of a pixel wide, which tells on a star's long outline.
    assert mask.sum() == pytest.approx(shapes_drawing.even_odd_area(contours), rel=0.06)


def test_a_ring_has_a_hole_and_a_half_outside_is_cut():
    contours = [20 * c + (0, 50) for c in outline("ring")]
    mask = shapes_drawing.alpha_mask(contours, (100, 100)) >= 128
    assert not mask[50, 0]
    assert mask[50, 18]
    assert shapes_drawing.clipped_xywh(contours, (100, 100))[0] == 0
    assert mask.sum() == pytest.approx(shapes_drawing.even_odd_area(contours) / 2, rel=0.04)


def test_a_shape_outside_the_image_has_no_pixels():
    assert not shapes_drawing.alpha_mask([20 * c - 40 for c in outline("disc")], (100, 100)).any()


def test_a_hidden_shape_has_no_room():
    square = [np.array([[20.0, 20.0], [60.0, 20.0], [60.0, 60.0], [20.0, 60.0]])]
    scene = shapes_scene._Scene(covered=np.zeros((100, 100), dtype=bool))
    mask = shapes_drawing.alpha_mask(square, scene.size) >= 128
    assert shapes_scene._has_room(scene, square, mask, 0.9)
    scene.covered[:, :45] = True  # 25 of its 40 columns: 0.375 remain
    assert not shapes_scene._has_room(scene, square, mask, 0.4)
    assert shapes_scene._has_room(scene, square, mask, 0.35)


def test_a_mask_in_run_lengths_starts_with_zeros():
    mask = np.array([[True, False], [True, True]])
    assert shapes_drawing.rle(mask) == {"counts": [0, 2, 1, 1], "size": [2, 2]}


# --- the files


def test_layout_and_content(dataset):
    content = json.loads((dataset / "annotations/instances_train2017.json").read_text())
    assert [image["id"] for image in content["images"]] == list(range(1, 7))
    assert [a["id"] for a in content["annotations"]] == list(
        range(1, len(content["annotations"]) + 1)
    )
    for image in content["images"]:
        stored = cv2.imread(str(dataset / "train2017" / image["file_name"]))
        assert stored.shape == (image["height"], image["width"], 3)
    assert content["info"]["parameters"] == {
        **SMALL,
        "seed": 0,
        "version": shapes.GENERATOR_VERSION,
    }
    assert len(list((dataset / "val2017").iterdir())) == SMALL["num_val"]


def test_drawing_twice_gives_the_same_bytes(dataset, tmp_path):
    again = generate_shapes(tmp_path / "again", **SMALL)
    assert file_contents(again) == file_contents(dataset)


def test_an_image_does_not_depend_on_the_counts(dataset, tmp_path):
    fewer = generate_shapes(tmp_path / "fewer", num_train=2, num_val=1, image_size=96)
    images = {path: data for path, data in file_contents(fewer).items() if path.suffix == ".jpg"}
    assert len(images) == 3
    assert images.items() <= file_contents(dataset).items()


def test_progress_counts_every_image(tmp_path):
    seen = []
    generate_shapes(
        tmp_path / "set",
        num_train=2,
        num_val=1,
        image_size=64,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:pycocotools")
@pytest.mark.parametrize("split", ["train", "val"])
def test_pycocotools_gives_the_truth_an_ap_of_one(tmp_path_factory, split):
    root = generate_shapes(tmp_path_factory.mktemp("coco") / "set", num_train=40, num_val=40)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(root / f"annotations/instances_{split}2017.json")
        found = [
            {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"]}
            | {"score": 0.9}
            for a in truth.dataset["annotations"]
            if not a["iscrowd"]
        ]
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)
    regions = [a for a in truth.dataset["annotations"] if a["iscrowd"]]
    assert all(truth.annToMask(a).sum() == a["area"] for a in regions)


# --- reuse, interruption, several processes


def test_the_same_data_set_is_reused(dataset, monkeypatch):
    monkeypatch.setattr(shapes, "draw_image", None)  # drawing would fail
    assert generate_shapes(dataset, **SMALL) == dataset


@pytest.mark.parametrize("change", [{"seed": 1}, {"num_train": 7}, {"image_size": 128}])
def test_other_parameters_are_refused(dataset, change):
    with pytest.raises(DataError, match="holds Shapes drawn with") as caught:
        generate_shapes(dataset, **(SMALL | change))
    assert caught.value.expected == str({**SMALL, "seed": 0, "version": 1, **change})
    assert str(dataset) in caught.value.hint


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(DataError, match="is not a Shapes data set"):
        generate_shapes(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_an_empty_folder_is_filled(tmp_path):
    assert generate_shapes(tmp_path, num_train=1, num_val=1, image_size=64) == tmp_path
    assert (tmp_path / "val2017").is_dir()


@pytest.mark.parametrize(
    ("name", "value"), [("num_train", 0), ("num_val", 0), ("image_size", 63), ("seed", -1)]
)
def test_parameters_out_of_range(tmp_path, name, value):
    with pytest.raises(DataError, match=f"{name}={value}"):
        generate_shapes(tmp_path / "set", **(SMALL | {name: value}))


def test_an_interruption_leaves_nothing_and_can_be_repeated(tmp_path):
    def interrupt(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_shapes(tmp_path / "set", **SMALL, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert generate_shapes(tmp_path / "set", **SMALL).is_dir()


def test_what_a_killed_process_left_is_not_taken_for_a_data_set(tmp_path):
    (tmp_path / ".set.0123.partial/train2017").mkdir(parents=True)
    root = generate_shapes(tmp_path / "set", num_train=1, num_val=1, image_size=64)
    assert len(list((root / "train2017").iterdir())) == 1


def test_the_slower_of_two_processes_throws_its_work_away(dataset, tmp_path):
    root = tmp_path / "set"

    def overtake(done, total):
        if done == 1:
            generate_shapes(root, **SMALL)

    assert generate_shapes(root, **SMALL, on_progress=overtake) == root
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert file_contents(root) == file_contents(dataset)


def _generate(root: Path) -> None:
    generate_shapes(root, **SMALL)


def test_processes_at_once_make_one_data_set(dataset, tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_generate, args=(tmp_path / "set",)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert file_contents(tmp_path / "set") == file_contents(dataset)


# --- the data set class


def test_the_data_set_class_draws_and_loads(tmp_path):
    from fldet.data.shapes.dataset import ShapesDataset

    loaded = ShapesDataset(
        data_root=str(tmp_path / "set"),
        **SMALL,
        ann_file="annotations/instances_train2017.json",
        data_prefix={"img": "train2017/"},
    )
    assert len(loaded) == SMALL["num_train"]
    assert loaded.metainfo["classes"] == tuple(shape.name for shape in CLASSES)
    assert Path(loaded.get_data_info(0)["img_path"]).is_file()


def test_make_files_draws_without_loading(tmp_path):
    from fldet.data.shapes.dataset import ShapesDataset

    options = SimpleNamespace(data_root=str(tmp_path / "set"), **SMALL, ann_file="x.json")
    ShapesDataset.make_files(vars(options))
    assert (tmp_path / "set/annotations/instances_val2017.json").is_file()
