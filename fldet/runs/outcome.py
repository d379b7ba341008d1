"""What the test of a run has measured."""

from dataclasses import dataclass, field
from pathlib import Path

from fldet.results import Count, read_stored

# Where a result lies in the work dir of a run; fldet test puts it there.
RESULT = Path("test", "result.json")


@dataclass(frozen=True)
class Outcome:
    """What ``fldet test`` measured."""

    figures: dict[str, float | None]  # the COCO figures in percent: AP, AP50 and so on
    num_images: int  # that were tested; COCO's val2017 has 5000
    file: Path  # the result it was read from
    # AP of each class in percent, None for one without a box
    per_class: dict[str, float | None] = field(default_factory=dict)


def read_outcome(file: Path) -> Outcome:
    """Returns what ``fldet test`` has written into a file; another one is a DataError."""
    found: _Figures = read_stored(
        file,
        _Figures,
        *("result", "figures"),
        what="result of fldet test",
        hint=f"test again, or remove {file}",
    )
    percent = {name: v for name, v in _percent(found.summary).items() if name.startswith("AP")}
    figures = {"AP": None, **percent}
    return Outcome(figures, found.num_images, file, _percent(found.per_class))


def _percent(values: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else 100 * value for name, value in values.items()}


@dataclass(frozen=True)
class _Figures:
    """What is needed of ``Figures``; None where there is no object of a kind."""

    summary: dict[str, float | None]
    num_images: Count
    per_class: dict[str, float | None] = field(default_factory=dict)
