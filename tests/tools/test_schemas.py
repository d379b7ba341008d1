"""docs/schemas says what fldet prints and writes; other tests hold each output against it."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import schema_check
from typer.main import get_command

from fldet.cli.main import app
from fldet.inference.detector import Detector
from fldet.package.write import write_package
from fldet.results import to_json

pytest.importorskip("jsonschema")
TOOL = Path(__file__).parents[2] / "tools" / "generate_schemas.py"

# Names in the JSON that are not the words of the command.
OTHER_NAMES = {"benchmark predict": "benchmark", "benchmark train": "benchmark --train"}


def with_json(command, words=()):
    """Yields the words of every command below one that has ``--json``."""
    for name in getattr(command, "commands", {}):
        yield from with_json(command.commands[name], (*words, name))
    if any("--json" in one.opts for one in command.params):
        yield " ".join(words)


COMMANDS = sorted(with_json(get_command(app)))


@pytest.fixture(scope="module")
def tool():
    kept = sys.modules["fldet.cli.printed"]  # which the tool imports anew, with all its types
    spec = importlib.util.spec_from_file_location("generate_schemas", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.made = module.schemas()
    yield module
    sys.modules["fldet.cli.printed"] = kept


def test_every_command_that_prints_json_has_a_schema(tool):
    assert len(COMMANDS) > 30
    for command in COMMANDS:
        assert OTHER_NAMES.get(command, command) in tool.COMMANDS
        assert schema_check.schema_file(OTHER_NAMES.get(command, command)).exists()


def test_the_schemas_are_those_of_the_code(tool):
    there = {path.name: json.loads(path.read_text()) for path in tool.FOLDER.glob("*.json")}
    assert there == tool.made, "make docs"


def test_what_is_not_printed_or_lacks_is_seen():
    content = {
        "schema": 1,
        "command": "report",
        "version": "0.1.0",
        "commit": None,
        "result": {"page": "a.html", "size_mib": 0.1, "images": 3, "gaps": []},
    }
    assert schema_check.faults("report", content) == []
    result = content["result"]
    for change in ({"images": "3"}, {"more": 1}, {"gaps": None}):
        content["result"] = {**result, **change}
        assert schema_check.faults("report", content)
    content["result"] = {key: one for key, one in result.items() if key != "page"}
    assert schema_check.faults("report", content)


@pytest.mark.slow
def test_files_of_a_run_fit_their_schemas(fldet, tiny_run, tiny_config, tiny_coco, tmp_path):
    """Of a test, of predictions and of the analyses of mistakes and labels."""
    pytest.importorskip("safetensors")
    work = tiny_run[1]
    tested = tmp_path / "tested"
    done = fldet("test", tiny_config, work, "--work-dir", tested, "--json")
    assert done.returncode == 0, done.stderr
    assert schema_check.faults("test", json.loads((tested / "result.json").read_text())) == []
    found = tmp_path / "found"
    done = fldet("predict", work, tiny_coco / "val2017", "--out", found, "--json")
    lines = (found / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 6
    for line in lines:
        assert schema_check.faults("predictions.jsonl", json.loads(line)) == []
    truth = tiny_coco / "annotations" / "instances_val2017.json"
    errors = tmp_path / "errors"
    done = fldet(
        *("analyze", "errors", truth, tested / "detections.json", "--images"),
        *(tiny_coco / "val2017", "--out-dir", errors, "--json"),
    )
    assert done.returncode == 0, done.stderr
    (file,) = errors.rglob("errors.json")
    assert schema_check.faults("errors.json", json.loads(file.read_text())) == []
    packaged = write_package(work, out=tmp_path / "package")
    assert schema_check.faults("package", json.loads(to_json("package", packaged))) == []
    assert Detector.load(packaged.folder, device="cpu").classes == packaged.classes


def test_files_of_folds_fit_their_schemas(fldet, tiny_coco, tmp_path):
    """Of a division, thresholds, labels and the record of a run."""
    from doc_sandbox import Sandbox

    from fldet.runs.run import Record

    sandbox = Sandbox(tmp_path / "reader", tiny_coco, "", None)
    done = fldet("data", "split", tiny_coco, "--folds", 2, "--out", tmp_path / "folds", "--json")
    assert done.returncode == 0, done.stderr
    Record().write(tmp_path)
    folds = sandbox.folder / "FOLDS_DIR"
    for name in ("thresholds", "labels"):
        out = tmp_path / name
        done = fldet("analyze", name, folds, "--out-dir", out, "--json")
        assert done.returncode == 0, done.stderr
    files = [*tmp_path.glob("*/*.json"), tmp_path / "run.json"]
    named = {file.name: file for file in files if schema_check.schema_file(file.name).exists()}
    assert set(named) == {"folds.json", "thresholds.json", "labels.json", "run.json"}
    for name, file in named.items():
        assert schema_check.faults(name, json.loads(file.read_text())) == []
