"""Runs sent away by submitit, to processes of this machine."""

import dataclasses
import sys

import pytest

from fldet.errors import UnavailableError, UsageError
from fldet.runs.cluster import Cluster, ClusterRun
from fldet.runs.run import Run, Step, digest_of, read_record
from fldet.runs.runner import run_all


def run_of(tmp_path, name, *arguments):
    folder = tmp_path / name / "seed_0"
    config = tmp_path / f"{name}.py"
    config.write_text("of_the_row = True\n")
    run = Run((name,), 0, config, folder, "", (Step("train", arguments),))
    return dataclasses.replace(run, digest=digest_of(run))


def test_without_submitit_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UnavailableError, match=r"-e '\.\[cluster\]'"):
        Cluster(tmp_path)


def test_an_option_that_submitit_does_not_know(tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(UsageError, match="partitoin"):
        Cluster(tmp_path, {"slurm_partitoin": "gpu"}, kind="local")


def test_without_slurm_that_is_said(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="no Slurm here"):
        Cluster(tmp_path)


@pytest.mark.slow
def test_runs_are_done_elsewhere_and_their_failures_come_back(tmp_path):
    pytest.importorskip("submitit")
    runs = [run_of(tmp_path, "good", "--version"), run_of(tmp_path, "bad", "no_such_command")]
    cluster = Cluster(tmp_path / "jobs", {"timeout_min": 5}, kind="local")
    seen = set()
    statuses, _ = run_all(
        runs,
        jobs=2,
        start=cluster.start,
        watch=lambda all_of_them: seen.update(one.state for one in all_of_them),
    )
    assert [one.state for one in statuses] == ["done", "failed"]
    assert "train ended with exit code 2" in statuses[1].reason
    assert "queued" in seen
    assert read_record(runs[0].folder).steps == ("train",)
    # asked again after its time is up, a job goes on with what is left
    again = ClusterRun(runs[0]).checkpoint()
    assert again.function() == "done"
