import ast
import itertools
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fldet
from fldet.config.diff import dotted, leaves
from fldet.config.load import find_config, load_config
from fldet.config.origin import _MISSING, COMMAND_LINE, _get, _History, origin_of
from fldet.errors import ConfigError

CONFIGS = Path(fldet.__file__).parent.parent / "configs"
EXAMPLES = [
    CONFIGS / path
    for path in (
        "bccd/retinanet_r18_bccd.py",
        "paper/table1c/anchors_1x3.py",
        "paper/table1d/ohem_1to3_128_0.5.py",
        "paper/table2/r101_800px_1.5x.py",
        "retinanet/mmdet_r18_fpn_1x.py",
        "retinanet/r50_fpn_modern.py",
        "shapes/retinanet_r18_shapes.py",
    )
]
MMDET = "mmdet::retinanet/retinanet_r18_fpn_1x_coco.py"
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


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("retinanet/r50_fpn_1x.py", "model.bbox_head.loss_cls.type"),
        ("paper/table1b/fl_gamma_5.py", "optim_wrapper.optimizer.lr"),
        ("paper/table2/r101_800px_1.5x.py", "train_cfg.max_iters"),
        ("retinanet/r101_fpn_1.5x.py", "train_dataloader.dataset.pipeline.0.type"),
        ("shapes/retinanet_r18_shapes.py", "default_hooks.checkpoint.interval"),
        ("bccd/retinanet_r18_bccd.py", "model.backbone.depth"),
    ],
)
def test_the_statement_of_an_important_key(path, key):
    origin = origin_of(CONFIGS / path, key)
    effective = origin.steps[0]
    assert (effective.action, effective.value) == ("set", origin.value)
    name = key.split(".")[-1]
    assert f"{name}={origin.value!r}" in statement(effective.place).replace(" = ", "=")


@pytest.mark.parametrize("path", [*EXAMPLES, MMDET], ids=lambda path: Path(path).stem)
def test_every_leaf_has_a_statement_that_bears_its_name_or_value(path):
    history = _History(find_config(path), ())  # one for all keys: origin_of would load again
    for key, value in leaves(load_config(path).to_dict()):
        step = history.of_leaf(key)[0]
        assert (step.action, step.value) == ("set", value), key
        text = statement(step.place)
        assert str(key[-1]) in text or repr(value) in text or "**shapes" in text, key


def statement(place):
    """The whole text of the statement that begins at a place."""
    text = Path(place.file).read_text()
    (found,) = (node for node in ast.parse(text).body if node.lineno == place.statement)
    return ast.get_source_segment(text, found)


DICTS = st.recursive(
    st.just(0),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "_delete_"]), inner, min_size=1),
    max_leaves=6,
)
FILES = st.lists(st.tuples(st.sampled_from("xy"), DICTS.filter(bool)), max_size=3)


@settings(max_examples=50, deadline=None)
@given(st.lists(FILES, min_size=1, max_size=4))
def test_each_number_is_found_where_it_stands_and_where_mmengine_loads_it(contents):
    """Files of nested dicts in which no number stands twice, each the base of the next."""
    numbers = itertools.count()

    def text_of(node):
        items = (f"{k}={k == '_delete_' or text_of(v)}" for k, v in node.items()) if node else ()
        return f"dict({', '.join(items)})" if node else f"'n{next(numbers)};'"

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"f{number}.py" for number in range(len(contents))]
        for number, assignments in enumerate(contents):
            lines = [f"{name} = {text_of(value)}" for name, value in assignments]
            base = f"_base_ = 'f{number - 1}.py'" if number else ""
            files[number].write_text("\n".join([base, *lines]))
        try:
            loaded = [load_config(file).to_dict() for file in files]
        except ConfigError:
            assume(False)  # MMEngine merges no dict into a text
        history = _History(files[-1], ())
        for key, value in leaves(loaded[-1]):
            if not isinstance(value, str):  # {} or a _delete_ over nothing
                continue
            steps = history.of_leaf(key)
            assert value in statement(steps[0].place)
            values = [_get(cfg, key) for cfg in reversed(loaded)]
            values = [None if one is _MISSING else one for one, _ in itertools.groupby(values)]
            assert [step.value for step in steps] == values[: len(steps)]
            assert values[len(steps) :] in ([], [None])


# --- where a value comes from ---


