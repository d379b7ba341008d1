"""Good files of a run, mutated and read: a result or an error of ours, whatever lies in them."""

import json
import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fldet.analysis.log.read import read_log
from fldet.analysis.log.summary import summarize_log
from fldet.engine import lock
from fldet.engine.lock import is_locked, locked
from fldet.engine.start import Start, remove_leftovers
from fldet.errors import FldetError

fuzzed = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)

LOG = "".join(
    json.dumps(line) + "\n"
    for line in (
        {"lr": 0.1, "loss": 2.0, "time": 0.5, "data_time": 0.1, "iter": 1, "step": 1},
        {"lr": 0.1, "loss": float("nan"), "time": 0.5, "data_time": 0.1, "iter": 2, "step": 2},
        {"coco/AP": 0.5, "time": 0.1, "step": 2},
    )
).encode()
LOCK = json.dumps(
    {"pid": 2**22 + 1, "host": socket.gethostname(), "born": "1", "run": "a", "agent": "1 1"}
).encode()
LAST = b"/somewhere/iter_2.pth"
PIECES = st.sampled_from(
    [
        *(
            b"",
            b"\0" * 100,
            b"\xff\xfe",
            b"null",
            b"true",
            b"1e999",
            b"-1",
            b"[]",
            b"{}",
            b"{",
            b"}",
        ),
        *(b'"', b"NaN", b"\n\n", b"\r", b"9" * 400, b"9" * 5000, b"[" * 3000),
        '"\u2028\x85"'.encode(),
    ]
)


@st.composite
def mutations(draw, good):
    """Bytes of a good file of which stretches were cut out, repeated or replaced."""
    data = good
    for _ in range(draw(st.integers(0, 4))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        middle = draw(st.one_of(PIECES, st.just(data[start:end] * 2), st.binary(max_size=20)))
        data = data[:start] + middle + data[end:]
    return data


def mutated_values(good):
    """A good line of JSON with one value replaced."""
    content = json.loads(good)
    values = st.sampled_from([None, True, -1, 0, 2**70, 10**4000, 1.5, "x", [1], {"a": []}])
    return st.tuples(st.sampled_from(sorted(content)), values).map(
        lambda one: json.dumps({**content, one[0]: one[1]}).encode() + b"\n"
    )


@pytest.fixture(scope="module")
def work_dir():
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "_LOOKS", 1)  # patience takes time
        yield Path(folder)


@fuzzed
@given(st.one_of(mutations(LOG), mutated_values(LOG.splitlines()[0])))
@example(LOG)
def test_a_log_is_read_and_trimmed(work_dir, data):
    path = work_dir / "run" / "20260101_000000" / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    try:
        summary = summarize_log(read_log(work_dir / "run"))
        assert summary.iterations >= 0
    except FldetError:
        pass
    remove_leftovers(work_dir / "run", Start(), resume=True)
    for line in path.read_bytes().splitlines():
        assert json.loads(line).get("step", 0) <= 0


@fuzzed
@given(st.one_of(mutations(LOCK), mutated_values(LOCK)))
@example(LOCK)
def test_a_lock_is_taken_over_or_respected(work_dir, data):
    folder = work_dir / "locked"
    folder.mkdir(exist_ok=True)
    (folder / "run.lock").write_bytes(data)
    is_locked(folder)
    try:
        with locked(folder):
            assert json.loads((folder / "run.lock").read_text())["pid"] == os.getpid()
        assert list(folder.iterdir()) == []
    except FldetError:
        assert (folder / "run.lock").read_bytes() == data


@fuzzed
@given(mutations(LAST))
def test_what_last_checkpoint_says_is_not_believed(work_dir, data):
    folder = work_dir / "last"
    folder.mkdir(exist_ok=True)
    (folder / "last_checkpoint").write_bytes(data)
    remove_leftovers(folder, Start(), resume=True)
    assert (folder / "last_checkpoint").read_bytes() == data
