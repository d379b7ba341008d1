"""Boxes on pictures: where colour is, where it is not, and how large the picture gets."""

import numpy as np
import pytest

from fldet.pictures.boxes import (
    DrawOptions,
    add_title,
    draw_boxes,
    draw_tagged_boxes,
    enlarge,
    side_by_side,
)
from fldet.pictures.colors import PALETTE, color_of

NAMES = ("cat", "dog")
GREY = 100


def plain(height=600, width=800):
    return np.full((height, width, 3), GREY, np.uint8)


def painted(picture, background=GREY):
    """(H, W) truth values: pixels that are no background."""
    return (picture != background).any(axis=2)


def extent(mask):
    ys, xs = np.nonzero(mask)
    return xs.min(), ys.min(), xs.max(), ys.max()


def is_color(picture, color):
    return (picture == np.array(color, np.uint8)).all(axis=2)


def test_a_box_is_an_outline_in_its_colour_where_it_was_asked_for():
    picture = draw_boxes(plain(), [[200, 150, 500, 400]], [1], NAMES)
    outline = is_color(picture, color_of(1))
    assert picture.shape == (600, 800, 3)
    for x, y in [(350, 400), (200, 300), (500, 300), (450, 150)]:  # the four sides
        assert outline[y, x]
    assert not painted(picture)[170:390, 210:490].any()  # the inside
    assert not painted(picture)[:, 510:].any()
    assert not painted(picture)[410:].any()


def test_the_image_that_is_passed_stays_as_it_is():
    image = plain()
    draw_boxes(image, [[200, 150, 500, 400]], [0], NAMES, crowd=[1], title="x")
    assert not painted(image).any()


def test_no_boxes_give_the_image():
    assert (draw_boxes(plain(), [], [], NAMES) == plain()).all()
    assert (draw_boxes(plain(), np.zeros((0, 4)), [], (), scores=[], crowd=[]) == plain()).all()


def dark(picture):
    return (picture < 70).all(axis=2)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((120, 160), (360, 480)),  # enlarged until the longer side is readable
        ((160, 120), (480, 360)),
        ((1, 1), (480, 480)),
        ((40, 3000), (40, 3000)),  # large enough
        ((480, 200), (480, 200)),
        ((2000, 1500), (2000, 1500)),
    ],
)
def test_sizes(shape, expected):
    picture = draw_boxes(plain(*shape), [], [], NAMES)
    assert picture.shape == (*expected, 3)


def test_boxes_grow_with_an_enlarged_image():
    picture = draw_boxes(plain(120, 160), [[40, 60, 120, 100]], [0], NAMES)
    assert is_color(picture, color_of(0))[300, 240]  # the foot: y = 100 * 3
    assert extent(painted(picture)[210:])[::2] == pytest.approx((120, 360), abs=2)
    assert enlarge(plain(120, 160))[1] == 3.0


def test_lines_are_thicker_in_larger_pictures():
    def thickness(side):
        box = [[side * 0.2, side * 0.5, side * 0.8, side * 0.9]]
        column = painted(draw_boxes(plain(side, side), box, [0], NAMES))[
            int(side * 0.7) :, side // 2
        ]
        return int(column.sum())

    assert 1 <= thickness(480) < thickness(1600) <= 10


@pytest.mark.parametrize(
    "box",
    [(-50, -50, 30, 30), (780, 580, 900, 700), (0, 580, 20, 600), (760, 0, 800, 9)],
    ids=["top left", "bottom right", "foot", "thin at the top"],
)
def test_tags_stay_inside_the_picture(box):
    # A tag that left the picture would be cut: compare its ink with that of one in the middle.
    free = draw_boxes(plain(), [[300, 300, 301, 301]], [0], ["hippopotamus"])
    picture = draw_boxes(plain(), [box], [0], ["hippopotamus"])
    assert dark(picture).sum() >= 0.97 * dark(free).sum() > 100


def test_tags_of_close_boxes_keep_off_each_other():
    boxes = [[300, 300, 420, 420], [303, 303, 423, 423], [306, 306, 426, 426]]
    apart = [[100, 100, 220, 220], [400, 100, 520, 220], [100, 400, 220, 520]]

    def ink(where):  # of the letters: covered ones are lost
        return dark(draw_boxes(plain(), where, [0, 0, 0], ["elephant"])).sum()

    assert ink(boxes) >= 0.95 * ink(apart) > 100


