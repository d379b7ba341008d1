"""Counts of a data set against what is known of it, and what the pictures show."""

import json
import math

import cv2
import numpy as np
import pytest

from fldet.analysis.dataset.pictures import contact_sheet, cover_sheet, plot_summary
from fldet.analysis.dataset.summary import Histogram, summarize_content
from fldet.anchors.cover import SeenImage
from fldet.data.annotations import read_annotations
from fldet.errors import DataError
from fldet.pictures.colors import color_of
from fldet.results import to_jsonable

BLUE = (178, 114, 0)  # of the bars, in BGR


def summarize_file(path, image_dir=None):
    return summarize_content(read_annotations(path), path.name, image_dir)


def write(tmp_path, annotations, *, images=None, categories=("cat", "dog")):
    images = images or [{"id": 1, "file_name": "1.jpg", "width": 200, "height": 100}]
    content = {
        "images": images,
        "categories": [{"id": 10 * i, "name": n} for i, n in enumerate(categories, start=1)],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 10, **one}
            for i, one in enumerate(annotations, start=1)
        ],
    }
    path = tmp_path / "data.json"
    path.write_text(json.dumps(content))
    return path


# The tables in the README of the test data.
KNOWN = [
    ("coco_mini", "annotations/instances_train2017.json", 87, 1, 834, 7, (362, 315, 157), 51),
    ("coco_mini", "annotations/instances_val2017.json", 82, 2, 804, 11, (337, 297, 170), 44),
    ("bccd", "annotations/train.json", 205, 0, 2804, 0, (23, 855, 1926), 28),
]


@pytest.mark.parametrize(
    ("name", "file", "images", "empty", "boxes", "crowd", "sizes", "most"), KNOWN
)
def test_counts_of_known_data(request, name, file, images, empty, boxes, crowd, sizes, most):
    summary = summarize_file(request.getfixturevalue(name) / file)
    assert (summary.images, summary.images_without_objects) == (images, empty)
    assert (summary.boxes, summary.crowd_regions) == (boxes, crowd)
    assert tuple(summary.boxes_per_size.values()) == sizes
    assert summary.boxes_per_image["max"] == most
    assert sum(summary.boxes_per_class.values()) == boxes
    assert summary.suspicious == {}


def test_classes_and_image_sizes_of_bccd(bccd):
    summary = summarize_file(bccd / "annotations" / "val.json", bccd / "BCCD" / "JPEGImages")
    assert summary.boxes_per_class == {"RBC": 967, "WBC": 87, "Platelets": 83}
    assert (summary.image_width, summary.image_height) == ((640, 640), (480, 480))
    assert summary.suspicious == {}


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("unknown_category_id.json", "unknown category"),
        ("bbox_negative_width.json", "box of negative size"),
        ("bbox_outside_image.json", "box outside the image"),
        ("bbox_zero_area.json", "box of zero size"),
        ("bbox_nan.json", "box not finite"),
    ],
)
def test_boxes_that_cannot_be_used_are_listed_and_not_counted(bad_inputs, file, kind):
    folder = bad_inputs / "annotations"
    summary, good = summarize_file(folder / file), summarize_file(folder / "ok.json")
    assert summary.suspicious == {kind: 1}
    assert summary.boxes == good.boxes - 1
    assert summary.examples[0].kind == kind
    assert summary.examples[0].annotation_id in (2, 4)
    assert good.suspicious == {}


@pytest.mark.parametrize(
    ("box", "kind", "counted"),
    [
        ([150, 0, 60, 20], "box partly outside the image", 1),
        ([150, 0, 50.9, 20], "", 1),  # within what files round
        ([-5, 0, 60, 20], "box partly outside the image", 1),
        ([10, 10, 0.5, 20], "box thinner than a pixel", 1),
        ([200, 10, 5, 5], "box outside the image", 0),
        ([1, 2, 3], "no box of four numbers", 0),
        (None, "no box of four numbers", 0),
        (["a", 2, 3, 4], "no box of four numbers", 0),
    ],
)
def test_kinds_of_suspicious_boxes(tmp_path, box, kind, counted):
    summary = summarize_file(write(tmp_path, [{"bbox": box}]))
    assert summary.suspicious == ({kind: 1} if kind else {})
    assert summary.boxes == counted


