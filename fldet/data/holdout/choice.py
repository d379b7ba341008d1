"""Which images are set aside."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass

from fldet.errors import DataError

MOST = 2  # times the share that may be set aside so that each class is validated


@dataclass(frozen=True)
class Choice:
    """Images that are set aside."""

    names: tuple[str, ...]  # of their files, sorted
    groups: int  # of all images, near copies being one
    not_on_both_sides: tuple[Hashable, ...]  # classes of two groups or more that could not be


@dataclass
class _Group:
    names: list[str]
    classes: set[Hashable]
    may_go: bool  # whether it may be set aside
    place: bytes = b""  # in the order in which groups are taken


def choose(
    groups: Mapping[str, Hashable],
    classes: Mapping[str, Set[Hashable]],
    share: float,
    *,
    stay: Set[str] = frozenset(),
) -> Choice:
    """Returns which images to set aside, a share of all: groups as a whole.

    Groups are taken in the order of a hash of their first name, so the order of the images does not
    matter, and one more image changes the places of few others. Each class of two groups or more
    gets one on either side, the rarest class first, as long as not more than twice the share is
    set aside; no class loses its last group in training.

    Args:
        groups: group by name of the image file.
        classes: classes that an image has boxes of, by name; images without boxes may lack.
        share: of the images, above 0 and below 1.
        stay: images that must not be set aside, nor those of their groups.

    Raises:
        DataError: nothing can be set aside; the message says why.
    """
    found = _in_order(groups, classes, stay)
    wanted = min(max(1, round(share * len(groups))), len(groups) - 1)
    chosen = _choose(found, wanted, min(MOST * wanted, len(groups) // 2))
    sides = [Counter[Hashable](), Counter[Hashable]()]
    for index, group in enumerate(found):
        sides[index in chosen].update(group.classes)
    if not sides[True]:
        raise DataError(_reason(found), expected="boxes of a class in two groups of images")
    both = sides[False] + sides[True]
    missing = [one for one in both if both[one] > 1 and not (sides[0][one] and sides[1][one])]
    names = sorted(name for index in chosen for name in found[index].names)
    return Choice(tuple(names), len(found), tuple(sorted(missing, key=str)))


def _in_order(
    groups: Mapping[str, Hashable],
    classes: Mapping[str, Set[Hashable]],
    stay: Set[str],
) -> list[_Group]:
    by_key: dict[Hashable, list[str]] = defaultdict(list)
    for name, key in groups.items():
        by_key[key].append(name)
    found = []
    for names in by_key.values():
        used = {one for name in names for one in classes.get(name, ())}
        first = min(names).encode(errors="surrogatepass")
        place = hashlib.blake2b(first).digest()
        found.append(_Group(names, used, stay.isdisjoint(names), place))
    return sorted(found, key=lambda group: group.place)


def _choose(found: Sequence[_Group], wanted: int, most: int) -> set[int]:
    """Returns the indices of the groups that are set aside.

    Args:
        found: in the order in which they are taken.
        wanted: images to set aside, where the sizes of the groups allow it.
        most: images that may be, for the sake of the classes.
    """
    chosen: set[int] = set()
    images = 0
    left = Counter(one for group in found for one in group.classes)  # groups in training
    order = sorted(left, key=lambda one: (left[one], str(one)))
    covered: set[Hashable] = set()

    def take(index: int, limit: int) -> bool:
        nonlocal images
        group = found[index]
        fits = group.may_go and images + len(group.names) <= limit
        if index in chosen or not fits or any(left[one] < 2 for one in group.classes):
            return False
        chosen.add(index)
        images += len(group.names)
        left.subtract(group.classes)
        covered.update(group.classes)
        return True

    for key in order:
        if key not in covered:
            having = (i for i, group in enumerate(found) if key in group.classes)
            next((index for index in having if take(index, most)), None)
    for index in range(len(found)):
        take(index, wanted)
    return chosen


def _reason(found: Sequence[_Group]) -> str:
    """Returns why no image with boxes can be set aside."""
    if len(found) < 2:
        return "all images are near copies of one another"
    if not any(group.may_go for group in found):
        return "none of the images can be read"
    largest = max(len(group.names) for group in found)
    return (
        f"the {sum(len(group.names) for group in found)} images are too few or too alike: "
        f"{len(found)} groups of near copies, the largest of {largest}"
    )
