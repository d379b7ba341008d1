import contextlib
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fldet.config import load as config
from fldet.config.load import find_config, format_config, load_config, to_plain
from fldet.config.overrides import parse_override
from fldet.errors import ConfigError

RETINANET = "mmdet::retinanet/retinanet_r18_fpn_1x_coco.py"
SMALL = """
lr = 0.01
model = dict(
    type='RetinaNet',
    backbone=dict(type='ResNet', depth=50, with_cp=False, init_cfg=None),
    bbox_head=dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0)))
pipeline = [dict(type='Load'), dict(type='Resize', scale=(1333, 800))]
loader = dict(batch_size=2, dataset=dict(pipeline=pipeline))
"""


@pytest.fixture
def write(tmp_path):
    def _write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return _write


@pytest.fixture
def small(write):
    return write("small.py", SMALL)


# --- finding the file ---


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("{folder}/small.py", "as given"),
        ("{folder}/small", "without .py"),
        ("small", "in the current directory"),
    ],
)
def test_finds_a_file(small, monkeypatch, name, why):
    monkeypatch.chdir(small.parent)
    assert find_config(name.format(folder=small.parent)) == small, why


@pytest.mark.parametrize("name", ["sub/x.py", "sub/x", "configs/sub/x.py", Path("sub/x")])
def test_finds_a_file_of_the_repository(tmp_path, monkeypatch, name):
    monkeypatch.setattr(config, "CONFIGS", tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.py").write_text("a = 1")
    assert load_config(name).a == 1


def test_finds_a_config_of_mmdet():
    assert load_config(RETINANET).model.bbox_head.num_classes == 80


@pytest.mark.parametrize(
    ("name", "match", "why"),
    [
        ("smal.py", r"'.*smal\.py' does not exist\ndid you mean .*small\.py\?\nHint: find", "typo"),
        ("", "is a folder, and no work dir of a training", "a folder"),
        ("small.yaml", r"small\.yaml' is not a \.py file", "another format"),
    ],
)
def test_no_such_file(small, write, name, match, why):
    write("small.yaml", "a: 1")
    with pytest.raises(ConfigError, match=match):
        load_config(small.parent / name)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("mmdet::retinanet/retinanet_r18_fpn_1x_cocoo.py", "did you mean .*r18_fpn_1x_coco.py"),
        ("nosuchpackage::a/b.py", "there is no package 'nosuchpackage'"),
        ("::a", "there is no package ''"),
    ],
)
def test_no_such_config_of_a_package(name, match):
    with pytest.raises(ConfigError, match=match):
        load_config(name)


# --- what is in the file ---


def test_inherits(small, write):
    child = write("child.py", "_base_ = 'small.py'\nmodel = dict(backbone=dict(depth=18))\n")
    backbone = load_config(child).model.backbone
    assert (backbone.depth, backbone.type) == (18, "ResNet")


def test_inherits_from_mmdet(write):
    child = write(
        "child.py", f"_base_ = {RETINANET!r}\nmodel = dict(bbox_head=dict(num_classes=3))"
    )
    assert load_config(child).model.bbox_head.num_classes == 3


def test_placeholders_are_filled_in(small, write, monkeypatch):
    monkeypatch.setenv("FLDET_K", "7")
    text = "_base_ = 'small.py'\na = {{_base_.lr}}\nb = '{{fileBasename}}'\nc = {{$FLDET_K:1}}"
    cfg = load_config(write("child.py", text))
    assert (cfg.a, cfg.b, cfg.c) == (0.01, "child.py", 7)


@pytest.mark.parametrize(
    ("placeholder", "match"),
    [
        ("{{$FLDET_NO:}}", "the environment has no variable FLDET_NO"),
        ("{{ $FLDET_NO : }}", "the environment has no variable FLDET_NO"),
        ("{{'$FLDET_NO:'}}", "the environment has no variable FLDET_NO"),
        ("{{$FLDET_NO}}", "would stay as it is"),
        ("{{$FLDET_K}}", "would stay as it is"),
        ("{{ $FLDET_K }}", "would stay as it is"),
        ("{{$FLDET_NO:a b}}", "would stay as it is"),
    ],
)
def test_a_placeholder_that_is_not_filled_in_is_an_error(write, monkeypatch, placeholder, match):
    monkeypatch.setenv("FLDET_K", "7")
    with pytest.raises(ConfigError, match=rf"c\.py:2: .*{match}"):
        load_config(write("c.py", f"b = 1\na = '''{placeholder}'''"))
    write("base.py", f"a = '''{placeholder}'''")
    with pytest.raises(ConfigError, match=rf"base\.py:1: .*{match}"):
        load_config(write("d.py", "_base_ = 'base.py'"))


