"""A packaged model finds what the checkpoint finds, wherever a checkpoint is taken."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
import yaml

from fldet.checkpoints.files import read_checkpoint, weights_of
from fldet.checkpoints.model import load_test_config
from fldet.checkpoints.paths import best_checkpoint
from fldet.config.load import load_config
from fldet.engine.train import train
from fldet.errors import UsageError
from fldet.inference.detector import Detector
from fldet.package import write_package
from fldet.package.facts import Sources, training_data
from fldet.package.write import write_card
from fldet.registry import MODELS

pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """The tiny run with a test and thresholds; read-only."""
    folder = tmp_path_factory.mktemp("packaged") / "run"
    shutil.copytree(tiny_run[1], folder)
    figures = {"summary": {"AP": 0.25, "AP50": 0.5}, "num_images": 6}
    figures["per_class"] = {"square": 0.2, "circle": None}
    weights = best_checkpoint(folder)
    result = {"figures": figures, "checkpoint": str(weights)}
    (folder / "test").mkdir()
    (folder / "test" / "result.json").write_text(json.dumps({"result": result}))
    (folder / "thresholds.json").write_text('{"scores": {"square": 0.01, "circle": 0.02}}')
    return folder


@pytest.fixture(scope="module")
def package(run):
    return write_package(run, licence="Apache-2.0", name="Two *shapes*").folder


def test_it_holds_the_weights_and_finds_the_same(run, package, tiny_coco):
    path = best_checkpoint(run)
    weights = weights_of(read_checkpoint(path), path)
    packaged = read_checkpoint(package)["state_dict"]
    assert packaged.keys() == weights.keys()
    assert all(torch.equal(packaged[name], weights[name]) for name in weights)
    image = tiny_coco / "val2017" / "0.png"
    detectors = [Detector.load(one, device="cpu") for one in (run, package)]
    a, b = (one.predict(image, score_thr=0.0)[0] for one in detectors)
    assert len(a)
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)
    assert detectors[1].classes == ("circle", "square")
    assert detectors[1].thresholds.scores == {"square": 0.01, "circle": 0.02}
    assert Detector.load(package / "model.safetensors", device="cpu").classes == a.classes


def test_no_path_of_this_machine_is_in_it(run, package, tiny_coco):
    for file in package.iterdir():
        content = file.read_bytes()
        assert not any(str(path).encode() in content for path in (run, tiny_coco, run.parent))


def test_the_card_has_what_is_known_and_says_what_is_not(package):
    text = (package / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    facts = yaml.safe_load(head)
    assert (facts["license"], facts["pipeline_tag"]) == ("apache-2.0", "object-detection")
    assert facts["fldet"]["classes"] == ["circle", "square"]
    assert facts["fldet"]["training_images"] == 6
    assert len(facts["fldet"]["training_data_sha256"]) == 64
    (result,) = facts["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "AP", "value": 25.0}, {"type": "AP50", "value": 50.0}]
    assert "# Two \\*shapes\\*" in body
    assert "| square | 4 | 20.0 | 0.010 |" in body
    assert "| circle | 5 | - | 0.020 |" in body
    assert "## Intended use\n\n*To be filled in" in body
    assert "Seen fewer than 50 times in training: circle, square" in body
    assert "- Spread: one training" in body


def test_spread_over_seeds_and_folds(run, tmp_path):
    other = tmp_path / "other" / "test"
    other.mkdir(parents=True)
    result = json.loads((run / "test" / "result.json").read_text())
    result["result"]["figures"]["summary"] = {"AP": 0.35, "AP50": 0.5}
    (other / "result.json").write_text(json.dumps(result))
    row = {"name": "AP", "folds": [20.0, 30.0], "mean": 25.0, "deviation": 7.07, "together": 26.0}
    (tmp_path / "cross_validation.json").write_text(json.dumps({"result": {"figures": [row]}}))
    sources = Sources(folds=tmp_path, other_seeds=(tmp_path / "other",))
    done = write_package(run, out=tmp_path / "out", sources=sources)
    text = (tmp_path / "out" / "README.md").read_text()
    assert (
        "| in percent | these weights, 6 images | 2 folds, mean ± sd | 2 seeds, mean ± sd |" in text
    )
    assert "| AP | 25.0 | 25.0 ± 7.1 | 30.0 ± 7.1 |" in text
    assert "**not stated**" in text
    assert "license" not in yaml.safe_load(text.split("---\n")[1])
    assert not any("Spread" in gap for gap in done.gaps)


def test_figures_of_other_weights_are_not_taken(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("package"))
    file = copy / "test" / "result.json"
    file.write_text(file.read_text().replace("best_", "other_"))
    done = write_package(copy, out=tmp_path / "out")
    assert any(gap.startswith("Figures: the test is of other_") for gap in done.gaps)
    assert "Not tested. AP in validation" in (tmp_path / "out" / "README.md").read_text()


def test_what_is_there_is_not_overwritten(run, package, tmp_path):
    with pytest.raises(UsageError, match="package exists"):
        write_package(run)
    with pytest.raises(UsageError, match="--licence"):
        write_package(run, out=tmp_path / "x", licence="MIT\nevil: 1")
    (tmp_path / "folds.json").touch()
    with pytest.raises(UsageError, match="models of all folds"):
        write_package(tmp_path)


def test_the_digest_is_of_names_classes_and_boxes_in_any_order():
    def digest(*, name="a.jpg", x=1.0, kind="cat", swap=False):
        images = [{"id": 1, "file_name": name}, {"id": 2, "file_name": "b/c.jpg"}]
        boxes = [
            {"id": i, "image_id": 1, "category_id": 7, "bbox": [x + i, 2, 3, 4]} for i in (1, 2)
        ]
        content = {"images": images[:: -1 if swap else 1], "annotations": boxes[:: 1 - 2 * swap]}
        return training_data([{**content, "categories": [{"id": 7, "name": kind}]}], [kind])

    plain = digest()
    assert (plain.images, plain.objects) == (2, {"cat": 2})
    assert digest(swap=True) == plain
    assert digest(name="/elsewhere/a.jpg") == plain
    others = (digest(name="d.jpg"), digest(x=1.02), digest(kind="dog"))
    assert len({one.digest for one in (plain, *others)}) == 4


def test_commands_take_it_for_a_checkpoint(fldet, package, tiny_coco, tiny_config, tmp_path):
    data = f"data_root={tiny_coco}"
    alone = ("test", package, "--work-dir", tmp_path / "a", "--cfg-options", data)
    done = fldet(*alone, "test_dataloader.num_workers=0",
                 "test_dataloader.persistent_workers=False", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = fldet("test", tiny_config, package, "--work-dir", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    files = [tmp_path / name / "detections.json" for name in "ab"]
    assert files[0].read_text() == files[1].read_text()
    done = fldet("predict", package, tiny_coco / "val2017", "--out", tmp_path / "p", "--json")
    assert json.loads(done.stdout)["result"]["images"] == 6
    done = fldet("report", package)
    assert "a packaged model" in done.stderr


def test_the_card_of_an_exported_model_runs_no_config(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("package"))
    (copy / "tiny.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n")
    (tmp_path / "m.onnx").write_bytes(b"0" * 2**20)
    card = write_card(copy, tmp_path / "m.onnx", licence="MIT")
    assert card == tmp_path / "m.onnx.md"
    text = card.read_text()
    assert "1.0 MiB" in text
    assert "| licence | MIT |" in text
    assert "fldet predict m.onnx PICTURES" in text
    assert "Training data: not known" in text
    assert "| AP | 25.0 |" in text
    assert not (tmp_path / "ran").exists()


def test_the_config_may_be_of_another_number_of_classes(run, tiny_config, tmp_path):
    config = tmp_path / "eighty.py"
    config.write_text(
        f"_base_ = {str(tiny_config)!r}\nmodel = dict(bbox_head=dict(num_classes=80))\n"
    )
    (tmp_path / "m.onnx").write_bytes(b"0")
    card = write_card(run, tmp_path / "m.onnx", config=str(config)).read_text()
    assert "A detector of 2 classes" in card
    assert card == write_card(run, tmp_path / "m.onnx").read_text()


def test_code_beside_what_is_read_is_not_run(package, tiny_coco, tmp_path):
    evil = shutil.copytree(package, tmp_path / "evil")
    ran = tmp_path / "ran"
    config = evil / "config.py"
    code = f"import os\nos.mkdir({str(ran)!r})\ncustom_imports = dict(imports=['antigravity'])\n"
    config.write_text(code + config.read_text())
    for name in ("last_checkpoint", "iter_1.pth", "__init__.py"):
        (evil / name).write_text(code)
    detector = Detector.load(evil, device="cpu")
    assert len(detector.predict(tiny_coco / "val2017" / "0.png", score_thr=0.0)[0])
    load_test_config(evil)
    assert not ran.exists()


def test_a_training_starts_from_it_and_keeps_the_classes_that_both_know(
    package, tiny_config, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    caplog.set_level(logging.INFO, "fldet")
    options = [f"load_from={package}", "train_cfg.max_iters=1", "classes=('square',)"]
    cfg = load_config(tiny_config, [*options, "optim_wrapper.optimizer.lr=0.0"])
    result = train(cfg, work_dir=tmp_path / "run", device="cpu")
    key = "bbox_head.retina_cls.weight"
    before = read_checkpoint(package)["state_dict"][key].reshape(9, 2, -1)
    after = read_checkpoint(result.last_checkpoint)["state_dict"][key].reshape(9, 1, -1)
    assert torch.equal(after[:, 0], before[:, 1])
    assert "kept by class: 'square'; none starts anew" in caplog.text
    backbone = {**cfg.model.backbone, "init_cfg": None}
    init = dict(type="Pretrained", checkpoint=str(package), prefix="backbone.")
    part = MODELS.build({**backbone, "init_cfg": init})
    part.init_weights()
    stem = read_checkpoint(package)["state_dict"]["backbone.conv1.weight"]
    assert torch.equal(part.state_dict()["conv1.weight"], stem)
