"""Which fldet this is."""

import subprocess
from functools import cache
from pathlib import Path


@cache
def commit() -> str | None:
    """Returns the commit of the clone that fldet is imported from, with ``-dirty`` if changed.

    None for an installed package, or without git.
    """
    clone = Path(__file__).resolve().parent.parent
    if not (clone / ".git").exists():
        return None
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