@pytest.mark.parametrize(
    ("text", "match", "why"),
    [
        ("a = 1\nb = (1\n", r"bad\.py:2: syntax error: '\(' was never closed", "syntax error"),
        ("a = 1\nb = c\n", r"bad\.py:2: NameError: name 'c' is not defined", "undefined name"),
        ("rate = 1\nb = rat\n", "did you mean rate", "undefined name, close to another"),
        ("_base_ = 'small.py'\n\na = lr\n", "did you mean _base_.lr", "a variable of the base"),
        ("a = 1 / 0\n", r"bad\.py:1: ZeroDivisionError", "an exception"),
        (
            "\n_base_ = ['smal.py']\n",
            r"bad\.py:2: base 'smal\.py' does not .*\n.*small\.py",
            "base",
        ),
        ("_base_ = 'mmdet::a/b.py'\n", r"bad\.py:1: base 'mmdet::a/b\.py' does not", "mmdet base"),
        ("_base_ = 'bad.py'\n", "inherits from it in turn", "its own base"),
        ("_base_ = ['./' + 'small.py']\nlr = x\n", r"bad\.py:2: NameError", "a computed base"),
        ("_base_ = './' + 'no.py'\n", r"bad\.py: FileNotFoundError: .*no\.py", "computed, missing"),
        (
            "_base_ = ['small.py', 'other.py']\n",
            r"bad\.py: two .* set 'lr': .*small.*other",
            "twice",
        ),
        ("_base_ = 'small.py'\nlr = dict(a=1)\n", r"bad\.py: TypeError: .*lr", "a dict over it"),
        (
            "with read_base():\n  from a import *\n",
            r"bad\.py:1: this is .*lazy style",
            "lazy style",
        ),
        ("_base_ = 'small.py'\nfrom .a import b\n", r"bad\.py:2: this is .*lazy", "mixed styles"),
        (
            "custom_imports = dict(imports=['no_such'])",
            r"bad\.py: ImportError: .*no_such",
            "import",
        ),
    ],
)
def test_a_file_that_does_not_load(small, write, text, match, why):
    write("other.py", "lr = 0.1")
    with pytest.raises(ConfigError, match=match):
        load_config(write("bad.py", text))


def test_errors_name_the_base_they_are_in(write):
    write("base.py", "a = 1\nb = c")
    write("broken.py", "a = 1\nb = (")
    for base in ("base.py", "broken.py"):
        with pytest.raises(ConfigError, match=rf"/{base}:2: "):
            load_config(write("child.py", f"_base_ = '{base}'"))


def test_third_party_imports_stay_text_style(write):
    assert load_config(write("a.py", "import yaml\nb = yaml.safe_load('[1]')")).to_dict() == {
        "b": [1]
    }


# --- overrides ---


