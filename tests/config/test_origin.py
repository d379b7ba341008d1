import shutil
from pathlib import Path

import pytest

import fldet
from fldet.config.diff import leaves
from fldet.config.load import find_config, load_config
from fldet.config.origin import COMMAND_LINE, _History, origin_of
from fldet.errors import ConfigError

CONFIGS = Path(fldet.__file__).parent.parent / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)
MMDET = "mmdet::retinanet/retinanet_r18_fpn_1x_coco.py"
KEYS = [
    "model.bbox_head.loss_cls.type",
    "optim_wrapper.optimizer.lr",
    "train_cfg.max_iters",
    "train_dataloader.dataset.pipeline.0.type",
    "default_hooks.checkpoint.interval",
    "model.backbone.depth",
]
BASE = """\
lr = 0.01
model = dict(
    type='RetinaNet',
    backbone=dict(type='ResNet', depth=50),
    loss=dict(type='L2', beta=1))
train_pipeline = [
    dict(type='Load'),
    dict(type='Resize', scale=(1333, 800)),
]
loader = dict(pipeline=train_pipeline)
"""


def at(cfg, key):
    for word in key.split("."):
        cfg = cfg[int(word) if word.isdigit() else word]
    return cfg


@pytest.fixture
def why(tmp_path):
    """Value, file:line and action of each step for a child of ``base.py``."""

    def _why(text, key, overrides=(), *, base=BASE):
        (tmp_path / "base.py").write_text(base)
        (tmp_path / "child.py").write_text("_base_ = 'base.py'\n" + text)
        origin = origin_of(tmp_path / "child.py", key, overrides)
        assert origin.value == at(load_config(tmp_path / "child.py", overrides).to_dict(), key)
        return [(step.value, where(step.place), step.action) for step in origin.steps]

    return _why


def where(place):
    return f"{Path(place.file).stem}:{place.line}"


# --- every config of the repository ---


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_line_of_an_important_key(path, key):
    origin = origin_of(path, key)
    effective = origin.steps[0]
    assert origin.value == effective.value == at(load_config(path), key)
    assert effective.action == "set"
    line = Path(effective.place.file).read_text().splitlines()[effective.place.line - 1]
    assert line.strip() == effective.place.text
    assert key.split(".")[-1] in line or repr(origin.value) in line


@pytest.mark.parametrize("path", [*FILES, MMDET], ids=lambda path: Path(path).stem)
def test_every_leaf_has_a_line_that_bears_its_name_or_value(path):
    """A literal read at the wrong place would not be ``set``: it is compared with what loads."""
    history = _History(find_config(path), ())  # one for all keys: origin_of would load again
    for key, value in leaves(load_config(path).to_dict()):
        step = history.of_leaf(key)[0]
        assert (step.action, step.value) == ("set", value), key
        assert str(key[-1]) in step.place.text or repr(value) in step.place.text, key


# --- where a value comes from ---


