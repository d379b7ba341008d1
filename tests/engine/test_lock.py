import json
import os
import socket

import pytest

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
    ],
    ids=["ended", "number used again", "empty"],
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
