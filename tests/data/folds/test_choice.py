"""Which fold an image is in: groups whole, sizes alike, classes balanced, whatever the order."""

import random
from collections import Counter

import pytest

from fldet.data.folds.choice import choose_folds
from fldet.errors import DataError


def data(count=203, seed=0):
    """Names in groups of one to three, with boxes of three classes, one of them rare."""
    rng = random.Random(seed)
    groups = {f"{i:04}.jpg": i - rng.choice([0, 0, 0, 1, 2]) for i in range(count)}
    boxes = {name: Counter(common=rng.randint(0, 20)) for name in groups}
    for name in rng.sample(sorted(groups), count // 3):
        boxes[name]["other"] += rng.randint(1, 3)
    for name in rng.sample(sorted(groups), 10):
        boxes[name]["rare"] += 1
    return groups, {name: +counts for name, counts in boxes.items()}


def by_fold(fold_of, boxes, count):
    found = [Counter() for _ in range(count)]
    for name, fold in fold_of.items():
        found[fold - 1].update(boxes[name])
    return found


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_groups_stay_together_and_folds_are_of_one_size(stratify, seed):
    groups, boxes = data(seed=seed)
    fold_of = choose_folds(groups, boxes, 5, stratify=stratify, seed=seed)
    assert fold_of.keys() == groups.keys()
    assert len({(groups[name], fold) for name, fold in fold_of.items()}) == len({*groups.values()})
    sizes = Counter(fold_of.values())
    assert sorted(sizes) == [1, 2, 3, 4, 5]
    assert max(sizes.values()) - min(sizes.values()) <= 3


@pytest.mark.parametrize("seed", range(4))
def test_stratified_folds_have_as_many_boxes_of_each_class(seed):
    groups, boxes = data(seed=seed)
    found = by_fold(choose_folds(groups, boxes, 5, stratify=True), boxes, 5)
    for name, allowed in (("rare", 1), ("other", 3)):
        counts = [one[name] for one in found]
        assert max(counts) - min(counts) <= allowed, (name, counts)
    plain = by_fold(choose_folds(groups, boxes, 5), boxes, 5)
    assert max(one["rare"] for one in plain) - min(one["rare"] for one in plain) > 1


@pytest.mark.parametrize("stratify", [False, True])
def test_the_seed_counts_and_the_order_of_the_images_does_not(stratify):
    groups, boxes = data()
    names = sorted(groups)
    random.Random(1).shuffle(names)
    first = choose_folds(groups, boxes, 4, stratify=stratify)
    assert (
        choose_folds({name: groups[name] for name in names}, boxes, 4, stratify=stratify) == first
    )
    assert choose_folds(groups, boxes, 4, stratify=stratify, seed=1) != first


def test_no_fold_is_empty_where_one_group_is_large():
    groups = {f"{i}": 0 for i in range(20)} | {"a": "a", "b": "b"}
    boxes = {name: {"x": 1} for name in groups}
    for stratify in (False, True):
        fold_of = choose_folds(groups, boxes, 3, stratify=stratify)
        assert sorted(Counter(fold_of.values()).values()) == [1, 1, 20]


def test_fewer_groups_than_folds_is_an_error():
    with pytest.raises(DataError, match=r"30 images in 3 groups .* too few for 5 folds") as error:
        choose_folds({f"{i}": i % 3 for i in range(30)}, {}, 5)
    assert error.value.hint == "--folds 3"
