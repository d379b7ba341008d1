"""Results as text, as Markdown and as data."""

from collections.abc import Sequence
from typing import Any

from fldet.losses.conformance.contract import Check, Judged, Result

Row = tuple[Judged, list[Result]]


def as_text(rows: Sequence[Row]) -> str:
    """Returns a block of lines for each loss."""
    blocks = []
    for judged, results in rows:
        width = max(len(one.check) for one in results)
        lines = [f"{judged.name} ({judged.version}, {judged.form})"]
        for one in results:
            lines.append(f"  {one.verdict:5} {one.check:{width}}  {one.detail}".rstrip())
        failed = sum(one.verdict == "fails" for one in results)
        asked = sum(one.verdict in ("ok", "fails") for one in results)
        blocks.append("\n".join([*lines, f"  {asked - failed} of {asked} checks passed"]))
    return "\n\n".join(blocks)


def as_markdown(rows: Sequence[Row]) -> str:
    """Returns a table of checks by losses for each form, and below it what failed."""
    parts = []
    for form in dict.fromkeys(judged.form for judged, _ in rows):
        chosen = [row for row in rows if row[0].form == form]
        said = [
            f"- `{judged.name}`, {one.check}: {one.detail}"
            for judged, results in chosen
            for one in results
            if one.verdict == "fails"
        ]
        parts += [_table(form, chosen), *(["What fails:\n\n" + "\n".join(said)] if said else [])]
    return "\n\n".join(parts)


def _table(form: str, rows: Sequence[Row]) -> str:
    heads = [f"`{judged.name}`, {judged.version}" for judged, _ in rows]
    lines = [f"| {form} | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for each in zip(*(results for _, results in rows), strict=True):
        lines.append(f"| {each[0].check} | {' | '.join(map(_cell, each))} |")
    return "\n".join(lines)


def _cell(result: Result) -> str:
    if result.verdict == "is":
        return result.detail
    return "**fails**" if result.verdict == "fails" else result.verdict


def as_data(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns what ``--json`` prints."""
    losses = [
        {
            "loss": judged.name,
            "version": judged.version,
            "form": judged.form,
            "results": [vars(result) for result in results],
        }
        for judged, results in rows
    ]
    return {"schema": 1, "losses": losses}


def check_list(checks: Sequence[Check], markdown: bool = False) -> str:
    """Returns the name of each check with what is right."""
    if markdown:
        return "\n".join(f"- **{check.name}**: {check.right}" for check in checks)
    width = max(len(check.name) for check in checks)
    return "\n".join(f"{check.name:{width}}  {check.right}" for check in checks)
