"""Logs as MMEngine writes them, joined, summed up and drawn."""

import json
import logging
import math

import cv2
import pytest

from fldet.analysis.log.analyze import read_logs
from fldet.analysis.log.pictures import plot_logs
from fldet.analysis.log.read import Series, read_log
from fldet.analysis.log.summary import smoothed, summarize_log
from fldet.errors import DataError, UsageError
from fldet.results import to_jsonable


def training(step, loss=1.0, **more):
    parts = {"loss": loss, "loss_cls": 0.75 * loss, "loss_bbox": 0.25 * loss}
    return {"lr": 0.01, "data_time": 0.1, **parts, "time": 0.5, "iter": step, "step": step, **more}


def validation(ap, step=0, **more):
    return {"coco/AP": ap, "coco/AP50": ap, "coco/AP75": ap, "time": 0.1, "step": step, **more}


def write(work_dir, *starts, name="vis_data/scalars.json"):
    for number, records in enumerate(starts, start=1):
        file = work_dir / f"2026010{number}_000000" / name
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return work_dir


def test_a_run_is_read_and_summed_up(tmp_path):
    records = [training(50, 4.0), training(100, 2.0), validation(0.3), training(150, 1.0)]
    run = read_log(write(tmp_path / "run", [*records, validation(0.2)]))
    assert run.train["loss"] == Series((50, 100, 150), (4.0, 2.0, 1.0))
    assert run.val["AP"] == Series((100, 150), (0.3, 0.2))  # the step in the file is 0
    summary = summarize_log(run, smooth=2)
    assert (summary.name, summary.starts, summary.iterations) == ("run", 1, 150)
    assert summary.losses == {"loss": 1.5, "loss_cls": 1.125, "loss_bbox": 0.375}
    assert (summary.best_ap, summary.best_iteration) == (0.3, 100)
    assert (summary.seconds_per_iteration, summary.data_loading_frac) == (0.5, 0.2)
    assert summary.seconds == 75
    assert (summary.not_finite, summary.val_losses) == (0, {})


def test_a_resumed_start_replaces_what_came_after_its_checkpoint(tmp_path):
    first = [training(50, 5), validation(0.1), training(100, 4), validation(0.9), training(150, 3)]
    second = [training(100, 2), validation(0.2), training(150, 1)]
    run = read_log(write(tmp_path, first, second))
    assert run.starts == 2
    assert run.train["loss"] == Series((50, 100, 150), (5, 2, 1))
    assert run.val["AP"] == Series((50, 100), (0.1, 0.2))
    assert summarize_log(run).seconds == 75


def test_a_step_that_is_an_iteration_is_taken_and_an_epoch_is_not(tmp_path):
    by_iteration = [training(50), validation(0.1, step=70), training(100), validation(0.2, 2)]
    run = read_log(write(tmp_path, by_iteration))
    assert run.val["AP"].iterations == (70, 100)


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"coco/bbox_mAP": 0.5, "coco/bbox_mAP_50": 0.6}, {"AP", "AP50"}),  # MMDetection's metric
        ({"val/coco/AP": 0.5, "val/val/loss": 1.0}, {"AP", "loss"}),  # log_with_hierarchy
        ({"val/loss": 1.0, "val/loss_cls": 0.5}, {"loss", "loss_cls"}),  # val_loss = True
    ],
)
def test_names_of_validation_figures(tmp_path, record, names):
    run = read_log(write(tmp_path, [training(50), {**record, "step": 0}]))
    assert set(run.val) - {"step"} == names


@pytest.mark.parametrize("name", ["vis_data/20260101_000000.json", "20260101_000000.json"])
def test_the_other_file_that_mmengine_writes_will_do(tmp_path, name):
    assert read_log(write(tmp_path, [training(50)], name=name)).train["loss"].values == (1.0,)


def test_results_and_tests_in_a_work_dir_are_no_logs(tmp_path):
    write(tmp_path, [training(50)])
    (tmp_path / "results.json").write_text("[1,\n2]")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "result.json").write_text("{\n}")
    tested = tmp_path / "20270101_000000"
    tested.mkdir()
    (tested / "20270101_000000.json").write_text('{"coco/AP": 0.5, "time": 0.1}')
    run = read_log(tmp_path)
    assert (run.starts, run.val) == (1, {})
    assert read_log(tmp_path / "20260101_000000").train["loss"].iterations == (50,)  # one start


def test_a_last_line_that_was_cut_off_is_skipped_with_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    file = write(tmp_path, [training(50)]) / "20260101_000000" / "vis_data" / "scalars.json"
    file.write_text(file.read_text() + '{"loss": 0.2, "it')
    assert read_log(tmp_path).train["loss"].iterations == (50,)
    assert f"{file}: from line 2 on it is cut off or damaged, and was skipped" in caplog.text


