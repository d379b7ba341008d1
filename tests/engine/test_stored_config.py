"""What a checkpoint says about its model is read, never run."""

from pathlib import Path

import pytest

from fldet.config import format_config, load_config
from fldet.engine.stored_config import find_pipeline, read_literals, stored_config
from fldet.errors import CheckpointError

FILE = Path("x.pth")


def stored(text):
    return stored_config({"meta": {"cfg": text}}, FILE)


def test_the_resolved_config_comes_back_whole(tiny_config):
    cfg = load_config(tiny_config, ["train_cfg.max_iters=7"])
    again = stored(format_config(cfg))
    assert again.to_dict() == cfg.to_dict()


def test_keys_that_are_no_names_infinities_and_nested_dicts():
    values = read_literals("a = dict({'x y': dict(b=(1, [2]))})\nc = {'d': inf}\ne: int\nf = g(1)")
    assert values == {"a": {"x y": {"b": (1, [2])}}, "c": {"d": float("inf")}}


def test_no_code_in_it_is_run(tmp_path):
    marker = tmp_path / "ran"
    text = f"import os\nos.mkdir({str(marker)!r})\nmodel = dict(type='RetinaNet')\n"
    cfg = stored(text + f"x = os.mkdir({str(marker)!r})")
    assert cfg.model.type == "RetinaNet"
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("model = dict(type='subprocess.Popen', args=['true'])", "subprocess.Popen"),
        ("model = dict(backbone=dict(norm_cfg=dict(type='os.system')))", "os.system"),
        ("model = dict(_scope_='evil', type='Net')", "evil"),
        ("default_scope = 'evil'\nmodel = dict(type='Net')", "evil"),
        ("model = {}\ntest_pipeline = [dict(type='a.b.C')]", "a.b.C"),
        ("model = dict(type='fldet.engine.train.train')", "fldet.engine.train.train"),
    ],
)
def test_a_checkpoint_may_only_name_what_is_registered(text, name):
    with pytest.raises(CheckpointError, match=name) as error:
        stored(text)
    assert "--config" in error.value.hint


def test_text_that_is_not_python():
    with pytest.raises(CheckpointError, match="not Python: line 1"):
        stored("model = dict(")


@pytest.mark.parametrize("content", [{}, {"meta": None}, {"meta": {"cfg": {"a": 1}}}])
def test_a_checkpoint_without_a_config(content):
    assert stored_config(content, FILE) is None


def test_the_pipeline_is_found_inside_wrappers_and_in_the_validation():
    inner = {"dataset": {"pipeline": [{"type": "A"}]}}
    wrapped = {"test_dataloader": {"dataset": {"datasets": [inner]}}}
    assert find_pipeline(wrapped) == [{"type": "A"}]
    assert find_pipeline({"val_dataloader": inner}) == [{"type": "A"}]
    assert find_pipeline({"test_pipeline": [{"type": "B"}]}) == [{"type": "B"}]
    assert find_pipeline({}) is None
