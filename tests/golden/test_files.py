"""What version 0.1.0 has written is read by this one: files_0.1.0/ and work_dir/ beside this."""

import json
import shutil
from pathlib import Path

import pytest
import schema_check
from mmengine.registry import init_default_scope

from fldet.analysis.errors import result as errors
from fldet.analysis.labels import result as labels
from fldet.analysis.log.analyze import analyze_log
from fldet.analysis.thresholds import result as thresholds
from fldet.checkpoints.files import read_checkpoint
from fldet.checkpoints.literals import read_literals
from fldet.checkpoints.model_folder import WEIGHTS, write_weights_file
from fldet.checkpoints.stored_config import stored_config
from fldet.config.load import load_config
from fldet.data.folds.files import list_of_fold, read_folds
from fldet.engine.results import TestResult
from fldet.engine.start import find_start
from fldet.evaluation.thresholds import read_thresholds
from fldet.inference.detector import Detector
from fldet.inference.folder import read_lines
from fldet.package.facts import Sources, collect_facts
from fldet.registry import MODELS
from fldet.report.record import read_run
from fldet.results import read_stored
from fldet.runs.outcome import read_outcome
from fldet.runs.run import read_record

FILES = Path(__file__).with_name("files_0.1.0")
WORK_DIR = Path(__file__).with_name("work_dir")


def test_results_of_tests():
    file = FILES / "result.json"
    result = read_stored(file, TestResult, "result", what="result")
    assert (result.checkpoint, result.figures.num_images) == (
        Path("run/best_coco_AP_iter_4.pth"),
        6,
    )
    assert set(result.figures.per_class) == {"circle", "square"}
    assert read_outcome(file).figures["AP"] == pytest.approx(100 * result.figures.summary["AP"])


def test_records_of_runs_folds_and_predictions(tmp_path):
    shutil.copy(FILES / "run.json", tmp_path)
    record = read_record(tmp_path)
    assert (record.state, record.steps, record.images) == ("done", ("train", "test"), 2)
    shutil.copy(FILES / "folds.json", tmp_path)
    for number in (1, 2):
        list_of_fold(tmp_path, number).write_text("[]")
    assert (read_folds(tmp_path).count, read_folds(tmp_path).images) == (2, 6)
    lines = list(read_lines(FILES / "predictions.jsonl"))
    assert [len(line["boxes"]) for line in lines] == [len(line["scores"]) for line in lines]
    assert lines[0]["boxes"]


def test_analyses():
    found = errors.load(FILES / "errors.json")
    assert (found.images, found.classes) == (6, ("circle", "square"))
    assert len(labels.load(FILES / "labels.json").images) == 6
    scores = thresholds.load(FILES / "thresholds.json").thresholds.scores
    assert read_thresholds(FILES / "thresholds.json").scores == scores
    assert set(scores) == {"circle", "square"}


def test_folds_and_times_for_a_card():
    sources = Sources(folds=FILES, speed=FILES / "speed.json")
    weights = WORK_DIR / "iter_10.pth"
    facts = collect_facts(weights, weights, {}, ("a",), sources, runs_config=False)
    assert facts.repeated[0].figures["AP"].mean == 100.0
    assert facts.speed.image_shape == (96, 96)


def test_they_still_have_the_shape_of_the_schemas():
    """Fields may be added, with defaults, but none is renamed or dropped."""
    pytest.importorskip("jsonschema")
    for name in ("errors.json", "folds.json", "labels.json", "run.json", "thresholds.json"):
        faults = schema_check.faults(name, json.loads((FILES / name).read_text()))
        assert not [one for one in faults if "is a required property" not in one]


def test_a_packaged_model(tmp_path):
    pytest.importorskip("safetensors")
    shutil.copy(FILES / "package" / "config.py", tmp_path)
    content = {"meta": {"cfg": (tmp_path / "config.py").read_text()}}
    init_default_scope("mmdet")
    model = MODELS.build(stored_config(content, tmp_path).model)
    write_weights_file(model.state_dict(), tmp_path / WEIGHTS)
    assert Detector.load(tmp_path, device="cpu").classes == ("circle", "square")


@pytest.mark.slow
def test_a_work_dir(tmp_path):
    """Its log, its page, where it is gone on from; test_golden does the rest."""
    run = shutil.copytree(WORK_DIR, tmp_path / "run")
    (summary,) = analyze_log([run], out_dir=tmp_path / "figures").result
    assert summary.iterations == 20
    assert read_run(run).config == "tiny"
    start = find_start(run, load_config(run))
    assert (start.iteration, start.images, start.seed) == (10, 2, 0)
    assert len(Detector.load(run, device="cpu").classes) == 6
    meta = read_checkpoint(run / "iter_10.pth")["meta"]
    assert "model" in read_literals(meta["cfg"], run)
