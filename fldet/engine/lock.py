"""One run at a time in a work dir."""

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fldet.errors import DataError, UsageError
from fldet.files import (
    MOST_OF_SETTINGS,
    make_folder,
    new_temporary_file,
    parse_json,
    read_text,
    temporary_name,
)
from fldet.processes import agent_identity, process_born, restart_count

log = logging.getLogger("fldet")

NAME = "run.lock"

_LOOKS, _SECONDS_BETWEEN_LOOKS = 5, 0.1
_MOST_OF_A_TEXT = 200  # characters of a lock's own words in a message


@contextmanager
def locked(work_dir: Path) -> Iterator[bool]:
    """Holds a work dir for this process; the lock file says who does.

    A lock whose process has ended is taken over. One of another machine cannot be looked into,
    unless torchrun says that it belongs to this run. A run that torchrun will start again leaves
    its lock to the next attempt, unless it ended by a ``UsageError``. Yields whether an earlier
    attempt of this run, under the same torchrun, held the work dir.
    """
    path = work_dir / NAME
    _make_folder(work_dir)
    me = os.getpid()
    mine = {"pid": me, "host": socket.gethostname(), "born": process_born(me), **agent_identity()}
    text = json.dumps({**mine, "since": time.strftime("%Y-%m-%d %H:%M:%S")})
    goes_on = False
    if not _create(path, text):
        goes_on = _remove_stale(path, mine)
        if not _create(path, text):
            raise _in_use(path, _read(path))
    leave_it = False
    try:
        yield goes_on
    except BaseException as error:
        done, most = restart_count()
        leave_it = done < most and not isinstance(error, UsageError)
        raise
    finally:
        if not leave_it and mine.items() <= {"born": None, **_read(path)}.items():
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


def _make_folder(work_dir: Path) -> None:
    os.listdir(make_folder(work_dir, "work dir"))  # unlisted it would look like an empty folder


def _create(path: Path, text: str) -> bool:
    """Returns whether the file was made: it appears at once and whole, or was there before."""
    draft = new_temporary_file(path)
    try:
        draft.write_text(text)
        os.link(draft, path)
    except (FileExistsError, FileNotFoundError):  # not found: who holds the lock has tidied up
        return False
    except OSError as error:
        if error.filename2 is None:  # of writing
            error.filename = str(path)
            raise
        with contextlib.suppress(FileExistsError), path.open("x") as file:
            file.write(text)  # on a file system without hard links
            return True
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _read(path: Path) -> dict[str, Any]:
    """Returns what a lock says of its holder, as far as it can be true."""
    try:
        content = parse_json(read_text(path, most=MOST_OF_SETTINGS), NAME)
    except DataError:
        return {}
    return {
        name: value
        for name, value in (content.items() if isinstance(content, dict) else ())
        if (_is_pid(value) if name == "pid" else isinstance(value, str) and value.isprintable())
    }


def _is_pid(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def _read_patiently(path: Path) -> dict[str, Any]:
    """Returns the holder; without hard links a lock is empty for a moment before it is written."""
    for _ in range(_LOOKS):
        if holder := _read(path):
            return holder
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return {}


def _remove_stale(path: Path, mine: dict[str, Any]) -> bool:
    """Removes a lock that nobody holds; returns whether it is of an earlier attempt of this run."""
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise UsageError(
            f"{path} is no file", expected="the lock of a run, or nothing", hint=f"remove {path}"
        )
    holder = _read_patiently(path)
    here = holder.get("host", mine["host"]) == mine["host"]
    same_run = _is_same_run(holder, mine, here=here)
    if _is_alive(holder) if here else not same_run:
        raise _in_use(path, holder)
    if not same_run:
        log.warning("%s is of process %s, which has ended: taken over", path, holder.get("pid"))
    aside = temporary_name(path)
    try:
        path.rename(aside)
    except FileNotFoundError:  # another process was faster
        return False
    if _read(aside) != holder:  # and made its own: put that back
        _create(path, aside.read_text())
    aside.unlink()
    return same_run


def _is_same_run(holder: dict[str, Any], mine: dict[str, Any], *, here: bool) -> bool:
    """Returns whether one torchrun started both; of another machine only a chosen id can tell."""
    if here:
        return "agent" in mine and holder.get("agent") == mine["agent"]
    return mine.get("run") not in (None, "none") and holder.get("run") == mine["run"]


def _is_alive(holder: dict[str, Any]) -> bool:
    """Returns whether the process still runs; a number used again is told by its start."""
    if "pid" not in holder:
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return holder.get("born") in (None, process_born(holder["pid"]))


def _in_use(path: Path, holder: dict[str, Any]) -> UsageError:
    return UsageError(
        f"{path.parent} is in use by process {holder.get('pid')} on "
        f"{holder.get('host', 'this machine')[:_MOST_OF_A_TEXT]} "
        f"since {holder.get('since', 'a time that is not known')[:_MOST_OF_A_TEXT]}",
        expected="one run in a work dir at a time",
        hint=f"choose another --work-dir or --out; if that run is dead, remove {path}",
    )
