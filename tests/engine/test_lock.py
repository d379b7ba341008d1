import json
import os
import socket

import pytest

from fldet.engine.lock import locked
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


def test_a_lock_of_another_machine_is_respected(tmp_path):
    (tmp_path / "run.lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with pytest.raises(UsageError, match="process 1 on elsewhere"), locked(tmp_path):
        pass
    assert (tmp_path / "run.lock").exists()
