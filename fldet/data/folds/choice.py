"""Which fold each image is in."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from fldet.errors import DataError


@dataclass(frozen=True)
class _Group:
    names: list[str]
    boxes: Counter[str]  # by class
    place: bytes  # in the order in which groups are dealt out


@dataclass
class _Fold:
    images: int = 0
    boxes: Counter[str] = field(default_factory=Counter)


def choose_folds(
    groups: Mapping[str, Hashable],
    boxes: Mapping[str, Mapping[str, int]],
    count: int,
    *,
    stratify: bool = False,
    seed: int = 0,
) -> dict[str, int]:
    """Returns the fold of each image, from 1 to ``count``, groups as a whole.

    Groups are dealt out in the order of a hash of the seed and their first name, the largest first,
    each to the fold with the fewest images; so the order of the images does not matter. To balance
    the classes, those with the rarest class come first, and each goes to the fold that lacks most
    of its boxes, among folds that have room (Sechidis et al. 2011, iterative stratification, here
    for groups and counts of boxes).

    Args:
        groups: group by name of the image file.
        boxes: number of boxes by class of an image, by name; images without boxes may lack.
        count: of the folds, at least 2.
        stratify: whether the boxes of each class are balanced over the folds.
        seed: another one divides otherwise.

    Raises:
        DataError: there are fewer groups than folds.
    """
    found = _in_order(groups, boxes, seed)
    if len(found) < count:
        raise DataError(
            f"{len(groups)} images in {len(found)} groups that stay together are too few for "
            f"{count} folds",
            expected=f"at least {count} groups: near copies stay together, and what --group-by "
            "says is one",
            hint=f"--folds {len(found)}" if len(found) > 1 else "",
        )
    folds = [_Fold() for _ in range(count)]
    total = sum((group.boxes for group in found), Counter[str]())
    room = ceil(len(groups) / count)
    chosen: dict[str, int] = {}
    for rarest, group in _by_rarest_class(found) if stratify else [("", one) for one in found]:
        number = min(range(count), key=lambda n: _rank(folds[n], group, rarest, total, count, room))
        fold = folds[number]
        fold.images += len(group.names)
        fold.boxes.update(group.boxes)
        chosen |= dict.fromkeys(group.names, number + 1)
    return chosen


def _in_order(
    groups: Mapping[str, Hashable], boxes: Mapping[str, Mapping[str, int]], seed: int
) -> list[_Group]:
    by_key: dict[Hashable, list[str]] = defaultdict(list)
    for name, key in groups.items():
        by_key[key].append(name)
    found = []
    for names in by_key.values():
        counts = sum((Counter(boxes.get(name, {})) for name in names), Counter[str]())
        first = f"{seed}/{min(names)}".encode(errors="surrogatepass")
        found.append(_Group(names, counts, hashlib.blake2b(first).digest()))
    return sorted(found, key=lambda group: (-len(group.names), group.place))


def _by_rarest_class(found: Sequence[_Group]) -> list[tuple[str, _Group]]:
    """Returns groups with their rarest class, rare classes first; those without boxes last.

    The rarest class is the one that the fewest groups have. Within a class, groups with more of its
    boxes come first: what is left then is small enough to even out the folds.
    """
    having = Counter(name for group in found for name in group.boxes)
    left, ordered = list(found), []
    for rarest in sorted(having, key=lambda name: (having[name], name)):
        of_class = [group for group in left if rarest in group.boxes]
        left = [group for group in left if rarest not in group.boxes]
        of_class.sort(key=lambda group: -group.boxes[rarest])
        ordered += [(rarest, group) for group in of_class]
    return [*ordered, *(("", group) for group in left)]


def _rank(
    fold: _Fold, group: _Group, rarest: str, total: Counter[str], count: int, room: int
) -> tuple[float, ...]:
    """Returns what is lowest for the fold that a group goes to."""
    is_full = fold.images + len(group.names) > room
    if not rarest:
        return (fold.images,)
    lacks = {name: total[name] / count - fold.boxes[name] for name in group.boxes}
    share = sum(min(lacks[name], group.boxes[name]) / total[name] for name in lacks)
    return (is_full, fold.images if is_full else -lacks[rarest], -share, fold.images)
