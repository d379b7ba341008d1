"""What is removed from the work dir of a run that was stopped or killed, and what is kept."""

import json
import os

import pytest

from fldet.engine.start import Start, remove_leftovers, trim_scalars


def test_lines_that_will_be_written_again_are_removed(tmp_path):
    path = tmp_path / "scalars.json"
    train_lines = [{"lr": 1, "step": step} for step in (1, 2, 3)]
    lines = [*train_lines[:2], {"coco/AP": 0.5, "step": 2}, train_lines[2]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"lr": 1, "st')
    for validated, kept in ((True, lines[:3]), (False, lines[:2])):
        trim_scalars(path, 2, validated=validated)
        assert [json.loads(line) for line in path.read_text().splitlines()] == kept


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff\xfe\x80\n",
        b"\0" * 4096,
        b"\0" * 10 + b"\n",
        b'{"lr": 1, "step": "2"}\n',
        b'{"lr": 1, "step": null}\n',
        b"[1]\n",
        b"1\n",
        b"NaN\n",
        b"[" * 100_000 + b"\n",
        b'{"step": ' + b"9" * 5000 + b"}\n",
        b'{"lr": 1, "step": 2}',  # no end: the next start would write behind it
        '{"lr": 1, "st\u2028'.encode(),
    ],
)
def test_what_a_power_loss_leaves_in_a_log_is_removed(tmp_path, junk):
    path = tmp_path / "scalars.json"
    good = '{"lr": 1, "step": 1, "note": "a\u2028b"}\n'.encode()
    path.write_bytes(good + junk)
    trim_scalars(path, 2, validated=True)
    assert path.read_bytes() == good


def test_only_the_logs_of_a_run_are_trimmed(tmp_path):
    folder = tmp_path / "20260101_000000" / "vis_data"
    folder.mkdir(parents=True)
    logs = [folder / "scalars.json", folder / "20260101_000000.json"]
    others = [folder / "notes.json", folder / "scalars.json.bak", folder / "config.py"]
    for path in (*logs, *others):
        path.write_text('{\n "lr": 1,\n "step": 9}\n{"lr": 1, "step": 9}\n')
    os.mkfifo(folder / "20260101_000000.json.pipe")
    remove_leftovers(tmp_path, Start(), resume=True)
    assert [path.read_text() for path in logs] == ["", ""]
    assert all(path.read_text() for path in others)


def test_a_log_that_is_no_file_is_passed_over(tmp_path):
    folder = tmp_path / "20260101_000000" / "vis_data"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "scalars.json")
    remove_leftovers(tmp_path, Start(), resume=True)
    assert (folder / "scalars.json").exists()


def test_what_a_killed_run_leaves_is_removed_and_nothing_else(tmp_path):
    folder = tmp_path / "20260101_000000" / "vis_data"
    folder.mkdir(parents=True)
    ours = [
        *(tmp_path / f".{name}.0123abcd" for name in ("iter_9.pth", "best_coco_AP_iter_9.pth")),
        *(tmp_path / f".{name}.0123abcd" for name in ("last_checkpoint", "run.lock", "tiny.py")),
        tmp_path / ".nonfinite_iter_3_rank_1.pth.0123abcd",
        tmp_path / ".run.lock.my-host.example.org.4000001",
        tmp_path / ".run.lock.stale.4000001",
        *(folder / f".{name}.0123abcd" for name in ("scalars.json", "20260101_000000.json")),
    ]
    theirs = [
        tmp_path / "iter_9.pth.0123abcd",
        tmp_path / ".iter_9.pth.bak",
        tmp_path / ".iter_9.pth.original",
        tmp_path / ".weights.pth.0123abcd",
        tmp_path / ".gitignore",
        folder / ".notes.txt.0123abcd",
        folder / "scalars.json.0123abcd",
    ]
    for path in (*ours, *theirs):
        path.touch()
    remove_leftovers(tmp_path, Start(), resume=False)
    assert [path.name for path in ours if path.exists()] == []
    assert [path.name for path in theirs if not path.exists()] == []


def test_a_run_that_ended_before_its_first_checkpoint_leaves_no_line(tmp_path):
    path = tmp_path / "20260101_000000" / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"lr": 1, "step": 1}\n')
    remove_leftovers(tmp_path, Start(), resume=False)  # of another run, which is not gone on with
    assert path.read_text()
    remove_leftovers(tmp_path, Start(), resume=True)
    assert path.read_text() == ""