@pytest.mark.parametrize(
    ("text", "key", "expected", "why_"),
    [
        ("", "lr", [(0.01, "base:1")], "a plain key of the base"),
        ("lr = 0.1", "lr", [(0.1, "child:2"), (0.01, "base:1")], "overrides it"),
        ("lr = 0.1\nlr = 1", "lr", [(1, "child:3"), (0.1, "child:2"), (0.01, "base:1")], "twice"),
        ("", "model.backbone.depth", [(50, "base:4")], "nested"),
        (
            "model = {\n 'backbone': {\n  'depth': 18}}",
            "model.backbone.depth",
            [(18, "child:4"), (50, "base:4")],
            "nested literals",
        ),
        (
            "model = dict(\n  backbone=dict(depth=\n    18))",
            "model.backbone.depth",
            [(18, "child:3"), (50, "base:4")],
            "the line of the keyword, not of the number",
        ),
        ("model = dict(neck=1)", "model.backbone.depth", [(50, "base:4")], "merged around it"),
        ("", "loader.pipeline.1.scale", [((1333, 800), "base:8")], "a variable of the file"),
        ("", "loader.pipeline.1.scale.0", [(1333, "base:8")], "an index of a tuple"),
        (
            "p = [\n dict(type='A'),\n dict(type='B', scale=1)]\nloader = dict(pipeline=p)",
            "loader.pipeline.1.scale",
            [(1, "child:4"), ((1333, 800), "base:8")],
            "a list replaces the list",
        ),
        (
            "lr = 0.2\nother = dict(lr=lr)\nlr = 0.3",
            "other.lr",
            [(0.2, "child:2")],
            "the variable as it was then",
        ),
        (
            "p = _base_.train_pipeline\nnew = dict(pipeline=p)",
            "new.pipeline.1.scale",
            [((1333, 800), "base:8")],
            "a variable of the base",
        ),
        ("new = {{_base_.model.backbone.depth}}", "new", [(50, "base:4")], "a placeholder"),
        (
            "p = [dict(a=1)]\np[0]['a'] = (\n 2)\nloader = dict(pipeline=p)",
            "loader.pipeline.0.a",
            [(2, "child:3"), (1, "child:2")],
            "an item assigned before the use",
        ),
        (
            "p = [dict(a=1)]\nloader = dict(pipeline=p)\np[-1]['a'] = 2",
            "loader.pipeline.0.a",
            [(2, "child:4"), (1, "child:2")],
            "and after it, counted from the end",
        ),
        (
            "_base_.model.backbone.depth = 18",
            "model.backbone.depth",
            [(18, "child:2"), (50, "base:4")],
            "an item of the base",
        ),
        (
            "_base_.train_pipeline[1].scale = (1, 1)",
            "loader.pipeline.1.scale",
            [((1333, 800), "base:8")],
            "a variable of the base and what was made from it are two things here",
        ),
        (
            "del _base_.model\nmodel = dict(type='X')",
            "model.type",
            [("X", "child:3")],
            "taken away from the base",
        ),
        (
            "steps = [1, 2]\nsteps[0] = 5",
            "steps",
            [([5, 2], "child:3"), ([1, 2], "child:2")],
            "an item of a list of values",
        ),
        (
            "shapes = dict(\n  n=1)\nd = dict(k=2, **shapes)\ne = {**shapes, 'n': 3}",
            "d.n",
            [(1, "child:3")],
            "unpacked",
        ),
        (
            "shapes = dict(n=1)\nd = {**shapes,\n 'n': 3}",
            "d.n",
            [(3, "child:4")],
            "after what is unpacked",
        ),
        ("x = 6 * 7", "x", [(42, "child:2")], "an expression"),
        ("x = 6 * 7\nx = 1", "x", [(1, "child:3"), ("6 * 7", "child:2")], "an earlier expression"),
    ],
)
def test_set(why, text, key, expected, why_):
    assert why(text, key) == [(*step, "set") for step in expected], why_


def test_delete_ends_the_history(why):
    text = "model = dict(\n  loss=dict(\n    _delete_=True,\n    type='L1'))"
    assert why(text, "model.loss.type") == [
        ("L1", "child:5", "set"),
        (None, "child:4", "deleted"),
    ]


def test_delete_says_nothing_of_a_key_that_was_not_there(why):
    text = "model = dict(loss=dict(_delete_=True, weight=1))"
    assert why(text, "model.loss.weight") == [(1, "child:2", "set")]


def test_a_file_over_a_deletion(why, tmp_path):
    text = "model = dict(loss=dict(_delete_=True, type='L1'))"
    why(text, "model.loss.type")
    (tmp_path / "leaf.py").write_text("_base_ = 'child.py'\nmodel = dict(loss=dict(type='L3'))")
    steps = origin_of(tmp_path / "leaf.py", "model.loss.type").steps
    assert [(step.value, where(step.place)) for step in steps] == [
        ("L3", "leaf:2"),
        ("L1", "child:2"),
        (None, "child:2"),
    ]


