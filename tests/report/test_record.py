"""What ``fldet report`` finds in a work dir, and what it does where something is missing."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fldet.analysis.loss_cdf.curves import Procedure, Sample, loss_cdf_of, read_curves, write_json
from fldet.cli.main import app
from fldet.engine.test import test as run_test
from fldet.errors import ConfigError, DataError
from fldet.report.content import find_loss_cdf
from fldet.report.record import read_run


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    """A work dir after four iterations and a test, and the config that it was made by."""
    cfg, trained = tiny_run
    work_dir = shutil.copytree(trained, tmp_path_factory.mktemp("finished") / "run")
    run_test(cfg, work_dir, work_dir=work_dir / "test", device="cpu")
    return work_dir, cfg.filename


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "run")


def _sample(config, checkpoint):
    logits = np.array([-1.0, 2.0], np.float32)
    made = Procedure(config, checkpoint, "val", "anchor-class", 1, 0, 2, 2)
    return Sample(logits, logits, made)


def report(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_a_run_with_a_test(finished):
    work_dir, source = finished
    record = read_run(work_dir, base=str(source))
    assert (record.name, record.config, record.gaps) == ("run", "tiny", ())
    assert record.environment["seed"] == "0"
    assert record.environment["device"]
    assert {"Python", "PyTorch", "MMEngine"} <= set(record.environment)
    # The learning rate follows the batch, and that is said; paths and classes are no choice.
    assert [(one.key, one.a, one.b) for one in record.changes] == [
        ("default_hooks.logger.interval", 50, 2),
        ("model.bbox_head.prior_prob", 0.01, 0.2),
        ("optim_wrapper.optimizer.lr", 0.01, pytest.approx(0.00125)),
    ]
    tested = record.tested
    assert tested.truth.images == (5, 15, 25, 35, 45, 55)
    assert sorted(tested.truth.categories.values()) == ["circle", "square"]
    assert tested.file_names[15] == "1.png"
    assert (tested.image_dir / "1.png").is_file()
    assert len(tested.detections) == record.result.figures.num_detections > 0


def test_the_page_of_a_run(finished, tmp_path, capfd):
    work_dir, source = finished
    page = tmp_path / "page.html"
    done = report(work_dir, "--config", source, "--out", page, "--images", 4, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(capfd.readouterr().out)["result"]
    assert result["page"] == str(page)
    assert result["images"] == 4
    assert result["size_mib"] == pytest.approx(page.stat().st_size / 2**20)
    assert len(result["gaps"]) == 1
    assert "fldet analyze loss-cdf" in result["gaps"][0]
    text = page.read_text()
    ids = ("figures", "mistakes", "curves", "training", "run", "gallery")
    assert [f'<section id="{name}"' in text for name in ids] == [True] * len(ids)
    assert text.count('<li class="card">') == 4
    figures = json.loads((work_dir / "test" / "result.json").read_text())["result"]["figures"]
    assert f"<dt>AP</dt><dd>{figures['summary']['AP']:.3f}</dd>" in text


def test_the_images_of_a_part_of_the_data_only(run):
    path = run / "test" / "result.json"
    content = json.loads(path.read_text())
    content["result"]["image_ids"] = [15, 5]
    path.write_text(json.dumps(content))
    detections = run / "test" / "detections.json"
    kept = [one for one in json.loads(detections.read_text()) if one["image_id"] in (5, 15)]
    detections.write_text(json.dumps(kept))
    tested = read_run(run).tested
    assert tested.truth.images == (5, 15)
    assert {one["image_id"] for one in tested.truth.annotations} == {5, 15}


def test_without_a_test_the_command_that_makes_one_is_named(run, capfd):
    shutil.rmtree(run / "test")
    done = report(run, "--quiet")
    assert done.exit_code == 0, done.output
    assert capfd.readouterr().out.strip() == str(run / "report.html")
    text = (run / "report.html").read_text()
    assert f"fldet test {run / 'tiny.py'} {run} --work-dir {run / 'test'}" in text
    assert '<section id="training"' in text
    assert '<section id="gallery"' not in text
    assert "name one by --config" not in text  # a config of one's own is no gap


def test_without_detections_there_are_figures(run):
    (run / "test" / "detections.json").rename(run / "test" / "elsewhere.json")
    path = run / "test" / "result.json"
    path.write_text(path.read_text().replace("/finished", "/gone"))
    record = read_run(run)
    assert record.tested is None
    assert "kept no detections" in record.gaps[-1]
    assert record.result.figures.num_images == 6


def test_data_that_moved_are_named_and_can_be_given(run, tiny_coco):
    for config in (run / "tiny.py", run / "test" / "tiny.py"):
        config.write_text(config.read_text().replace(str(tiny_coco), "/nowhere"))
    record = read_run(run)
    assert record.tested is None
    assert "annotation file not found: /nowhere" in record.gaps[-1]
    assert "--cfg-options data_root=FOLDER" in record.gaps[-1]
    assert read_run(run, overrides=[f"data_root={tiny_coco}/"]).tested is not None


def test_a_test_alone_has_a_page(run, capfd):
    done = report(run / "test", "--images", 0)
    assert done.exit_code == 0, done.output
    text = (run / "test" / "report.html").read_text()
    assert '<section id="mistakes"' in text
    assert '<section id="training"' not in text
    assert '<section id="gallery"' not in text
    assert "No curves of the training" in capfd.readouterr().out


def test_the_loss_of_this_run_is_found_and_another_is_not(run, capfd):
    values = loss_cdf_of(_sample("tiny", "iter_4.pth"))
    place = run.parent / "analysis" / "loss_cdf_tiny_val.json"
    write_json(loss_cdf_of(_sample("other", "iter_4.pth")), place)
    assert report(run, "--images", 0).exit_code == 0
    assert '<section id="loss"' not in (run / "report.html").read_text()
    write_json(values, place)
    assert read_curves(place) == values
    assert report(run, "--images", 0).exit_code == 0
    assert '<section id="loss"' in (run / "report.html").read_text()


def test_a_config_that_needs_what_is_gone_is_a_gap(finished, run, capfd):
    for config in (run / "tiny.py", run / "test" / "tiny.py"):
        config.write_text(f"{config.read_text()}\ncustom_imports = dict(imports=['a_plugin'])\n")
    done = report(run, "--config", finished[1], "--images", 0)
    assert done.exit_code == 0, done.output
    record = read_run(run, base=str(finished[1]))
    assert (record.compared_with, record.changes, record.tested) == ("", (), None)
    assert record.result.figures.num_images == 6
    comparison, gallery = record.gaps
    assert comparison.startswith(f"No comparison with {finished[1]}: {run / 'tiny.py'}: ")
    assert "Failed to import" in comparison
    assert gallery.startswith("No gallery: ")
    assert comparison in " ".join(capfd.readouterr().out.split())


def pipe(path):
    os.mkfifo(path)


def link(target):
    return lambda path: path.symlink_to(target)


UNREADABLE = {
    "pipe": (pipe, "is a pipe, socket or device"),
    "endless": (link("/dev/zero"), "is a pipe, socket or device"),
    "to nothing": (link("nowhere"), "log not found"),
    "to itself": (link("z.log"), "cannot read"),
    "folder": (Path.mkdir, "is a folder"),
}


@pytest.mark.skipif(os.name != "posix", reason="kinds of files that POSIX has")
@pytest.mark.parametrize(("make", "words"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_log_that_cannot_be_read_is_a_gap(finished, run, make, words):
    folder = max(path.parent for path in run.glob("*/*.log"))
    make(folder / "z.log")
    record = read_run(run, base=str(finished[1]))
    assert record.environment["seed"] == "0"  # of the log before
    (gap,) = record.gaps
    assert gap.startswith(f"Not read for seed and versions: {folder / 'z.log'} ") or words in gap
    assert words in gap


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"\0" * 10**6, b"    seed: 7", b"    seed: " + b"9" * 10**6, b"\n" * 10**6],
)
def test_of_a_log_the_head_is_read(run, data):
    folder = max(path.parent for path in run.glob("*/*.log"))
    (folder / "z.log").write_bytes(data)
    seed = read_run(run).environment.get("seed")
    assert seed == ("7" if data == b"    seed: 7" else None)


@pytest.mark.skipif(os.name != "posix", reason="kinds of files that POSIX has")
@pytest.mark.parametrize(
    "make", [pipe, Path.mkdir, link("/dev/zero"), link("nowhere"), link("zz.py")]
)
@pytest.mark.parametrize("folder", ["", "test"])
def test_what_is_no_config_is_passed_over(finished, run, make, folder):
    make(run / folder / "zz.py")
    record = read_run(run, base=str(finished[1]))
    assert (record.config, record.gaps) == ("tiny", ())
    assert record.tested is not None


@pytest.mark.parametrize(
    "line",
    [
        *(f"train_dataloader = {value}" for value in (5, "'x'", "[1]", "dict(dataset=5)")),
        "train_dataloader = dict(dataset=dict(type=5))",
        "train_dataloader = dict(dataset=dict(type='CocoDataset', metainfo=5))",
        "train_dataloader = dict(dataset=dict(type='CocoDataset', metainfo=dict(classes=[[1]])))",
        *(f"test_dataloader = {value}" for value in (5, "'x'", "dict(dataset=5)")),
        "test_dataloader = dict(dataset=dict(type=5))",
        "test_dataloader = dict(dataset=dict(datasets=7))",
        "test_dataloader = dict(dataset=dict(type='CocoDataset', pipeline=5))",
        "test_dataloader = dict(dataset=dict(type='CocoDataset', metainfo=5))",
        "test_evaluator = 5",
        "model = 5",
    ],
)
def test_a_config_of_wrong_types_is_a_gap(finished, run, line):
    (run / "test" / "zz.py").write_text(line)
    (run / "zz.py").write_text(line)
    record = read_run(run, base=str(finished[1]))
    assert record.tested is None
    assert [gap for gap in record.gaps if gap.startswith("No gallery: ")]


def test_folders_and_configs_that_are_not_there(tmp_path, run):
    with pytest.raises(DataError, match="no such work dir"):
        read_run(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"none\.py"):
        read_run(run, base="none.py")
    (tmp_path / "empty").mkdir()
    assert report(tmp_path / "empty").exit_code == 1


def test_what_lies_about_in_a_work_dir_does_not_end_the_report(run):
    """Pipes, links to nowhere, folders and files of another kind are passed over or named."""
    (run / "zz.py").symlink_to(run / "nowhere.py")
    (run / "test" / "zz.py").mkdir()
    (run / "zz").mkdir()
    os.mkfifo(run / "zz" / "zz.log")
    (run / "loss_cdf_a.json").symlink_to(run / "nowhere.json")
    (run / "loss_cdf_b.json").write_text("{")
    (run / "loss_cdf_c.json").mkdir()
    record = read_run(run)
    assert record.config == "tiny"
    assert record.tested is not None
    gaps = record.gaps
    assert any("zz.log is a pipe" in gap for gap in gaps)
    found = []
    assert find_loss_cdf("tiny", run, found) is None
    assert sorted(gap.partition("loss_cdf_")[2][0] for gap in found) == ["a", "b", "c"]


def test_a_long_log_is_not_read_whole(run):
    (run / "zz").mkdir()
    with (run / "zz" / "zz.log").open("wb") as file:
        file.write(b"    seed: 7\n" + b"x" * 2**20)
        file.truncate(2**33)
    assert read_run(run).environment["seed"] == "7"


@pytest.mark.parametrize("text", ["{}", '{"command": "test", "version": "1", "result": 5}', "["])
def test_a_result_that_cannot_be_read_is_a_gap(run, text):
    (run / "test" / "result.json").write_text(text)
    record = read_run(run)
    assert (record.result, record.tested) == (None, None)
    assert any(gap.startswith("No test: ") and "result.json" in gap for gap in record.gaps)
    page = run / "page.html"
    assert report(run, "--out", page).exit_code == 0
    assert '<section id="training"' in page.read_text()


@pytest.mark.parametrize(
    "line",
    [
        "test_dataloader = dict(dataset=dict(type=5))",
        "test_dataloader = 5",
        "train_dataloader = 5",
        "test_dataloader = dict(dataset=dict(_delete_=True, ann_file=[]))",
    ],
)
def test_a_config_whose_values_are_of_other_types_is_a_gap(finished, run, line):
    for config in (run / "tiny.py", run / "test" / "tiny.py"):
        config.write_text(f"{config.read_text()}\n{line}\n")
    record = read_run(run, base=str(finished[1]))
    assert record.tested is None
    assert record.gaps[-1].startswith("No gallery: ")
    assert report(run, "--config", finished[1], "--images", 0).exit_code == 0