def test_the_best_score_is_on_top():
    boxes = [[300, 300, 420, 420]] * 9  # more than there are places
    labels = [1, 0, 0, 0, 0, 0, 0, 0, 0]
    scores = [0.9, *[0.5] * 8]
    alone = draw_boxes(plain(), boxes[:1], [1], NAMES, scores=[0.9])
    picture = draw_boxes(plain(), boxes, labels, NAMES, scores=scores)
    tag = slice(0, 299), slice(0, 800)  # above the box; other tags may cover its lines
    assert painted(alone)[tag].sum() > 500
    # it is half transparent: the lines of the others show through its foot
    assert (picture[tag] == alone[tag])[painted(alone)[tag]].mean() > 0.95


def test_scores_lengthen_the_tag():
    def width(**more):
        picture = draw_boxes(plain(), [[300, 300, 310, 310]], [0], NAMES, **more)
        left, _, right, _ = extent(painted(picture))
        return right - left

    assert width(scores=[0.5]) > width() + 20
    assert width(crowd=[True]) > width() + 20
    assert width(crowd=[False]) == width()


def test_crowd_regions_are_dashed_and_hatched():
    box = [[200, 200, 500, 400]]
    foot = slice(385, 415), slice(250, 500)
    solid = is_color(draw_boxes(plain(), box, [0], NAMES), color_of(0))
    dashed = draw_boxes(plain(), box, [0], NAMES, crowd=[True])
    row = is_color(dashed, color_of(0))[400, 250:500]
    assert solid[400, 250:500].all()
    assert 0.3 < row.mean() < 0.7
    assert np.abs(np.diff(row.astype(int))).sum() > 10  # many dashes
    inside = painted(dashed)[220:380, 220:480]
    assert 0.02 < inside.mean() < 0.4
    assert solid[foot].any()


@pytest.mark.parametrize(
    "box", [(900, 0, 950, 50), (0, -90, 50, -10), (0, np.nan, 5, 5), (0, 0, np.inf, 5)]
)
def test_boxes_outside_or_not_finite_are_left_out(box):
    assert not painted(draw_boxes(plain(), [box], [0], NAMES)).any()


def test_a_label_without_a_name_shows_its_number():
    a = draw_boxes(plain(), [[300, 300, 400, 400]], [7], NAMES)
    b = draw_boxes(plain(), [[300, 300, 400, 400]], [7], ["7"] * 8)
    assert (a == b).all()


