"""Runs side by side, with commands that end at once in place of trainings."""

import dataclasses
import signal
import subprocess
import sys
import time

import pytest

from fldet.errors import UsageError
from fldet.runs.run import Record, Run, Step, digest_of, read_record
from fldet.runs.runner import (
    BOOT,
    LocalJob,
    job_environment,
    known,
    progress_in,
    run_all,
)

FINE = Step("train", ("--version",))
WRONG = Step("train", ("no_such_command",))
PRINTED = Step("timing", ("--version",), makes="benchmark.json", prints=True)


def run_of(tmp_path, name, *steps, seed=0):
    folder = tmp_path / name / f"seed_{seed}"
    config = tmp_path / f"{name}.py"
    config.write_text("of_the_row = True\n")
    run = Run((f"table1b {name}",), seed, config, folder, "", steps)
    return dataclasses.replace(run, digest=digest_of(run))


def do(runs, jobs=2):
    seen = []
    statuses, received = run_all(
        runs,
        jobs=jobs,
        start=lambda run, slot: LocalJob(run),
        watch=lambda all_of_them: seen.append([one.state for one in all_of_them]),
    )
    assert received == 0
    return {one.run.folder.parent.name: one for one in statuses}, seen


def test_a_failing_run_is_named_with_its_log_and_the_others_go_on(tmp_path):
    runs = [run_of(tmp_path, "bad", WRONG, FINE), run_of(tmp_path, "good", FINE)]
    found, seen = do(runs, jobs=1)
    assert (found["bad"].state, found["good"].state) == ("failed", "done")
    assert "train ended with exit code 2" in found["bad"].reason
    log = runs[0].log.read_text()
    assert "$ fldet no_such_command" in log
    assert "No such command" in log
    assert ["train", "waiting"] in seen
    assert found["good"].seconds > 0


def test_what_is_done_is_kept_and_what_failed_is_tried_again(tmp_path):
    good, bad = run_of(tmp_path, "good", FINE), run_of(tmp_path, "bad", WRONG)
    do([good, bad])
    before = good.log.read_bytes(), bad.log.read_bytes()
    found, _ = do([good, bad])
    assert found["good"].state == "done"
    assert good.log.read_bytes() == before[0]
    assert bad.log.read_bytes() == 2 * before[1]


def test_a_run_that_was_stopped_after_its_last_step_is_done(tmp_path):
    run = run_of(tmp_path, "stopped", FINE)
    run.folder.mkdir(parents=True)
    Record(digest=run.digest, steps=("train",)).write(run.folder)
    found, _ = do([run])
    assert found["stopped"].state == read_record(run.folder).state == "done"
    assert not run.log.exists()


def test_timings_come_last_and_alone(tmp_path):
    runs = [run_of(tmp_path, f"timed{i}", PRINTED) for i in range(2)]
    runs += [run_of(tmp_path, f"trained{i}", FINE) for i in range(2)]
    _, seen = do(runs)
    assert ["waiting", "waiting", "train", "train"] in seen
    for number in (0, 1):
        others = [
            states[:number] + states[number + 1 :] for states in seen if states[number] == "timing"
        ]
        assert others
        assert not any({"train", "timing"} & set(states) for states in others)


def test_what_is_trained_is_timed_after_all_trainings_and_a_failed_one_is_not(tmp_path):
    timed = Step("timing", ("--version",), makes="timed.txt", prints=True)
    runs = [run_of(tmp_path, name, FINE, timed) for name in ("one", "two")]
    runs.append(run_of(tmp_path, "bad", WRONG, timed))
    found, seen = do(runs)
    assert {name: status.state for name, status in found.items()} == {
        "one": "done",
        "two": "done",
        "bad": "failed",
    }
    while_timed = [states for states in seen if "timing" in states]
    assert while_timed
    assert not any("train" in states or states.count("timing") > 1 for states in while_timed)
    assert read_record(runs[0].folder).steps == ("train", "timing")
    assert not (runs[2].folder / "timed.txt").exists()
    (runs[1].folder / "timed.txt").unlink()
    found, seen = do(runs[:2])
    assert not any("train" in states for states in seen)
    assert (runs[1].folder / "timed.txt").exists()