@pytest.mark.parametrize(
    ("text", "key", "expected", "why_"),
    [
        ("", "lr", [(0.01, "base:1")], "a plain key of the base"),
        ("lr = 0.1", "lr", [(0.1, "child:2"), (0.01, "base:1")], "overrides it"),
        ("lr = 0.1\nlr = 1", "lr", [(1, "child:3"), (0.01, "base:1")], "twice: the last"),
        ("lr = 0.01", "lr", [(0.01, "base:1")], "no other value"),
        ("", "model.backbone.depth", [(50, "base:2")], "nested"),
        (
            "a = 1\nmodel = {\n 'backbone': {\n  'depth': 18}}\nb = 2",
            "model.backbone.depth",
            [(18, "child:3"), (50, "base:2")],
            "where the statement begins",
        ),
        ("model = dict(neck=1)", "model.backbone.depth", [(50, "base:2")], "merged around it"),
        ("", "loader.pipeline.1.scale", [((1333, 800), "base:6")], "a variable of the file"),
        ("", "loader.pipeline.1.scale.0", [(1333, "base:6")], "an index of a tuple"),
        (
            "p = [\n dict(type='A'),\n dict(type='B', scale=1)]\nloader = dict(pipeline=p)",
            "loader.pipeline.1.scale",
            [(1, "child:2"), ((1333, 800), "base:6")],
            "a list replaces the list",
        ),
        (
            "lr = 0.2\nother = dict(lr=lr)\nlr = 0.3",
            "other.lr",
            [(0.2, "child:3")],
            "a number could be any variable's",
        ),
        (
            "p = _base_.train_pipeline\nnew = dict(pipeline=p)",
            "new.pipeline.1.scale",
            [((1333, 800), "base:6")],
            "a variable of the base",
        ),
        ("new = {{_base_.model.backbone.depth}}", "new", [(50, "child:2")], "a placeholder"),
        (
            "p = [dict(a=1)]\np[0]['a'] = (\n 2)\nloader = dict(pipeline=p)",
            "loader.pipeline.0.a",
            [(2, "child:3")],
            "an item assigned before the use",
        ),
        (
            "p = [dict(a=1)]\nloader = dict(pipeline=p)\np[-1]['a'] = 2",
            "loader.pipeline.0.a",
            [(2, "child:4")],
            "and after it",
        ),
        (
            "_base_.model.backbone.depth = 18",
            "model.backbone.depth",
            [(18, "child:2"), (50, "base:2")],
            "an item of the base",
        ),
        (
            "_base_.train_pipeline[1].scale = (1, 1)",
            "loader.pipeline.1.scale",
            [((1333, 800), "base:6")],
            "a variable of the base and what was made from it are two things here",
        ),
        (
            "del _base_.model\nmodel = dict(type='X')",
            "model.type",
            [("X", "child:3"), ("RetinaNet", "base:2")],
            "taken away from the base",
        ),
        (
            "shapes = dict(\n  n=1)\nd = dict(k=2, **shapes)\ne = {**shapes, 'n': 3}",
            "d.n",
            [(1, "child:4")],
            "unpacked",
        ),
        (
            "def make():\n    return dict(depth=18)\nmodel = dict(backbone=make())",
            "model.backbone.depth",
            [(18, "child:4"), (50, "base:2")],
            "a function",
        ),
        ("a = b = dict(x=1)", "a.x", [(1, "child:2")], "two names at once"),
        (
            "b = dict(k=1)\na = dict(b)\nb = dict(k=3)\nb = dict(a)",
            "a.k",
            [(1, "child:2")],
            "two variables, each from the other",
        ),
        ("p = [dict(a=i) for i in range(2)]", "p.1.a", [(1, "child:2")], "a comprehension"),
        ("globals()['lr'] = 3", "lr", [(3, "child:2"), (0.01, "base:1")], "no name"),
    ],
)
def test_set(why, text, key, expected, why_):
    assert why(text, key) == [(*step, "set") for step in expected], why_


@pytest.mark.parametrize(
    ("text", "key", "expected", "why_"),
    [
        (
            "p = [dict(a=1)]\nfor step in p:\n    step['a'] = 2\nloader = dict(pipeline=p)",
            "loader.pipeline.0.a",
            [(2, "child:3", "computed")],
            "a loop, through a variable",
        ),
        (
            "_base_.model.backbone.update(depth=18)",
            "model.backbone.depth",
            [(18, "child:2", "computed"), (50, "base:2", "set")],
            "a method",
        ),
        ("if True:\n    x = 3", "x", [(3, "child:2", "computed")], "a condition"),
    ],
)
def test_computed(why, text, key, expected, why_):
    assert why(text, key) == expected, why_