@pytest.mark.parametrize(
    ("text", "value", "why"),
    [
        ("1", 1, "integer"),
        ("1e-3", 0.001, "float"),
        ("1e3", 1000.0, "float without a point"),
        ("0x10", 16, "hexadecimal"),
        ("90_000", 90000, "grouped digits"),
        ("inf", math.inf, "infinity"),
        ("-inf", -math.inf, "infinity below"),
        ("True", True, "bool"),
        ("false", False, "bool as the shell writes it"),
        ("None", None, "None"),
        ("[1,2]", [1, 2], "list"),
        ("(400,300)", (400, 300), "tuple"),
        ("1,2", [1, 2], "list without brackets"),
        ("(1,2),(3,4)", [(1, 2), (3, 4)], "list of tuples without brackets"),
        ("'1'", "1", "text in quotes"),
        ("'b, c'", "b, c", "quotes keep the comma and the space"),
        ("' b '", " b ", "quotes keep spaces at the ends"),
        ("'a # b'", "a # b", "quotes keep a comment"),
        (r"'C:\data'", r"C:\data", "a backslash in quotes, without a warning"),
        ("{'b': 1}", {"b": 1}, "dict"),
        ("dict(b=1, c=[dict(d='x')])", {"b": 1, "c": [{"d": "x"}]}, "dicts as in a config"),
        ("[x,y]", ["x", "y"], "list of bare words"),
        ("[ x , y ]", ["x", "y"], "and with spaces"),
        ("(x,y)", ("x", "y"), "tuple of bare words"),
        ("[x]", ["x"], "list of one bare word"),
        ("x,y", ["x", "y"], "bare words without brackets"),
        ("x, y", ["x", "y"], "and with a space"),
        ("x,", ["x"], "a comma at the end"),
        ("x,1,true", ["x", 1, True], "bare words and literals"),
        ("[(x,1),[y,'z, z']]", [("x", 1), ["y", "z, z"]], "nested"),
        ("[/a b/c.json,/d/e.json]", ["/a b/c.json", "/d/e.json"], "paths between brackets"),
        ("日本,語", ["日本", "語"], "words of any letters"),
    ],
)
def test_a_value_of_an_override_that_is_no_plain_text(text, value, why):
    assert parse_override(f"a={text}") == ("a", value)
    assert type(parse_override(f"a={text}")[1]) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "data/x y", "b=c", "none", "null", "nan", "007", "1.2.3", "2017-01-02", "1 2"),
        *("/x/My Files (1)/", "my data (1)", "(x)", "(1) (2)", "f(1,2)", "a[0]", "[x].json"),
        *("[x] y", "[a][b]", "{a,b}", "{x}", "[1,2", "(", "]", "1),(2", "x [1, 2]", "dict(b=x)"),
        *("/a,b/c", "a b, c d", "a,b c", ",", "x,,y", "/a, b", "C:\\a,b", "a,(b"),
        *(r"C:\data", r"\\host\share (1)", "it's", "[it's,b]", "'", '"', "'a'b'", '"a', "a'b'"),
        *("1 # 2", "#1", "x # y", "...", "1j", "b'x'", "f'{x}'", "lambda: 1", "a if b else c"),
        *("$HOME/x", "~/x", "%TEMP%", "a;b", "a\nb", "a\x00b", "\udce9", "Ünï (çode)", "日本 (語)"),
        *("(" * 5000, "[" * 5000 + "]" * 5000, "-" * 50000 + "1", "9" * 5000),
    ],
)
def test_a_value_of_an_override_that_is_the_text_as_it_is_given(small, text):
    assert parse_override(f"a={text}") == ("a", text)
    assert load_config(small, [f"model.backbone.type={text}"]).model.backbone.type == text


@pytest.mark.parametrize("text", ["a,b", "[x]", "[a, b]", "(a,b)", "a,", "日本,語"])
def test_where_a_config_has_a_text_bare_words_with_commas_are_a_text(small, text):
    cfg = load_config(small, [f"model.type={text}", f"pipeline.0.type={text}", f"+new={text}"])
    assert (cfg.model.type, cfg.pipeline[0].type) == (text, text)
    assert isinstance(cfg.new, (list, tuple))


def test_spaces_around_the_equals_sign_are_left_out():
    assert parse_override(" a.b = x y ") == ("a.b", "x y")


@pytest.mark.parametrize("text", ["a", "", "=", "=1", "+=1", "a..b=1", ".a=1", "+a.=1"])
def test_parse_override_rejects(text):
    with pytest.raises(ConfigError, match=r"not of the form"):
        parse_override(text)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.text("[](){},'\"=# \\+.-_01eExinfdctrue")))
def test_any_text_in_quotes_is_that_text_and_any_other_is_read_or_refused(text):
    assert parse_override(f"a={text!r}") == ("a", text)
    value = parse_override(f"a={text}")[1]
    assert not isinstance(value, str) or value == text.strip() or text.strip()[:1] in "'\"(rRuU"
    for override in (text, f"+{text}=1"):
        with contextlib.suppress(ConfigError):
            parse_override(override)


def at(cfg, path):
    node = cfg
    for key in path.split("."):
        node = node[int(key) if key.isdigit() else key]
    return node