def test_lines_of_small_boxes_are_thin_and_a_width_is_obeyed():
    def thickness(side, **more):
        box = [[100, 100, 100 + side, 100 + side]]
        options = DrawOptions(hide_labels=True, **more)
        picture = draw_boxes(plain(1600, 1600), box, [0], NAMES, options=options)
        return int(painted(picture)[100 + side // 2, : 100 + side // 2].sum())

    assert thickness(16) == 1 < thickness(400)
    assert 5 <= thickness(16, line_width=5) == thickness(400, line_width=5) <= 7


def test_names_and_scores_can_be_left_out():
    def drawn(**options):
        box, options = [[300, 300, 400, 400]], DrawOptions(**options)
        return draw_boxes(plain(), box, [0], NAMES, scores=[0.5], options=options)

    name = draw_boxes(plain(), [[300, 300, 400, 400]], [0], NAMES)
    bare = draw_boxes(plain(), [[300, 300, 400, 400]], [0], [""])
    assert (drawn(hide_scores=True) == name).all()
    assert (drawn(hide_labels=True, hide_scores=True) == bare).all()
    assert painted(bare).sum() < painted(drawn(hide_labels=True)).sum() < painted(drawn()).sum()


def test_a_small_image_can_keep_its_size():
    picture = draw_boxes(plain(40, 60), [[10, 20, 30, 39]], [0], [""], smallest=1)
    assert picture.shape == (40, 60, 3)
    assert extent(painted(picture)) == (10, 20, 30, 39)


def test_tagged_boxes_have_the_colours_and_texts_that_are_named():
    boxes = [[100, 150, 300, 300], [400, 150, 700, 300]]
    picture = draw_tagged_boxes(plain(), boxes, ["miss", ""], [4, 2], [False, True])
    assert is_color(picture, PALETTE[4])[200, 100]
    assert is_color(picture, PALETTE[2])[150, 400:700].any()
    assert painted(picture)[:145, :350].any()
    assert not painted(picture)[:145, 350:].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((plain()[:, :, 0], [], [], NAMES), r"expected an \(H, W, 3\) uint8 image"),
        ((plain().astype(float), [], [], NAMES), "float64"),
        ((plain(), [[0, 0, 1, 1]], [], NAMES), "expected 1 labels.* got 0"),
    ],
)
def test_wrong_shapes(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_boxes(*arguments)


def test_a_score_for_each_box():
    with pytest.raises(ValueError, match="expected 2 scores, one for each box, got 1"):
        draw_boxes(plain(), [[0, 0, 1, 1]] * 2, [0, 0], NAMES, scores=[0.5])


def test_title_is_a_strip_above_with_black_text():
    picture = add_title(plain(), "hello")
    strip, rest = picture[:-600], picture[-600:]
    assert (rest == plain()).all()
    assert 15 < len(strip) < 60
    assert dark(strip).sum() > 50
    assert is_color(strip, (255, 255, 255)).mean() > 0.9


def test_title_wider_than_the_image_is_not_cut():
    picture = add_title(plain(480, 30), "prediction (score >= 0.30)")
    assert picture.shape[1] > 150
    assert is_color(picture[:, -4:], (255, 255, 255)).all()
    assert (picture[-480:, :30] == GREY).all()


def test_side_by_side_puts_the_prediction_left():
    left, right = plain(), np.full((600, 800, 3), 50, np.uint8)
    picture = side_by_side(left, right, captions=("a", "b"))
    assert (picture[-600:, :800] == GREY).all()
    assert (picture[-600:, -800:] == 50).all()
    between = picture[:, 800:-800]
    assert 0 < between.shape[1] < 20
    assert (between == 255).all()


def test_side_by_side_of_different_heights():
    picture = side_by_side(plain(600, 700), plain(500, 700))
    lower = picture[-50:, -700:]
    assert (lower == 255).all()


NASTY_NAMES = [
    *(
        "箱子",
        "桌子",
        "Müller",
        "Muller",
        "кошка",
        "عربي",
        "हिन्दी",
        "\ud800",
        "\udcff",
        "???",
        "??",
    ),
    *("a\x1b[31m", "a\n", "a\u202e", "a", "x" * 500, "x" * 501, "箱" * 500, "⟨7BB1⟩⟨5B50⟩"),
]


def test_two_names_are_drawn_as_two_and_none_ends_the_process():
    drawn = {
        draw_boxes(plain(), [[50, 80, 500, 400]], [0], [name], scores=[0.5]).tobytes()
        for name in NASTY_NAMES
    }
    titles = {add_title(plain(), name).tobytes() for name in NASTY_NAMES}
    assert len(drawn) == len(titles) == len(NASTY_NAMES)


@pytest.mark.parametrize("size", [(1, 1), (3, 3000), (40, 40), (900, 1200)])
@pytest.mark.parametrize("name", ["箱子", "я" * 300])
def test_text_in_fonts_stays_in_its_tag_in_a_picture_of_any_size(size, name):
    white = np.full((*size, 3), 255, np.uint8)
    picture = draw_boxes(white, [[0, 0, size[1], size[0]]] * 3, [0, 1, 5], [name] * 6)
    width = add_title(white, name).shape[1]
    assert picture.shape[2] == 3
    assert width < 5000


def test_text_in_a_font_has_the_ink_and_the_place_of_other_text():
    pictures = [
        draw_boxes(plain(), [[100, 100, 700, 500]], [4], [name]) for name in ("gaze", "gazé")
    ]
    for picture in pictures:
        x1, y1, _, y2 = extent(painted(picture))
        assert (x1, y2) == (99, 501)
        assert 70 <= y1 <= 90  # the tag lies on the box
        assert (picture[y1:99, 99:300] > 180).all(axis=2).sum() > 20