def test_where_only_python_can_name_the_bases_the_file_is_told(why, tmp_path):
    why("", "lr")
    (tmp_path / "c.py").write_text("_base_ = ['ba' + 'se.py']\nlr = 3")
    (step,) = origin_of(tmp_path / "c.py", "model.type").steps
    assert (step.action, step.value, where(step.place)) == ("computed", "RetinaNet", "c:None")
    assert where(origin_of(tmp_path / "c.py", "lr").steps[0].place) == "c:2"


def test_what_does_not_load_elsewhere_is_computed(why):
    text = (
        "from pathlib import Path\nn = len(Path('{{ fileDirname }}/base.py').read_text())\nlr = n"
    )
    assert [step[1:] for step in why(text, "lr")] == [("child:None", "computed"), ("base:1", "set")]


def test_a_loop_in_the_base_under_an_assignment_in_the_child(why):
    base = "p = [dict(a=1)]\nfor step in p:\n    step['a'] = 2\n"
    assert why("", "p.0.a", base=base) == [(2, "base:2", "computed")]
    assert why("p = [dict(a=3)]", "p.0.a", base=base) == [
        (3, "child:2", "set"),
        (2, "base:2", "computed"),
    ]


def test_delete_with_another_value(why):
    text = "model = dict(\n  loss=dict(\n    _delete_=True,\n    type='L1'))"
    assert why(text, "model.loss.type") == [("L1", "child:2", "set"), ("L2", "base:2", "set")]


def test_delete_without_another_value(why, tmp_path):
    why("lr = 1\nmodel = dict(loss=dict(_delete_=True, type='L1'))", "model.loss.type")
    (tmp_path / "leaf.py").write_text("_base_ = 'child.py'\nmodel = dict(loss=dict(beta=3))")
    steps = origin_of(tmp_path / "leaf.py", "model.loss.beta").steps
    assert [(step.value, where(step.place), step.action) for step in steps] == [
        (3, "leaf:2", "set"),
        (None, "child:3", "deleted"),
        (1, "base:2", "set"),
    ]


def test_several_bases_and_variables_on_the_way(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    (tmp_path / "b.py").write_text("p = [\n  dict(y=2)]\nm = dict(p=p)")
    (tmp_path / "c.py").write_text("_base_ = ['a.py', 'b.py']\nn = dict(\n  p=_base_.p)")
    (step,) = origin_of(tmp_path / "c.py", "n.p.0.y").steps
    assert (where(step.place), [*map(where, step.via)]) == ("b:1", ["c:2"])
    (step,) = origin_of(tmp_path / "c.py", "m.p.0.y").steps
    assert (where(step.place), [*map(where, step.via)]) == ("b:1", ["b:3"])
    assert where(origin_of(tmp_path / "c.py", "x").steps[0].place) == "a:1"


def test_a_base_of_mmdet(tmp_path):
    (tmp_path / "c.py").write_text(f"_base_ = {MMDET!r}\nmodel = dict(backbone=dict(depth=34))")
    steps = origin_of(tmp_path / "c.py", "model.backbone.depth").steps
    assert [(step.value, Path(step.place.file).name) for step in steps] == [
        (34, "c.py"),
        (18, "retinanet_r18_fpn_1x_coco.py"),
        (50, "retinanet_r50_fpn.py"),
    ]


# --- overrides ---


def test_overrides_come_first(why):
    overrides = ["model.backbone.depth=18", "lr=1", "model.backbone={'depth': 34}"]
    assert why("", "model.backbone.depth", overrides) == [
        (34, f"{COMMAND_LINE}:None", "set"),
        (18, f"{COMMAND_LINE}:None", "set"),
        (50, "base:2", "set"),
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
    assert (older.value, older.place.text) == ("data/coco/", "train_dataloader = dict(")


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


def test_the_scope_that_mmengine_writes_into_a_base_of_mmdet(tmp_path):
    (tmp_path / "c.py").write_text(f"_base_ = {MMDET!r}\noptim = dict(_base_.optim_wrapper)")
    for key in ("model", "optim", "train_dataloader"):
        origin = origin_of(tmp_path / "c.py", key)
        named = [name for step in origin.steps if step.action == "part" for name in step.value]
        assert sorted(named) == sorted(dotted(path) for path, _ in leaves(origin.value))


def test_works_where_the_files_are_elsewhere(tmp_path):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    path = tmp_path / "configs/retinanet/r101_fpn_1x.py"
    files = {Path(step.place.file) for step in origin_of(path, "model.backbone.depth").steps}
    assert files == {path, tmp_path / "configs/_base_/models/retinanet_r50_fpn.py"}
