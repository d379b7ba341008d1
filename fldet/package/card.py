"""The card of a model: Markdown for people, with a head in YAML as model hubs read it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from fldet import __version__
from fldet.about import commit
from fldet.errors import UsageError, shorten
from fldet.package.facts import Facts, Spread
from fldet.text import counted, markdown_table, printable

FEW_OBJECTS = 50  # of a class in training
FEW_IMAGES = 100  # of a test

_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+()-]{0,99}")
_OF_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|&~$])")


@dataclass(frozen=True)
class Described:
    """A model as its card describes it."""

    name: str
    licence: str  # empty if it is not stated
    model: str  # classes of the detector and its heads
    classes: tuple[str, ...]
    parameters: int
    size_mib: float  # of the file
    input: str  # the size that images are resized to, in words; empty if not known
    facts: Facts


def checked_licence(licence: str | None) -> str:
    """Returns the name of a licence, ``Apache-2.0``; empty for None.

    Raises:
        UsageError: it is no name.
    """
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UsageError(
            f"--licence {shorten(licence)}",
            expected="a name of the SPDX list, as Apache-2.0 or CC-BY-4.0, or other",
        )
    return licence or ""


def card_text(one: Described, usage: str) -> str:
    """Returns the card; ``usage`` is the block of code that shows how the files are used."""
    facts = one.facts
    kinds = counted(len(one.classes), "class").replace("classs", "classes")
    parts = [
        f"---\n{_head(one)}---",
        f"# {escaped(one.name)}",
        f"A detector of {kinds}: {one.model}, {one.parameters:,} weights, "
        f"{one.size_mib:.1f} MiB." + (f" Images are resized to {one.input}." if one.input else ""),
        _about(one),
        f"## Use\n\n{usage}",
        f"## Classes\n\n{_classes(one)}",
        f"## Training data\n\n{_data(facts)}",
        f"## Figures\n\n{_figures(facts)}",
        "## Intended use\n\n*To be filled in: which pictures, what for, and who looks at what the "
        "model finds and misses.*",
        "## Limits\n\n" + "\n".join(f"- {line}" for line in limits(one)),
    ]
    if facts.gaps:
        known = "\n".join(f"- {escaped(gap)}" for gap in facts.gaps)
        parts.append(f"## Not known\n\n{known}")
    return printable("\n\n".join(parts)) + "\n"


def _head(one: Described) -> str:
    facts = one.facts
    details: dict[str, Any] = {
        "version": __version__,
        "commit": commit(),
        "classes": list(one.classes),
        "parameters": one.parameters,
    }
    if facts.data:
        details["training_images"] = facts.data.images
        details["training_data_sha256"] = facts.data.digest
    if facts.thresholds:
        details["thresholds"] = dict(facts.thresholds.scores)
    head: dict[str, Any] = {
        **({"license": one.licence.lower()} if one.licence else {}),
        "library_name": "fldet",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", "fldet"],
        **({"model-index": [_results(one)]} if facts.test else {}),
        "fldet": details,
    }
    text: str = yaml.safe_dump(head, sort_keys=False, allow_unicode=False, width=100)
    return text


def _results(one: Described) -> dict[str, Any]:
    test = one.facts.test
    figures = [] if test is None else test.figures.items()
    return {
        "name": one.name,
        "results": [
            {
                "task": {"type": "object-detection"},
                "dataset": {"type": "own", "name": f"{test.num_images if test else 0} test images"},
                "metrics": [
                    {"type": name, "value": round(value, 2)}
                    for name, value in figures
                    if value is not None
                ],
            }
        ],
    }


def _about(one: Described) -> str:
    facts, revision = one.facts, commit()
    rows = [
        ("licence", escaped(one.licence) or "**not stated**: ask whoever handed this on"),
        ("written by", f"fldet {__version__}" + (f", commit {revision}" if revision else "")),
    ]
    if facts.iterations:
        rows.append(("trained for", f"{facts.iterations:,} iterations"))
    if facts.speed:
        height, width = facts.speed.image_shape
        rows.append(
            (
                "speed",
                f"{facts.speed.median_ms:.1f} ms an image of {width}x{height} on "
                f"{escaped(facts.speed.device)} ({counted(facts.speed.threads, 'thread')}, "
                f"{escaped(facts.speed.precision)})",
            )
        )
    return markdown_table(("", ""), rows)


def _classes(one: Described) -> str:
    facts = one.facts
    columns: dict[str, Sequence[str]] = {"class": [escaped(name) for name in one.classes]}
    if facts.data:
        objects = facts.data.objects
        columns["objects in training"] = [f"{objects[name]:,}" for name in one.classes]
    if facts.test:
        found = facts.test.per_class
        columns["AP"] = [_percent(found.get(name)) for name in one.classes]
    if facts.thresholds:
        scores = facts.thresholds.scores
        columns["threshold"] = [f"{scores[name]:.3f}" for name in one.classes]
    text = markdown_table(tuple(columns), zip(*columns.values(), strict=True))
    if facts.thresholds:
        how = f" ({escaped(facts.thresholds.chosen)})" if facts.thresholds.chosen else ""
        text += f"\n\nA detection counts from the threshold of its class on{how}."
    return text


def _data(facts: Facts) -> str:
    if facts.data is None:
        return "Not known."
    return (
        f"{counted(facts.data.images, 'image')} with "
        f"{counted(sum(facts.data.objects.values()), 'object')}. SHA-256 of file names, classes "
        f"and boxes: `{facts.data.digest}`."
    )


def _figures(facts: Facts) -> str:
    columns: dict[str, Mapping[str, str]] = {}
    if facts.test:
        title = f"these weights, {counted(facts.test.num_images, 'image')}"
        columns[title] = {name: _percent(value) for name, value in facts.test.figures.items()}
    for repeated in facts.repeated:
        columns[f"{repeated.what}, mean ± sd"] = {
            name: _spread(value) for name, value in repeated.figures.items()
        }
    if not columns:
        best = facts.best_ap
        return "Not tested." + ("" if best is None else f" AP in validation: {100 * best:.1f} %.")
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [(name, *(column.get(name, "-") for column in columns.values())) for name in names]
    return markdown_table(("in percent", *columns), rows)


def limits(one: Described) -> list[str]:
    """Returns what the facts say about where a model should not be relied on."""
    facts = one.facts
    found = [
        "It knows the classes above and nothing else: what looks like one of them may be taken for "
        "it, whatever it is.",
        "Figures hold for pictures like those it was trained and tested on: other cameras, light "
        "or places need a test of their own (`fldet test`).",
        "A score is no probability.",
    ]
    if facts.data and (
        rare := [name for name, number in facts.data.objects.items() if number < FEW_OBJECTS]
    ):
        found.append(
            f"Seen fewer than {FEW_OBJECTS} times in training: {', '.join(map(escaped, rare))}."
        )
    if facts.test and facts.test.num_images < FEW_IMAGES:
        found.append(
            f"Tested on {counted(facts.test.num_images, 'image')}: a few objects more or less "
            "would change the figures by points."
        )
    return found


def escaped(text: str) -> str:
    """Returns a text of one line in which nothing means anything to Markdown or HTML."""
    return _OF_MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"


def _spread(value: Spread) -> str:
    deviation = "" if math.isnan(value.deviation) else f" ± {value.deviation:.1f}"
    return _percent(value.mean) + deviation