def test_several_bases_and_variables_on_the_way(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    (tmp_path / "b.py").write_text("p = [\n  dict(y=2)]\nm = dict(p=p)")
    (tmp_path / "c.py").write_text("_base_ = ['a.py', 'b.py']\nm = dict(\n  p=_base_.p)")
    step, older = origin_of(tmp_path / "c.py", "m.p.0.y").steps
    assert (where(step.place), [*map(where, step.via)]) == ("b:2", ["c:3"])
    assert (where(older.place), [*map(where, older.via)]) == ("b:2", ["b:3"])
    assert where(origin_of(tmp_path / "c.py", "x").steps[0].place) == "a:1"


def test_a_base_of_mmdet(tmp_path):
    (tmp_path / "c.py").write_text(f"_base_ = {MMDET!r}\nmodel = dict(backbone=dict(depth=34))")
    steps = origin_of(tmp_path / "c.py", "model.backbone.depth").steps
    assert [(step.value, Path(step.place.file).name) for step in steps] == [
        (34, "c.py"),
        (18, "retinanet_r18_fpn_1x_coco.py"),
        (50, "retinanet_r50_fpn.py"),
    ]


# --- what the source does not show ---


@pytest.mark.parametrize(
    ("text", "key", "expected", "why_"),
    [
        (
            "p = [dict(a=1)]\nfor step in p:\n    step['a'] = 2\nloader = dict(pipeline=p)",
            "loader.pipeline.0.a",
            [(2, "child:3", "computed"), (1, "child:2", "set")],
            "a loop",
        ),
        (
            "def make():\n    return dict(depth=18)\nmodel = dict(backbone=make())",
            "model.backbone.depth",
            [(18, "child:4", "computed"), (50, "base:4", "set")],
            "a function",
        ),
        (
            "_base_.model.backbone.update(depth=18)",
            "model.backbone.depth",
            [(18, "child:2", "computed"), (50, "base:4", "set")],
            "a method",
        ),
        (
            "p = [dict(a=i) for i in range(2)]",
            "p.1.a",
            [(1, "child:2", "computed")],
            "a comprehension",
        ),
        (
            "if True:\n    x = 3",
            "x",
            [(3, "child:2", "set")],
            "a condition: the line of the statement",
        ),
        (
            "globals()['lr'] = 3",
            "lr",
            [(3, "child:None", "computed"), (0.01, "base:1", "set")],
            "no line, but the file",
        ),
    ],
)
def test_computed(why, text, key, expected, why_):
    assert why(text, key) == expected, why_


def test_a_loop_in_the_base_under_an_assignment_in_the_child(why):
    base = "p = [dict(a=1)]\nfor step in p:\n    step['a'] = 2\n"
    assert why("", "p.0.a", base=base)[0] == (2, "base:2", "computed")
    assert why("p = [dict(a=3)]", "p.0.a", base=base) == [
        (3, "child:2", "set"),
        (2, "base:2", "computed"),
        (1, "base:1", "set"),
    ]


# --- overrides ---


def test_overrides_come_first(why):
    overrides = ["model.backbone.depth=18", "lr=1", "model.backbone={'depth': 34}"]
    assert why("", "model.backbone.depth", overrides) == [
        (34, f"{COMMAND_LINE}:None", "set"),
        (18, f"{COMMAND_LINE}:None", "set"),
        (50, "base:4", "set"),
    ]
    assert why("", "lr", ["lr=0.01"])[0][1] == f"{COMMAND_LINE}:None"  # named, though equal
    assert [step[0] for step in why("", "new", ["+new=1"])] == [1]


def test_data_root_moves_paths():
    key = "train_dataloader.dataset.data_root"
    step, older = origin_of(MMDET, key, ["data_root=/new"]).steps
    assert (step.value, step.place.file, step.place.text) == (
        "/new/",
        COMMAND_LINE,
        "data_root=/new",
    )
    assert (older.value, older.place.text) == ("data/coco/", "data_root = 'data/coco/'")


# --- dicts ---


def test_a_dict_by_its_parts(why):
    text = "model = dict(\n  backbone=dict(depth=18))\n_base_.model['type'] = 'X'"
    overrides = ["+model.loss.weight=3"]
    assert why(text, "model", overrides) == [
        ({"loss.weight": 3}, f"{COMMAND_LINE}:None", "part"),
        ({"type": "X"}, "child:4", "part"),
        ({"backbone.depth": 18}, "child:2", "part"),
        ({"backbone.type": "ResNet", "loss.type": "L2", "loss.beta": 1}, "base:2", "part"),
    ]


def test_a_list_of_dicts_and_the_one_before(why):
    steps = why("train_pipeline = [\n dict(type='A')]", "train_pipeline")
    before = [{"type": "Load"}, {"type": "Resize", "scale": (1333, 800)}]
    assert steps == [({"0.type": "A"}, "child:2", "part"), (before, "base:6", "set")]


# --- errors ---


@pytest.mark.parametrize(
    ("key", "match"),
    [
        ("model.backbone.dept", r"model\.backbone has no 'dept'\ndid you mean depth\?\nHint: "),
        ("train_pipeline.7", "a list of 2 and has no '7'\nExpected: an index from 0 to 1"),
        ("lr.x", r"unknown config key 'lr\.x': lr is 0\.01\nExpected: nothing after lr"),
        ("model.loss.gone", "has no 'gone'"),
    ],
)
def test_unknown_key(why, key, match):
    with pytest.raises(ConfigError, match=match):
        why("", key)


def test_works_where_the_files_are_elsewhere(tmp_path):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    path = tmp_path / "configs/retinanet/r101_fpn_1x.py"
    files = {Path(step.place.file) for step in origin_of(path, "model.backbone.depth").steps}
    assert files == {path, tmp_path / "configs/_base_/models/retinanet_r50_fpn.py"}
