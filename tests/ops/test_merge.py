"""Objects at every place of a picture in slices, through a network that finds what is to be seen.

It finds exactly the part of an object that a view shows, in one box: whole, cut off on one side or
on several, down to a thin strip at a border.
"""

import itertools

import numpy as np
import pytest

from fldet.data.slicing.views import Views
from fldet.ops.merge import Seen, ious, merge_views

SIZE, OVERLAP = 100, 0.3  # 30 pixels that neighbours share at least


def seen_exactly(objects, labels, picture, views, *, thinnest=1.0, noise=0.0, seed=0):
    """What a network finds that sees everything, with each side off by up to ``noise`` pixels."""
    rng = np.random.default_rng(seed)
    found = []
    for view in views.of(*picture):
        low, high = np.tile(view.region[:2], 2), np.tile(view.region[2:], 2)
        boxes = objects.clip(low, high)
        visible = (boxes[:, 2:] - boxes[:, :2] >= thinnest).all(axis=1)
        boxes = (boxes[visible] + rng.uniform(-noise, noise, boxes[visible].shape)).clip(low, high)
        scores = rng.uniform(0.5, 1.0, len(boxes))
        found.append(Seen(view.region, view.is_slice, boxes, scores, labels[visible]))
    return found


def merged(objects, labels, picture=(310, 270), views=None, **options):
    objects, labels = np.array(objects, float).reshape(-1, 4), np.array(labels, int)
    views = views or Views(SIZE, OVERLAP)
    seen = seen_exactly(objects, labels, picture, views, **options)
    return merge_views(seen, picture, views.tolerance)


def assert_each_once(scenes, picture=(310, 270), **options):
    """Scenes (lists of boxes) of which each has a class of its own, so that one call does all."""
    objects = np.array([box for scene in scenes for box in scene], float)
    labels = np.repeat(np.arange(len(scenes)), [len(scene) for scene in scenes])
    boxes, _, found = merged(objects, labels, picture, **options)
    for label, scene in enumerate(scenes):
        own, wanted = boxes[found == label], np.array(scene, float)
        assert len(own) == len(wanted), (wanted.tolist(), own.tolist())
        best = ious(wanted, own).argmax(axis=1)
        np.testing.assert_allclose(own[best], wanted, atol=1e-4)


def turned(scenes):
    return [[[y1, x1, y2, x2] for x1, y1, x2, y2 in scene] for scene in scenes]


@pytest.mark.parametrize("length", [2, 7, 15, 27, 28, 30, 33, 50, 71, 98, 100, 130, 171, 240, 300])
def test_an_object_of_any_length_at_any_offset_is_one_box(length):
    """Across the seams of columns, of rows, and of both at once, along the diagonal."""
    across = [[[x, 101, x + length, 119]] for x in range(311 - length)]
    assert_each_once(across, (310, 230))
    assert_each_once(turned(across), (230, 310))
    assert_each_once([[[x, x, x + length, x + length]] for x in range(311 - length)], (310, 310))


@pytest.mark.parametrize("whole", [False, True])
def test_a_strip_that_is_not_seen_changes_nothing(whole):
    """Eight pixels wide, which a network overlooks."""
    lengths = [10, 29, 31, 60, 100, 125]
    scenes = [[[x, 40, x + n, 75]] for x, n in itertools.product(range(0, 180, 3), lengths)]
    assert_each_once(scenes, views=Views(SIZE, OVERLAP, whole=whole), thinnest=8.0)


@pytest.mark.parametrize("whole", [False, True])
def test_neighbours_that_touch_stay_two(whole):
    """Beside each other and above each other, of all lengths; the seam of the two anywhere."""
    views = Views(SIZE, OVERLAP, whole=whole)
    lengths = [6, 29, 31, 45, 110]
    places = [*itertools.product(lengths, lengths, range(112, 200, 11))]
    beside = [[[x - n, 50, x, 90], [x, 50, x + m, 90]] for n, m, x in places]
    assert_each_once(beside, views=views)
    assert_each_once(turned(beside), (270, 310), views=views)
    assert_each_once([[[x - n, 40, x, 60], [x - n, 60, x, 80]] for n, _, x in places], views=views)


def test_neighbours_that_overlap_stay_two():
    """So little that a network leaves both."""
    places = itertools.product(range(60, 200), [14, 22, 40])
    assert_each_once([[[x, 40, x + 40, 80], [x + s, 48, x + s + 40, 88]] for x, s in places])


def test_a_small_object_before_a_large_one_stays():
    places = itertools.product(range(30, 150, 9), range(30, 120, 9))
    assert_each_once([[[20, 25, 200, 150], [x, y, x + 20, y + 20]] for x, y in places])


@pytest.mark.parametrize("looks", [{}, {"whole": True}, {"flip": True, "scales": (1.5,)}])
def test_crowded_pictures(looks):
    """Boxes of random sizes, hardly overlapping: in the shape of the scene that they are in."""
    rng = np.random.default_rng(0)
    scenes = []
    while len(scenes) < 12:
        scene = np.zeros((0, 4))
        while len(scene) < 25:
            wide, high = np.exp(rng.uniform(np.log(4), np.log(150), 2))
            x, y = rng.uniform(0, 400 - wide), rng.uniform(0, 380 - high)
            box = np.array([[x, y, x + wide, y + high]])
            if not len(scene) or ious(box, scene).max() < 0.05:
                scene = np.concatenate([scene, box])
        scenes.append(scene)
    assert_each_once(scenes, (400, 380), views=Views(SIZE, OVERLAP, **looks))


@pytest.mark.parametrize(("agnostic", "expected"), [(False, [1, 0, 1]), (True, [1, 1])])
def test_boxes_suppress_those_of_other_classes_where_asked_for(agnostic, expected):
    """The second box overlaps the first with an IoU of 0.9, the third with one of 0.33."""
    boxes = np.array([[0, 0, 10, 20], [0, 1, 10, 19], [5, 0, 15, 20]], float)
    one = Seen((0, 0, 50, 50), False, boxes, np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1]))
    found, scores, labels = merge_views([one], (50, 50), agnostic=agnostic)
    assert labels.tolist() == expected
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert len(found) == len(expected)