def test_suspicious_images(bad_inputs):
    folder, images = bad_inputs / "annotations", bad_inputs / "images"
    assert summarize_file(folder / "image_file_missing.json", images).suspicious == {
        "image file missing": 1
    }
    assert summarize_file(folder / "image_file_missing.json").suspicious == {}
    twice = summarize_file(folder / "duplicate_image_ids.json").suspicious
    assert twice.pop("image id given twice") == 1
    assert set(twice) == {"unknown image"}


def test_at_most_20_examples(tmp_path):
    summary = summarize_file(write(tmp_path, [{"bbox": [0, 0, 0, 1]}] * 30))
    assert summary.suspicious == {"box of zero size": 30}
    assert [one.annotation_id for one in summary.examples] == list(range(1, 21))


def test_crowd_regions_are_no_boxes_but_objects(tmp_path):
    summary = summarize_file(write(tmp_path, [{"bbox": [0, 0, 50, 50], "iscrowd": 1}]))
    assert (summary.boxes, summary.crowd_regions, summary.images_without_objects) == (0, 1, 0)


@pytest.mark.parametrize(
    ("entry", "size"),
    [
        ({"bbox": [0, 0, 31.9, 32]}, "small"),
        ({"bbox": [0, 0, 32, 32]}, "medium"),
        ({"bbox": [0, 0, 96, 96]}, "large"),
        ({"bbox": [0, 0, 96, 96], "area": 500}, "small"),  # of the mask
        ({"bbox": [0, 0, 96, 96], "area": None}, "large"),
        ({"bbox": [0, 0, 96, 96], "area": math.nan}, "large"),
    ],
)
def test_sizes_follow_coco(tmp_path, entry, size):
    counts = summarize_file(write(tmp_path, [entry])).boxes_per_size
    assert counts == {"small": 0, "medium": 0, "large": 0, size: 1}


def test_quantiles_and_histograms(tmp_path):
    boxes = [[0, 0, 10, 10], [0, 0, 20, 10], [0, 0, 40, 10]]
    summary = summarize_file(write(tmp_path, [{"bbox": box} for box in boxes]))
    assert summary.aspect_ratio["min"] == 1
    assert summary.aspect_ratio["median"] == 2
    assert summary.aspect_ratio["max"] == 4
    assert summary.boxes_per_image["median"] == 3
    for histogram in summary.histograms.values():
        assert len(histogram.edges) == len(histogram.counts) + 1
    edges, counts = (
        np.array(getattr(summary.histograms["aspect_ratio"], key)) for key in ("edges", "counts")
    )
    for ratio in (1, 2, 4):  # a value on an edge belongs to the bin above
        assert counts[np.isclose(edges[:-1], ratio)] == 1
    assert sum(summary.histograms["boxes_per_image"].counts) == 1


def test_histograms_hold_every_box(coco_mini):
    summary = summarize_file(coco_mini / "annotations" / "instances_train2017.json")
    histogram = summary.histograms["sqrt_area"]
    assert sum(histogram.counts) == sum(summary.histograms["aspect_ratio"].counts) == 834
    assert sum(summary.histograms["boxes_per_image"].counts) == 87
    edges = np.array(histogram.edges)
    at_32, at_96 = np.flatnonzero(np.isclose(edges, 32)), np.flatnonzero(np.isclose(edges, 96))
    assert sum(histogram.counts[: at_32[0]]) == summary.boxes_per_size["small"]
    assert sum(histogram.counts[at_96[0] :]) == summary.boxes_per_size["large"]


def test_without_annotations(bad_inputs, tmp_path):
    summary = summarize_file(bad_inputs / "annotations" / "no_annotations_at_all.json")
    assert (summary.images, summary.images_without_objects, summary.boxes) == (2, 2, 0)
    assert all(math.isnan(value) for value in summary.aspect_ratio.values())
    assert summary.histograms["sqrt_area"] == Histogram()
    assert plot_summary(summary, tmp_path / "a.png").stat().st_size > 5000
    assert "none" in str(summary)