@pytest.mark.parametrize(
    ("override", "key", "value", "why"),
    [
        ("lr=0.1", "lr", 0.1, "top level"),
        ("model.backbone.depth=18", "model.backbone.depth", 18, "nested"),
        (
            "loader.dataset.pipeline.1.scale=(400,300)",
            "loader.dataset.pipeline.1.scale",
            (400, 300),
            "list",
        ),
        ("pipeline.1.scale.0=5", "pipeline.1.scale", (5, 800), "an index of a tuple"),
        ("+model.backbone.frozen=1", "model.backbone.frozen", 1, "a new key"),
        ("+env.dist.backend=gloo", "env.dist.backend", "gloo", "a new key in new dicts"),
        ("+lr=x", "lr", "x", "+ also switches off the check of kinds"),
        ("lr=None", "lr", None, "None always fits"),
        ("model.backbone.init_cfg=x", "model.backbone.init_cfg", "x", "anything over None"),
        ("model.backbone={'depth': 18}", "model.backbone.type", "ResNet", "a dict is merged"),
    ],
)
def test_override(small, override, key, value, why):
    assert at(load_config(small, [override]), key) == value


def test_overrides_as_a_mapping_with_delete(small):
    loss = {"_delete_": True, "type": "L1Loss"}
    cfg = load_config(small, {"model.bbox_head.loss_cls": loss, "lr": 1})
    assert cfg.model.bbox_head.loss_cls == {"type": "L1Loss"}
    assert cfg.lr == 1


def test_override_leaves_the_variable_it_came_from(small):
    cfg = load_config(small, ["loader.dataset.pipeline.1.scale=(4,3)"])
    assert cfg.pipeline[1].scale == (1333, 800)


@pytest.mark.parametrize(
    ("override", "match", "why"),
    [
        (
            "model.backbone.dept=18",
            r"key 'model\.backbone\.dept'.*\ndid you mean depth.*\n.*\+model",
            "typo",
        ),
        (
            "modle.backbone.depth=18",
            r"'modle\.backbone\.depth'.*no 'modle'\ndid you mean model",
            "parent",
        ),
        ("xyz=1", r"unknown config key 'xyz'.*\nExpected: one of: lr, model", "nothing near"),
        ("lr.x=1", r"cannot set config key 'lr\.x': lr is 0\.01", "the parent is a number"),
        (
            "pipeline.2.scale=1",
            r"pipeline is a list of 2 .*\nExpected: an index from 0 to 1",
            "out of range",
        ),
        ("pipeline.x=1", r"pipeline is a list of 2", "no index"),
        ("lr=abc", r"lr cannot be 'abc'\nExpected: a number; it is 0\.01 now", "text for a number"),
        ("pipeline=[dict(type=Load)", r"pipeline cannot be the text '\[dict", "a list left open"),
        ("model.backbone=dict(depth=a b)", r"backbone cannot be the text", "a dict of bare words"),
        (
            "pipeline.1.scale=(1,2",
            r"pipeline\.1\.scale cannot be .*\n.*it is \(1333, 800\)",
            "tuple",
        ),
        ("model.backbone.with_cp=maybe", "True or False; it is False", "text for a bool"),
        ("model={'bakbone': {'depth': 1}}", r"'model\.bakbone'", "typo in a dict"),
        ("pipeline.².scale=1", "a list of 2 and has no '²'", "a digit that is no number"),
        ("pipeline.½.scale=1", "a list of 2 and has no '½'", "no digit"),
        (f"pipeline.{'9' * 900}.scale=1", "a list of 2 and has no", "a number that is no index"),
        (f"pipeline.{'9' * 5000}.scale=1", "has 3 parts and 50", "more digits than int() takes"),
        (f"+{'a.' * 2000}b=1", "has 2001 parts", "too deep"),
        (f"{'a.' * 60}b=1", "has 61 parts", "too deep, and not there"),
        (f"+{'a' * 1001}=1", "and 1001 characters", "too long"),
        ("model={1: 2}", r"model cannot have the key 1\nExpected: a name in quotes: '1'", "number"),
        ("model={None: 2}", "model cannot have the key None", "None"),
        ("model={(1, 2): 2}", r"model cannot have the key \(1, 2\)", "a tuple"),
        ("model.backbone={'depth': 1, 2: 3}", r"backbone cannot have the key 2", "below"),
        ("model={'backbone': {True: 3}}", r"backbone cannot have the key True", "in a dict"),
        ("+model={1: 2}", "model cannot have the key 1", "a key that would be new"),
    ],
)
def test_override_that_does_not_fit(small, override, match, why):
    with pytest.raises(ConfigError, match=match):
        load_config(small, [override])


