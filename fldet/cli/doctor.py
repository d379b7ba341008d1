"""``fldet doctor``."""

from typing import TYPE_CHECKING

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note

if TYPE_CHECKING:
    from fldet.engine.doctor import Finding

EXAMPLES = """
  fldet doctor
  fldet doctor --json
"""

MARKS = {"ok": "  ", "warning": "! ", "error": "X "}


@command
def doctor(json: options.Json = False) -> None:
    """Print versions, operators and devices, and how to mend known troubles."""
    note("fldet doctor: looking at torch, MMDetection and the operators")
    from fldet.engine.doctor import diagnose

    findings = diagnose()
    Output("doctor", as_json=json).result(findings, text=lambda: findings_text(findings))
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def findings_text(findings: "list[Finding]") -> str:
    """Returns one line for each finding, and below a trouble the line that mends it."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.level]}{finding.name.ljust(width)}  {finding.value}")
        if finding.remedy:
            lines.append(f"  {' ' * width}  -> {finding.remedy}")
    return "\n".join(lines)