@pytest.mark.parametrize(
    "line",
    ['{"loss": 0.2, "it\n', "[1, 2]\n", '{"loss": 1, "step": "ten"}\n', "\0\0\0\n"],
    ids=["cut off inside", "no object", "step no number", "zeros"],
)
def test_a_broken_line_is_named(tmp_path, line):
    file = write(tmp_path, [training(50)]) / "20260101_000000" / "vis_data" / "scalars.json"
    file.write_text(file.read_text() + line + json.dumps(training(100)) + "\n")
    with pytest.raises(DataError, match=r"scalars\.json, line 2 is broken: "):
        read_log(tmp_path)


@pytest.mark.parametrize(
    "junk", [b"\xff\xfe\x80\n", b"\0" * 4096, b"[1]\n{\n", b"[" * 10**5 + b"\n"]
)
def test_what_a_power_loss_leaves_at_the_end_is_skipped(tmp_path, junk):
    file = write(tmp_path, [training(50)]) / "20260101_000000" / "vis_data" / "scalars.json"
    file.write_bytes(file.read_bytes() + junk)
    assert read_log(tmp_path).train["loss"].iterations == (50,)


@pytest.mark.parametrize("step", [-1, 2**70, True])
def test_a_step_that_cannot_be_is_a_broken_line(tmp_path, step):
    with pytest.raises(DataError, match="line 1 is broken"):
        read_log(write(tmp_path, [training(step), training(50)]))


def test_a_number_of_too_many_digits_is_infinite(tmp_path):
    run = read_log(write(tmp_path, [training(50, time=10**400)]))
    assert run.train["time"].values == (math.inf,)


def test_notes_beside_the_log_are_not_taken_for_it(tmp_path):
    file = write(tmp_path, [training(50)]) / "20260101_000000" / "vis_data" / "scalars.json"
    file.rename(file.with_name("20260101_000000.json"))
    file.with_name("1_notes.json").write_text("{}")
    assert read_log(tmp_path).train["loss"].iterations == (50,)


def test_a_folder_without_a_training_is_named(tmp_path):
    with pytest.raises(DataError, match="no scalars of a training in"):
        read_log(tmp_path)
    with pytest.raises(DataError, match="no such work dir: "):
        read_log(tmp_path / "none")
    with pytest.raises(DataError, match="no scalars of a training in"):
        read_log(write(tmp_path, [validation(0.1)]))


def test_runs_of_the_same_name_get_their_paths_and_too_many_are_refused(tmp_path):
    folders = [write(tmp_path / part / "run", [training(50)]) for part in "ab"]
    assert [run.name for run in read_logs(folders)] == [str(folder) for folder in folders]
    with pytest.raises(UsageError, match="8 runs in one figure"):
        read_logs([folders[0]] * 8)


@pytest.mark.parametrize(
    ("values", "count", "means"),
    [
        ([4, 2, 6], 1, [4, 2, 6]),
        ([4, 2, 6], 2, [4, 3, 4]),
        ([4, math.nan, 6], 2, [4, math.nan, 6]),  # shown where it happened, in no mean
        ([4, math.inf], 5, [4, math.nan]),
        ([], 3, []),
    ],
)
def test_smoothing(values, count, means):
    assert smoothed(values, count) == pytest.approx(means, nan_ok=True)


def test_a_diverged_run_says_so(tmp_path):
    records = [training(50), training(100, math.nan), training(150, math.inf)]
    summary = summarize_log(read_log(write(tmp_path, records)))
    assert summary.not_finite == 2
    assert math.isnan(summary.losses["loss"])
    assert summary.best_ap is None
    assert json.loads(json.dumps(to_jsonable(summary)))["losses"]["loss"] is None


def test_the_figure_has_log_scale_crosses_and_a_legend_of_runs(tmp_path):
    steep = [training(step, 100 / step**1.2) for step in range(1, 100)]
    one = read_log(write(tmp_path / "one", [*steep, validation(0.3)]))
    broken = [training(50, 2.0), training(100, math.nan), validation(math.nan)]
    other = read_log(write(tmp_path / "other", broken))
    paths = plot_logs([one, other], tmp_path / "log", smooth=2)
    assert [path.name for path in paths] == ["log.png", "log.svg"]
    assert cv2.imread(str(paths[0])).shape == (1100, 1500, 3)
    text = paths[1].read_text()
    for words in ("NaN or infinite", "one", "other", "mean of the last 2 logged points"):
        assert f"<!-- {words}" in text or f"{words} -->" in text
    assert r"\mathdefault{10^{1}}" in text


def test_a_run_of_one_point_without_times_can_be_drawn(tmp_path):
    run = read_log(write(tmp_path, [{"loss": 1.0, "iter": 3, "step": 3}]))
    summary = summarize_log(run)
    assert math.isnan(summary.seconds)
    assert math.isnan(summary.data_loading_frac)
    text = plot_logs([run], tmp_path / "log")[1].read_text()
    assert "no validation" in text
    assert "NaN or infinite" not in text