@pytest.mark.parametrize("key", [1, None, ("lr",)])
def test_keys_of_a_mapping_are_texts(small, key):
    with pytest.raises(ConfigError, match="the config cannot have the key"):
        load_config(small, {key: 1})


def test_a_key_may_be_long_and_deep(small):
    key = ".".join(["a" * 18] * 50)
    assert at(load_config(small, [f"+{key}=1"]), key) == 1


def test_a_new_dict_may_have_any_keys(small):
    assert load_config(small, ["+model.names={1: 'a'}"]).model.names == {1: "a"}


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\xff", b"lr = '\xe9'", b"lr = 1\0", b"lr = " + b"[" * 10**5, b"\0" * 99]
)
def test_a_config_that_is_no_text_or_too_deep(tmp_path, data):
    (tmp_path / "a.py").write_bytes(data)
    with pytest.raises(ConfigError, match=r"a\.py"):
        load_config(tmp_path / "a.py")


# --- output ---


def test_format_config_can_be_read_back(write):
    cfg = load_config(RETINANET, ['+note=it\'s "quoted"'])
    again = load_config(write("again.py", format_config(cfg)))
    assert again.to_dict() == cfg.to_dict()


def test_to_plain(write):
    values = "b=(1, (2,)), c=[dict(d=None)], e=float('inf'), f=Fraction"
    text = f"from fractions import Fraction\na = dict({values})"
    cfg = load_config(write("a.py", text))
    assert to_plain(cfg)["a"] == {
        "b": [1, [2]],
        "c": [{"d": None}],
        "e": "inf",
        "f": "fractions.Fraction",
    }


def test_loading_and_printing_does_not_import_torch():
    code = (
        "import sys\nfrom fldet.config.load import *\n"
        f"cfg = load_config({RETINANET!r}, ['model.backbone.depth=18'])\n"
        "format_config(cfg), to_plain(cfg)\n"
        "print({'torch', 'mmcv', 'mmdet'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_another_data_root_moves_the_paths_that_begin_with_it():
    """Also where the variable has been used already: in MMDetection's configs, in work dirs."""
    cfg = load_config("mmdet::retinanet/retinanet_r18_fpn_1x_coco.py", ["data_root=/new"])
    assert cfg.train_dataloader.dataset.data_root == "/new/"
    assert cfg.val_evaluator.ann_file == "/new/annotations/instances_val2017.json"
    assert cfg.train_dataloader.dataset.data_prefix.img == "train2017/"


def test_paths_elsewhere_stay(tmp_path):
    config = tmp_path / "c.py"
    config.write_text(
        "data_root = 'data/a'\n"
        "train_dataloader = dict(dataset=dict(data_root='data/ab', other=['data/a/x', 3]))\n"
        "note = 'data/a/y'\n"
    )
    cfg = load_config(config, {"data_root": "b/"})
    assert cfg.train_dataloader.dataset == {"data_root": "data/ab", "other": ["b/x", 3]}
    assert cfg.note == "data/a/y"


def test_a_dict_takes_the_place_of_a_switch_of_the_base(tmp_path):
    (tmp_path / "base.py").write_text("ema = False\ncompile = None\nmodel = dict(a=1, b=True)\n")
    (tmp_path / "child.py").write_text(
        "_base_ = './base.py'\nema = dict(gamma=20)\ncompile = dict(_delete_=True, sizes=64)\n"
        "model = dict(b=dict(c=2))\n"
    )
    cfg = load_config(tmp_path / "child.py")
    assert cfg.to_dict() == {
        "ema": {"gamma": 20},
        "compile": {"sizes": 64},
        "model": {"a": 1, "b": {"c": 2}},
    }
    (tmp_path / "wrong.py").write_text("_base_ = './base.py'\nmodel = dict(a=dict(c=2))\n")
    with pytest.raises(ConfigError, match="is a dict in the child config"):
        load_config(tmp_path / "wrong.py")


def test_a_work_dir_means_the_config_in_it(tiny_run, tmp_path):
    assert find_config(tiny_run[1]) == tiny_run[1] / "tiny.py"
    (tmp_path / "script.py").write_text("x = 1")
    with pytest.raises(ConfigError, match="no work dir of a training") as error:
        load_config(tmp_path)
    assert f"fldet init {tmp_path} --out" in error.value.hint