@pytest.mark.parametrize("name", ["$\\frac$", "a$", "箱子", "x" * 200])
def test_a_class_may_have_any_name(tmp_path, name):
    path = tmp_path / "$a^$ 箱.json"
    image = {"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": name}]}
    path.write_text(json.dumps(content))
    assert plot_summary(summarize_file(path), tmp_path / "a.png").stat().st_size > 5000


def test_without_images(tmp_path):
    path = tmp_path / "data.json"
    path.write_text('{"images": [], "annotations": [], "categories": []}')
    summary = summarize_file(path)
    assert (summary.images, summary.image_width) == (0, None)
    plot_summary(summary, tmp_path / "a.png")
    with pytest.raises(DataError, match=r"no image of .* can be read"):
        contact_sheet(read_annotations(path), tmp_path, tmp_path / "b.jpg", name="b")


def test_missing_keys_are_filled_in_where_possible(bad_inputs):
    folder, images = bad_inputs / "annotations", bad_inputs / "images"
    full = summarize_file(folder / "ok.json")
    no_area = summarize_file(folder / "no_area_no_iscrowd.json")
    assert no_area.boxes_per_size == full.boxes_per_size
    assert no_area.crowd_regions == 0
    assert summarize_file(folder / "no_width_height.json").image_width is None
    assert summarize_file(folder / "no_width_height.json", images).image_width == full.image_width


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "annotation file not found: .*data.json"),
        ("{", "data.json is not JSON"),
        ("[]", "no list 'images'"),
        ('{"images": [], "annotations": []}', "no list 'categories'"),
        ('{"images": [{}], "annotations": [], "categories": []}', r"images\[0\] has no 'id'"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1}]}',
            r"categories\[0\] has no 'name'",
        ),
    ],
)
def test_files_that_are_not_coco(tmp_path, text, message):
    path = tmp_path / "data.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        summarize_file(path)


def test_summary_as_text_and_json(bccd):
    summary = summarize_file(bccd / "annotations" / "val.json")
    text = str(summary)
    assert "87, 0 without objects" in text
    assert "RBC 967, WBC 87, Platelets 83" in text
    assert max(map(len, text.splitlines())) <= 100
    assert json.loads(json.dumps(to_jsonable(summary)))["boxes_per_size"]["small"] == 9


# --- pictures ------------------------------------------------------------------------------------


def blue_runs(line):
    """Number of stretches of the bars' colour in a row or column of pixels."""
    blue = (np.abs(line.astype(int) - BLUE).max(axis=1) < 20).astype(int)
    return int((np.diff(np.concatenate([[0], blue])) == 1).sum())


