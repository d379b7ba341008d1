"""Tags of boxes: where they lie, how large they are, and which are left out."""

import numpy as np
import pytest

from fldet.pictures.colors import PALETTE
from fldet.pictures.tags import Tag, _placed, draw_tags

GREY = 100


def plain(height=600, width=800):
    return np.full((height, width, 3), GREY, np.uint8)


def tags_of(boxes, text="person 0.87", color=PALETTE[0]):
    return [Tag(tuple(box), text, color) for box in boxes]


def grid(side, step, count=100):
    """Boxes of a side in rows of ten."""
    corners = [(20 + step * (i % 10), 20 + step * (i // 10)) for i in range(count)]
    return [(x, y, x + side, y + side) for x, y in corners]


def heights(placed):
    return [one.place[3] - one.place[1] for one in placed]


def test_a_tag_lies_above_its_box_and_lets_the_picture_through():
    image = plain()
    image[::2] = 200
    draw_tags(image, tags_of([(100, 100, 300, 300)]), 16)
    (placed,) = _placed(plain(), tags_of([(100, 100, 300, 300)]), 16)
    x1, y1, x2, y2 = placed.place
    assert (x1, y2) == (100, 100)
    tag = image[y1:y2, x1:x2]
    assert not (tag == GREY).all(axis=2).any()
    edge = tag[:, 0].astype(int)  # without letters: the stripes are still seen
    assert (np.abs(np.diff(edge[:, 0])) > 20).all()


def test_tags_shrink_with_their_boxes_and_with_the_number_of_boxes():
    small, large = _placed(plain(), tags_of([(50, 300, 90, 340), (300, 300, 600, 590)]), 30)
    assert small.size < large.size == 30
    sizes = [_placed(plain(), tags_of([(300, 300, 600, 590)] * n), 30)[0].size for n in (20, 400)]
    assert sizes[0] == 30
    assert 10 <= sizes[1] < 20


def test_in_a_crowd_of_small_boxes_tags_are_left_out_and_hide_no_objects():
    boxes = grid(12, 20)
    placed = _placed(plain(240, 240), tags_of(boxes), 12)
    hidden = []
    for one in placed[1:]:  # the first one has its tag always
        x1, y1, x2, y2 = one.place
        for a, b, c, d in boxes:
            shared = max(0, min(x2, c) - max(x1, a)) * max(0, min(y2, d) - max(y1, b))
            hidden.append(shared / 144)
    assert len(placed) < 20
    assert max(hidden, default=0) <= 0.6


def test_all_tags_are_there_where_there_is_room():
    placed = _placed(plain(1400, 1400), tags_of(grid(60, 130)), 20)
    assert len(placed) == 100


def test_all_tags_together_cover_a_fifth_of_a_picture_at_most():
    boxes = grid(30, 90)
    placed = _placed(plain(1000, 1000), tags_of(boxes, "a name of many letters 0.50"), 12)
    areas = [(one.place[2] - one.place[0]) * (one.place[3] - one.place[1]) for one in placed]
    assert 0.1e6 < sum(areas) <= 0.2e6


def test_the_best_of_each_class_has_its_tag_always():
    boxes = grid(8, 9)
    tags = [Tag(box, f"class {i % 5}", PALETTE[i % 5]) for i, box in enumerate(boxes)]
    texts = [one.tag.text for one in _placed(plain(100, 100), tags, 12)]
    assert {f"class {i}" for i in range(5)} <= set(texts)
    assert len(texts) < 20


@pytest.mark.parametrize("size", [(1, 1), (5, 900), (900, 5), (64, 64)])
def test_pictures_of_any_size(size):
    image = plain(*size)
    draw_tags(image, tags_of([(0, 0, size[1] - 1, size[0] - 1)] * 3), 20)
    assert image.shape == (*size, 3)
    draw_tags(image, [], 20)
