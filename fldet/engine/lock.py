"""One run at a time in a work dir."""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fldet.errors import UsageError
from fldet.processes import agent_identity, process_born, restart_count

log = logging.getLogger("fldet")

NAME = "run.lock"


@contextmanager
def locked(work_dir: Path) -> Iterator[bool]:
    """Holds a work dir for this process; the lock file says who does.

    A lock whose process has ended is taken over. One of another machine cannot be looked into,
    unless torchrun says that it belongs to this run. A run that torchrun will start again leaves
    its lock to the next attempt, unless it ended by a ``UsageError``.

    Yields:
        Whether an earlier attempt of this run, under the same torchrun, held the work dir.

    Raises:
        UsageError: another run holds it.
    """
    path = work_dir / NAME
    work_dir.mkdir(parents=True, exist_ok=True)
    me = os.getpid()
    mine = {"pid": me, "host": socket.gethostname(), "born": process_born(me), **agent_identity()}
    goes_on = False
    if not _create(path, mine):
        goes_on = _remove_stale(path, mine)
        if not _create(path, mine):
            raise _in_use(path, _read(path))
    leave_it = False
    try:
        yield goes_on
    except BaseException as error:
        done, most = restart_count()
        leave_it = done < most and not isinstance(error, UsageError)
        raise
    finally:
        if not leave_it and _read(path).get("pid") == me:
            path.unlink(missing_ok=True)


def is_locked(work_dir: Path) -> bool:
    """Returns whether a living process of this machine holds a work dir."""
    holder = _read(work_dir / NAME)
    return holder.get("host") == socket.gethostname() and _is_alive(holder)


def drop_lock_of_another_machine(work_dir: Path) -> None:
    """Removes a lock whose process ran on another machine; the caller knows that it has ended."""
    holder = _read(work_dir / NAME)
    if holder.get("host", socket.gethostname()) != socket.gethostname():
        (work_dir / NAME).unlink(missing_ok=True)


def _create(path: Path, content: dict[str, Any]) -> bool:
    """Returns whether the file was made: it appears at once and whole, or was there before."""
    draft = path.with_name(f".{NAME}.{socket.gethostname()}.{os.getpid()}")
    text = json.dumps({**content, "since": time.strftime("%Y-%m-%d %H:%M:%S")})
    try:
        draft.write_text(text)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        error.filename = str(path)
        raise
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        return _create_empty_first(path, text)
    finally:
        draft.unlink()
    return True


def _create_empty_first(path: Path, text: str) -> bool:
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remove_stale(path: Path, mine: dict[str, Any]) -> bool:
    """Removes a lock that nobody holds; returns whether it is of an earlier attempt of this run."""
    holder = _read(path)
    here = holder.get("host", mine["host"]) == mine["host"]
    same_run = _is_same_run(holder, mine, here=here)
    if _is_alive(holder) if here else not same_run:
        raise _in_use(path, holder)
    if not same_run:
        log.warning("%s is of process %s, which has ended: taken over", path, holder.get("pid"))
    aside = path.with_name(f".{NAME}.stale.{os.getpid()}")
    try:
        path.rename(aside)
    except FileNotFoundError:  # another process was faster
        return False
    if _read(aside) != holder:  # and made its own: put that back
        os.link(aside, path)
    aside.unlink()
    return same_run


def _is_same_run(holder: dict[str, Any], mine: dict[str, Any], *, here: bool) -> bool:
    """Returns whether one torchrun started both; of another machine only a chosen id can tell."""
    if here:
        return "agent" in mine and holder.get("agent") == mine["agent"]
    return mine.get("run") not in (None, "none") and holder.get("run") == mine["run"]


def _is_alive(holder: dict[str, Any]) -> bool:
    """Returns whether the process still runs; a number used again is told by its start."""
    try:
        os.kill(int(holder["pid"]), 0)
    except (KeyError, ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return holder.get("born") in (None, process_born(int(holder["pid"])))


def _in_use(path: Path, holder: dict[str, Any]) -> UsageError:
    return UsageError(
        f"{path.parent} is in use by process {holder.get('pid')} on {holder.get('host')} "
        f"since {holder.get('since')}",
        expected="one run in a work dir at a time",
        hint=f"choose another --work-dir or --out; if that run is dead, remove {path}",
    )