def left_part(picture):
    return picture[:, : picture.shape[1] // 2]


@pytest.mark.parametrize(
    ("name", "file", "bars"),
    [
        ("bccd", "annotations/val.json", 3),
        ("coco_mini", "annotations/instances_val2017.json", 30),  # first 20 and last 10 of 80
    ],
)
def test_plot_has_a_bar_for_each_class(request, tmp_path, name, file, bars):
    summary = summarize_file(request.getfixturevalue(name) / file)
    picture = cv2.imread(str(plot_summary(summary, tmp_path / "new" / "a.png")))
    assert picture.shape == (900, 1400, 3)
    assert max(blue_runs(column) for column in left_part(picture).transpose(1, 0, 2)) == bars


def test_plot_without_data_has_no_bars(bad_inputs, tmp_path):
    summary = summarize_file(bad_inputs / "annotations" / "no_annotations_at_all.json")
    picture = cv2.imread(str(plot_summary(summary, tmp_path / "a.png")))
    assert all(blue_runs(row) == 0 for row in left_part(picture))


def test_contact_sheet_shows_boxes_and_is_repeatable(bccd, tmp_path):
    ann_file, images = bccd / "annotations" / "train.json", bccd / "BCCD" / "JPEGImages"
    sheets = [
        contact_sheet(
            read_annotations(ann_file), images, tmp_path / f"{index}.png", name="bccd", seed=seed
        ).read_bytes()
        for index, seed in enumerate((0, 0, 1))
    ]
    assert sheets[0] == sheets[1] != sheets[2]
    sheet = cv2.imread(str(tmp_path / "0.png"))
    assert sheet.shape[1] == 4 * 650
    assert 4 * 480 < sheet.shape[0] < 4 * 540 + 60
    sheet = sheet[-4 * (sheet.shape[0] // 4 - 10) :]  # without the title
    drawn = sum((sheet == color_of(label)).all(axis=2) for label in range(3))
    for row in range(4):
        for column in range(4):
            cell = drawn[row * sheet.shape[0] // 4 :, column * 650 :]
            assert cell[: sheet.shape[0] // 4, :640].sum() > 100


def test_contact_sheet_of_pictures_of_all_shapes_has_no_gaps(tmp_path):
    shapes = [(100, 200), (300, 100), (100, 100), (90, 400), (200, 100), (100, 150), (100, 110)]
    for i, shape in enumerate(shapes):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((*shape, 3), 90, np.uint8))
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(len(shapes))]
    content = {"images": images, "annotations": [], "categories": []}
    sheet = cv2.imread(str(contact_sheet(content, tmp_path, tmp_path / "sheet.png", name="x")))
    assert (sheet == 225).all(axis=2).mean() < 0.1


def test_contact_sheet_draws_a_box_where_it_is(tmp_path):
    cv2.imwrite(str(tmp_path / "1.jpg"), np.full((100, 200, 3), 90, np.uint8))
    path = write(tmp_path, [{"bbox": [50, 25, 100, 50]}, {"bbox": [0, math.nan, 1, 1]}])
    sheet = cv2.imread(
        str(contact_sheet(read_annotations(path), tmp_path, tmp_path / "sheet.png", name="1"))
    )
    picture = sheet[-490:-10, :960]  # 4.8 times as large, without the title and the edge
    orange = (picture == (0, 159, 230)).all(axis=2)
    assert orange[360, 260:700].all()
    assert not orange[368:].any()


def test_contact_sheet_passes_over_what_cannot_be_read(bad_inputs, tmp_path):
    ann_file = bad_inputs / "annotations" / "all_images.json"
    path = contact_sheet(
        read_annotations(ann_file),
        bad_inputs / "images",
        tmp_path / "sheet.jpg",
        name="bad",
        count=4,
    )
    sheet = cv2.imread(str(path))
    assert 2 * 480 < sheet.shape[0] < 2 * 540 + 60  # two rows
    with pytest.raises(DataError, match="no image of"):
        contact_sheet(read_annotations(ann_file), tmp_path, tmp_path / "sheet.jpg", name="bad")


def test_cover_sheet_colours_boxes_by_their_best_anchor(tmp_path):
    seen = SeenImage(
        name="1.jpg",
        image=np.full((320, 640, 3), 90, np.uint8),
        boxes=np.array([[50, 150, 150, 250], [250, 150, 350, 250], [450, 150, 550, 250]], float),
        labels=np.array([0, 1, 0]),
        crowd=np.array([False, False, True]),
        best_iou=np.array([0.5, 0.49, 0.1]),
    )
    path = cover_sheet([seen], ("cat", "dog"), 0.5, tmp_path / "sheet.png", name="x")
    picture = cv2.imread(str(path))[-490:-10, :960]
    left, middle, right = ((0, 300), (300, 600), (600, 900))
    for (start, end), color in ((left, BLUE), (middle, (0, 94, 213)), (right, (233, 180, 86))):
        found = [
            (picture[:, start:end] == other).all(axis=2).sum()
            for other in (color, *({BLUE, (0, 94, 213), (233, 180, 86)} - {color}))
        ]
        assert found[0] > 300
        assert found[1:] == [0, 0]
