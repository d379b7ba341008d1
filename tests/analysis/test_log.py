"""Logs as MMEngine writes them, joined, summed up and drawn."""

import json
import logging
import math
import tracemalloc

import cv2
import pytest

from fldet.analysis.log.analyze import analyze_log, read_logs
from fldet.analysis.log.pictures import plot_logs
from fldet.analysis.log.read import MOST_DRAWN, Series, drawn_losses, loss_parts, read_log
from fldet.analysis.log.summary import smoothed, summarize_log
from fldet.cli.analyze.log import run_text
from fldet.errors import DataError, UsageError
from fldet.files import MIB
from fldet.report.charts import training_charts
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


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (1e99, 1e99),
        (1e101, math.inf),
        (-1e308, -math.inf),
        (10**300, math.inf),
        (-(10**400), -math.inf),
        (1e-101, 0.0),
        (-5e-324, 0.0),
        (True, 1.0),
    ],
)
def test_numbers_are_such_as_can_be_drawn(tmp_path, value, read):
    run = read_log(write(tmp_path, [training(50, time=value)]))
    assert run.train["time"].values == (read,)


EXTREMES = (0, -5, 1e15, 1e99, -1e99, 1e300, 1e308, 1e-99, 5e-324, 10**300, 10**400)


@pytest.mark.parametrize("key", ["time", "data_time", "lr", "loss", "coco/AP", "val/loss"])
@pytest.mark.parametrize("value", [*EXTREMES, math.inf, -math.inf, math.nan])
def test_extreme_numbers_are_summed_up_and_drawn(tmp_path, key, value):
    """In fsum, on an axis, in a share of two of them; three in a row, for the mean."""
    records = [training(step) for step in (50, 2**53 - 1, 2**53)]
    records = [{**training(10 * i), "coco/AP": 0.1, key: value} for i in (1, 2, 3)] + records
    validations = [{"coco/AP": 0.1, "val/loss": 1.0, "step": 0, key: value} for _ in range(3)]
    run = read_log(write(tmp_path, [*records, *validations]))
    text = run_text([summarize_log(run, smooth=3)], 3, plot_logs([run], tmp_path / "a", smooth=3))
    assert max(map(len, text.split("\n"))) < 200
    assert all("<figure" in chart for chart in training_charts(run))


@pytest.mark.parametrize(
    "name",
    ["loss_\ud800", "loss_\x1b[31m", "loss_$x^{", "loss_\n", "loss_" + "W" * 10**5],
)
def test_names_are_such_as_can_be_printed_and_drawn(tmp_path, name):
    records = [training(50, **{name: 7.0}), validation(0.1, **{f"val/{name}": 7.0})]
    run = read_log(write(tmp_path, records))
    shown = list(run.train)[-1]
    assert len(shown) <= 103
    assert run.val[shown].values == run.train[shown].values == (7.0,)
    files = plot_logs([run], tmp_path / "a")
    text = run_text([summarize_log(run)], 1, files) + "".join(training_charts(run))
    text.encode()
    assert shown.split("\n")[0][:20] in text


def test_a_figure_has_room_for_so_many_losses(tmp_path):
    many = {f"loss_{i}": 1.0 for i in range(2000)}
    runs = [read_log(write(tmp_path / one, [training(50, **many)])) for one in "ab"]
    assert len(loss_parts(runs[0].train)) == 2003
    assert [*drawn_losses(runs[0].train)][:4] == ["loss", "loss_cls", "loss_bbox", "loss_0"]
    text = plot_logs(runs, tmp_path / "log")[1].read_text()
    shown = [i for i in range(2000) if f"loss_{i} -->" in text]
    assert shown == list(range(MOST_DRAWN - 3))
    assert "1983 more, not drawn" in text
    assert sum(chart.count("<li>") for chart in training_charts(runs[0])) == MOST_DRAWN


def test_two_runs_with_other_losses_share_the_room(tmp_path):
    parts = [{f"loss_{one}{i}": 1.0 for i in range(30)} for one in "ab"]
    runs = [
        read_log(write(tmp_path / str(i), [training(50, **part)])) for i, part in enumerate(parts)
    ]
    text = plot_logs(runs, tmp_path / "log")[1].read_text()
    assert "43 more, not drawn" in text


@pytest.mark.parametrize("most", [19, 20, 39, 40])
def test_the_numbers_of_a_run_are_bounded(tmp_path, monkeypatch, most):
    starts = [[training(50), training(100)], [training(150), training(200)]]
    monkeypatch.setattr("fldet.analysis.log.read._MOST_NUMBERS", most)
    count = sum(len(record) for start in starts for record in start)
    folder = write(tmp_path, *starts)
    if most >= count:
        assert read_log(folder).starts == 2
    else:
        with pytest.raises(DataError, match=f"more than {most} numbers in the log of a run"):
            read_log(folder)


def test_a_line_without_end_is_not_held(tmp_path):
    file = write(tmp_path, [training(50)]) / "20260101_000000" / "vis_data" / "scalars.json"
    with file.open("ab") as opened:
        opened.truncate(64 * MIB)
    tracemalloc.start()
    assert read_log(tmp_path).train["loss"].iterations == (50,)
    assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["\udcff" * 60, "\u7bb1" * 80, "a" * 200])
def test_the_figure_of_a_run_with_any_name(tmp_path, name):
    folder = write(tmp_path / name, [training(50)])
    done = analyze_log([folder], out_dir=tmp_path / "out")
    assert all(file.is_file() for file in done.files)


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
