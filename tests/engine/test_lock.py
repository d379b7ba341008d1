import errno
import json
import os
import socket

import pytest

from fldet.engine import lock
from fldet.engine.lock import drop_lock_of_another_machine, locked
from fldet.errors import UsageError


def test_one_run_at_a_time_and_the_lock_goes_at_the_end(tmp_path):
    folder = tmp_path / "run"
    with locked(folder):
        content = json.loads((folder / "run.lock").read_text())
        assert (content["pid"], content["host"]) == (os.getpid(), socket.gethostname())
        with (
            pytest.raises(UsageError, match=f"in use by process {os.getpid()} on") as error,
            locked(folder),
        ):
            pass
        assert "--work-dir" in error.value.hint
        assert [path.name for path in folder.iterdir()] == ["run.lock"]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"pid": 2**22 + 1, "host": socket.gethostname()}),
        json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "born": "1"}),
        "",
        "[]",
        "7",
        "[" * 100_000,
        "9" * 5000,
        json.dumps({"pid": None, "host": socket.gethostname()}),
        json.dumps({"pid": [1], "host": socket.gethostname()}),
        json.dumps({"pid": True, "host": socket.gethostname()}),
        json.dumps({"pid": 1.0, "host": socket.gethostname()}),
        json.dumps({"pid": 0, "host": socket.gethostname()}),
        json.dumps({"pid": -1, "host": socket.gethostname()}),
        json.dumps({"pid": 2**70, "host": socket.gethostname()}),
        json.dumps({"pid": "1", "host": ["a"]}),
        "\0" * 100,
        " " * 2**21,
    ],
    ids=[
        *("ended", "number used again", "empty", "a list", "a number", "deep", "digits"),
        *("pid null", "pid a list", "pid true", "pid a float", "pid 0", "pid -1", "pid 2^70"),
        *("host a list", "zeros", "large"),
    ],
)
def test_a_stale_lock_is_taken_over(tmp_path, content):
    (tmp_path / "run.lock").write_text(content)
    with locked(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def under_torchrun(monkeypatch):
    """Sets how often torchrun has started this process again; of at most one time."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    return lambda count: monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(count))


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [(RuntimeError, True), (UsageError, False)],  # refused: the run in the folder is another
)
def test_torchruns_next_attempt_knows_that_the_run_is_its_own(
    tmp_path, under_torchrun, error, goes_on
):
    path = tmp_path / "run.lock"
    under_torchrun(0)
    with pytest.raises(error), locked(tmp_path) as first:
        raise error("of the first attempt")
    assert not first
    assert path.exists() == goes_on
    if goes_on:  # the process of the first attempt has ended
        path.write_text(json.dumps({**json.loads(path.read_text()), "pid": 2**22 + 1}))
    under_torchrun(1)
    with pytest.raises(error), locked(tmp_path) as second:
        raise error("of the last attempt")
    assert second == goes_on
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("holder", "ours"),
    [
        ({"host": "elsewhere", "run": "mine"}, True),  # the first process moved to this machine
        ({"host": "elsewhere", "run": "other"}, False),
        ({"host": socket.gethostname(), "run": "mine", "agent": "1 1"}, None),  # an earlier job
    ],
)
def test_whose_lock_is_of_the_same_run(tmp_path, under_torchrun, holder, ours):
    under_torchrun(1)
    (tmp_path / "run.lock").write_text(json.dumps({"pid": 2**22 + 1, **holder}))
    if ours is False:
        with pytest.raises(UsageError, match="on elsewhere"), locked(tmp_path):
            pass
    else:
        with locked(tmp_path) as goes_on:
            assert goes_on is bool(ours)


def test_a_lock_of_another_machine_can_be_dropped(tmp_path):
    lock = tmp_path / "run.lock"
    drop_lock_of_another_machine(tmp_path)  # none
    lock.write_text(json.dumps({"pid": 1, "host": socket.gethostname()}))
    drop_lock_of_another_machine(tmp_path)
    assert lock.exists()
    lock.write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    drop_lock_of_another_machine(tmp_path)
    assert not lock.exists()


def test_a_lock_of_another_machine_is_respected(tmp_path):
    (tmp_path / "run.lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with pytest.raises(UsageError, match="process 1 on elsewhere"), locked(tmp_path):
        pass
    assert (tmp_path / "run.lock").exists()


@pytest.mark.parametrize("kind", ["a folder", "a pipe"])
def test_what_is_no_lock_is_named_and_stays(tmp_path, kind):
    path = tmp_path / "run.lock"
    path.mkdir() if kind == "a folder" else os.mkfifo(path)
    with pytest.raises(UsageError, match="is no file"), locked(tmp_path):
        pass
    assert path.exists()


def test_escape_sequences_of_a_lock_are_not_shown(tmp_path):
    holder = {"pid": 1, "host": "elsewhere", "since": "\x1b[31mred", "note": "x" * 10**6}
    (tmp_path / "run.lock").write_text(json.dumps(holder))
    with pytest.raises(UsageError) as caught, locked(tmp_path):
        pass
    assert caught.value.message.endswith("on elsewhere since a time that is not known")


@pytest.fixture
def without_links(monkeypatch):
    """A file system that has no hard links, as some of networks and memory cards."""

    def refuse(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)

    monkeypatch.setattr(os, "link", refuse)


def test_without_hard_links_there_is_one_run_at_a_time_too(tmp_path, without_links):
    with locked(tmp_path):
        with pytest.raises(UsageError, match="in use by process"), locked(tmp_path):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]
    (tmp_path / "run.lock").write_text(json.dumps({"pid": 2**22 + 1}))
    with locked(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_just_being_written_is_no_stale_one(tmp_path, monkeypatch, without_links):
    path = tmp_path / "run.lock"
    path.touch()
    holder = {"pid": os.getppid(), "host": socket.gethostname()}
    monkeypatch.setattr(lock.time, "sleep", lambda _: path.write_text(json.dumps(holder)))
    with pytest.raises(UsageError, match=f"process {os.getppid()}"), locked(tmp_path):
        pass
    assert json.loads(path.read_text()) == holder


def test_a_lock_of_another_that_was_faster_is_put_back(tmp_path, monkeypatch, without_links):
    path = tmp_path / "run.lock"
    path.write_text(json.dumps({"pid": 2**22 + 1}))
    faster = json.dumps({"pid": os.getppid(), "host": socket.gethostname()})
    monkeypatch.setattr(lock.log, "warning", lambda *_: path.write_text(faster))
    with pytest.raises(UsageError, match=f"process {os.getppid()}"), locked(tmp_path):
        pass
    assert path.read_text() == faster
    assert [one.name for one in tmp_path.iterdir()] == ["run.lock"]


def test_a_link_at_the_name_of_a_draft_is_not_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (f".run.lock.{socket.gethostname()}.{os.getpid()}", f".run.lock.{os.getpid()}"):
        (tmp_path / name).symlink_to(victim)
    with locked(tmp_path):
        pass
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "place",
    ["file", "file/below", "loop/below", "a" * 256, "/proc/x"],
    ids=["file", "below", "loop", "long", "where nobody makes folders"],
)
def test_a_name_that_can_be_no_folder_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UsageError, match="cannot be a work dir"), locked(tmp_path / place):
        pass


def test_the_lock_of_another_process_is_not_removed_at_the_end(tmp_path):
    path = tmp_path / "run.lock"
    with locked(tmp_path):
        other = {**json.loads(path.read_text()), "host": "elsewhere"}
        path.write_text(json.dumps(other))
    assert json.loads(path.read_text()) == other