def test_steps_follow_each_other_and_a_printed_result_appears_whole(tmp_path):
    from fldet import __version__

    run = run_of(tmp_path, "two", FINE, PRINTED)
    run.folder.mkdir(parents=True)
    job = LocalJob(run)
    while job.poll().state not in ("done", "failed"):
        # not under its name before the command has ended
        assert read_record(run.folder).steps != ("train", "timing")
        time.sleep(0.05)
    assert (run.folder / "benchmark.json").read_text().strip() == __version__
    assert read_record(run.folder).steps == ("train", "timing")
    assert list(read_record(run.folder).seconds) == ["train", "timing"]


def test_a_pause_of_the_runner_is_not_time_spent(tmp_path, monkeypatch):
    job = LocalJob(run_of(tmp_path, "good", FINE))
    job.poll()
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 3600)
    wait_until(lambda: job.poll().state == "done")
    assert 0 < job.poll().seconds < 600


def test_a_loss_that_is_not_finite_is_a_result(tmp_path):
    run = run_of(tmp_path, "wild", WRONG, FINE)
    run.folder.mkdir(parents=True)
    job = LocalJob(run)
    job.poll()
    (run.folder / "nonfinite_iter_7.pth").touch()
    while job.poll().state == "train":
        time.sleep(0.05)
    assert known(run).state == "diverged"
    found, _ = do([run])
    assert found["wild"].state == "diverged"
    assert run.log.read_text().count("$ fldet") == 1


def test_a_run_of_another_config_is_not_gone_on_with(tmp_path):
    run = run_of(tmp_path, "good", FINE)
    do([run])
    other = Run(run.rows, 0, run.config, run.folder, "another", run.steps)
    with pytest.raises(UsageError, match="begun with another config"):
        do([other])


def test_a_config_that_changes_before_its_turn_is_not_run(tmp_path):
    runs = [run_of(tmp_path, "first", FINE), run_of(tmp_path, "second", FINE)]
    runs[1].config.write_text("of_the_row = False\n")
    found, _ = do(runs, jobs=1)
    assert (found["first"].state, found["second"].state) == ("done", "failed")
    assert found["second"].reason.endswith("has changed while the runs were done")
    assert not runs[1].log.exists()
    runs[1].config.unlink()
    found, _ = do(runs, jobs=1)
    assert "second.py" in found["second"].reason


def test_a_command_ends_with_its_runner(tmp_path):
    """Even if the runner is killed so that it can say nothing; Linux tells the command."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells a process that its parent has gone")
    boot = BOOT.replace('"-m", "fldet"', '"-c", "import time; time.sleep(60)"')
    code = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    command = [sys.executable, "-c", code, boot]
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    child = int(runner.stdout.readline())
    wait_until(
        lambda: "time.sleep(60)" in command_line(child) and "prctl" not in command_line(child)
    )
    runner.send_signal(signal.SIGKILL)
    runner.communicate()
    wait_until(lambda: not command_line(child))


def command_line(process):
    try:
        with open(f"/proc/{process}/cmdline") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_progress_is_that_of_the_last_attempt(tmp_path):
    log = tmp_path / "log.txt"
    assert progress_in(log) == (0, 0)
    log.write_text("\n$ fldet train x\niter 50/1200  loss 1\niter 100/1200  loss 1\n")
    assert progress_in(log) == (100, 1200)
    log.write_text(log.read_text() + "\n$ fldet train x --resume\n")
    assert progress_in(log) == (0, 0)


def test_cores_and_gpus_are_divided_among_the_slots(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("fldet.runs.runner.core_count", lambda: 8)
    assert job_environment(0, 2, 1, []) == {"OMP_NUM_THREADS": "4"}
    assert job_environment(0, 1, 1, ["0"]) == {"OMP_NUM_THREADS": "8"}
    found = [job_environment(slot, 3, 2, list("0123"))["CUDA_VISIBLE_DEVICES"] for slot in range(3)]
    assert found == ["0,1", "2,3", "0,1"]
    assert job_environment(0, 100, 1, [])["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert job_environment(0, 2, 1, [])["OMP_NUM_THREADS"] == "3"
