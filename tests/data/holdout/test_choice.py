"""What is set aside: the share, whatever the order; whole groups; classes on both sides."""

import random

import pytest

from fldet.data.holdout.choice import choose
from fldet.errors import DataError


def data(count=100, seed=0):
    """Names with groups of one to three, and one to three of five classes, one of them rare."""
    rng = random.Random(seed)
    groups, classes = {}, {}
    for index in range(count):
        name = f"{index:04}.jpg"
        groups[name] = index if rng.random() < 0.8 or index < 2 else index - rng.randint(1, 2)
        classes[name] = set(rng.sample("abcd", rng.randint(1, 3)))
    for name in ("0010.jpg", "0050.jpg"):
        classes[name].add("rare")
    return groups, classes


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_share_groups_and_classes(share, seed):
    groups, classes = data(seed=seed)
    groups["0010.jpg"], groups["0050.jpg"] = "one", "two"
    chosen = set(choose(groups, classes, share).names)
    assert abs(len(chosen) - share * 100) <= 2
    assert not {groups[name] for name in chosen} & {groups[name] for name in groups.keys() - chosen}
    for side in (chosen, groups.keys() - chosen):
        assert set().union(*(classes[name] for name in side)) == {*"abcd", "rare"}


def test_order_does_not_matter_and_one_more_image_moves_few():
    groups, classes = data(400)
    names = [*groups]
    random.Random(1).shuffle(names)
    before = choose(groups, classes, 0.2)
    assert choose({name: groups[name] for name in names}, classes, 0.2) == before
    for index in range(20):
        more = f"new{index}.jpg"
        after = choose({**groups, more: more}, {**classes, more: {"a", "b"}}, 0.2)
        assert len(set(before.names) ^ set(after.names)) <= 4


def test_a_class_of_one_group_is_trained_and_a_large_group_stays():
    groups = {f"{i}": i for i in range(10)} | {f"film{i}": "film" for i in range(30)}
    classes = {name: {"a"} for name in groups} | {"3": {"a", "only"}}
    chosen = choose(groups, classes, 0.2)
    assert 0 < len(chosen.names) <= 9
    assert "3" not in chosen.names
    assert not any(name.startswith("film") for name in chosen.names)
    assert chosen.not_on_both_sides == ()


def test_a_class_that_cannot_be_on_both_sides_is_named():
    """Of x each image is the only one of another class too."""
    groups = {name: name for name in "12345678"}
    classes = {name: {"a"} for name in "345678"} | {"1": {"x", "y"}, "2": {"x", "z"}}
    chosen = choose(groups, classes, 0.25)
    assert chosen.not_on_both_sides == ("x",)
    assert len(chosen.names) == 2
    assert not {"1", "2"} & set(chosen.names)


def test_images_that_stay():
    groups, classes = data()
    stay = set(choose(groups, classes, 0.2).names[:10])
    chosen = set(choose(groups, classes, 0.2, stay=stay).names)
    assert not stay & chosen
    assert abs(len(chosen) - 20) <= 1


@pytest.mark.parametrize(
    ("groups", "stay", "reason"),
    [
        ({"a": 0, "b": 0, "c": 0}, (), "all images are near copies of one another"),
        ({"a": 0}, (), "all images are near copies"),
        ({"a": 0, "b": 1, "c": 2}, ("a", "b", "c"), "none of the images can be read"),
        ({"a": 0, "b": 0, "c": 1, "d": 1, "e": 1}, ("a",), "too few or too alike.* largest of 3"),
    ],
)
def test_what_cannot_be_divided(groups, stay, reason):
    with pytest.raises(DataError, match=reason):
        choose(groups, {name: {"x"} for name in groups}, 0.2, stay=set(stay))


def test_images_without_boxes_alone_are_not_set_aside():
    with pytest.raises(DataError, match="too few or too alike"):
        choose({name: name for name in "abcdef"}, {"a": {"x"}}, 0.5)
