"""Text from outside in a config is a literal, whatever it says."""

import ast
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from fldet.config.load import format_config, load_config
from fldet.config.text import config_text, literal, words

# What MMEngine, Python, a comment or a docstring would take for something else than words.
HOSTILE = [
    "{{$HOME:x}}",
    "{{ $HOME : x }}",
    "{{'$HOME:x'}}",
    "{{$NOVAR:x|(',);__import__('os').mkdir('PWNED');#}}",
    "{{ fileDirname }}",
    "{{fileBasename}}",
    "{{ _base_.x }}",
    "{{{$HOME:x}}}",
    "{" * 7 + "$HOME:x" + "}" * 7,
    "{\\{$HOME:x}}",
    "\\{{$HOME:x}}",
    "\\\\{{$HOME:x}}",
    '"""; import os; os.mkdir("PWNED"); """',
    "'''; import os; os.mkdir('PWNED'); '''",
    "'); __import__('os').mkdir('PWNED'); ('",
    "a\nimport os; os.mkdir('PWNED')",
    "a\r\x0b\x0c\x85\u2028\u2029b",
    "\\",
    '\\"',
    "x\\N{BULLET}",
    "\ud800",
    "\x00\x1b[31m",
    "\u202egnp.exe",
    "_base_",
    "%s {0} $a$",
    "",
]


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "SECRET")


def read_by_mmengine(text, folder, name="c.py"):
    (folder / name).write_text(text, encoding="utf-8")
    return Config.fromfile(folder / name)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_text_reads_back_as_it_is(text, tmp_path, in_empty_folder):
    values = {"classes": (text,), "d": {text: [text]}, "deep": {"a": [{"b": text}]}}
    written = config_text(values)
    assert read_by_mmengine(written, tmp_path).to_dict() == values
    assert os.listdir(tmp_path) == ["c.py"]
    assert "{{" not in written


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_words_stay_inside_their_comment_and_docstring(text, tmp_path, in_empty_folder):
    written = f'"""A set {words(text)}."""\n# of {words(text)}\nx = 1\n'
    tree = ast.parse(written)
    assert [type(line) for line in tree.body] == [ast.Expr, ast.Assign]
    assert len(written.splitlines()) == 3
    assert read_by_mmengine(written, tmp_path).to_dict() == {"x": 1}
    assert os.listdir(tmp_path) == ["c.py"]


@given(st.text(alphabet=st.one_of(st.sampled_from("{}$'\"\\:\n#"), st.characters())))
@example("{{{")
@settings(max_examples=300, deadline=None)
def test_no_two_braces_stand_side_by_side_and_python_reads_the_same(text):
    assert ast.literal_eval(literal(text)) == text
    assert "{{" not in literal(text) + words(text)
    assert not set(words(text)) & set('"\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029')


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from(["a", "b2", "model"]), VALUES))
@settings(max_examples=200, deadline=None)
def test_any_value_reads_back_as_it_is(values):
    found = {}
    exec(config_text(values), found)
    del found["__builtins__"]
    assert found == values


def test_a_long_value_is_broken_between_its_items_only():
    text = config_text({"a": [dict(x=i, name="n" * 20) for i in range(3)], "b": ()})
    assert text.splitlines() == [
        "a = [",
        *(f"    dict(name='{'n' * 20}', x={i})," for i in range(3)),
        "]",
        "b = ()",
    ]
    assert config_text({"a": {"if": 1, "x y": 2}}) == "a = {'if': 1, 'x y': 2}\n"
    assert config_text({"a": (1,), "b": float}) == "a = (1,)\nb = float\n"


def test_numbers_that_are_not_finite_and_classes_have_a_text(tmp_path):
    cfg = read_by_mmengine("a = [float('inf'), float('-inf')]\nb = float('nan')\n", tmp_path)
    (tmp_path / "d.py").write_text(format_config(cfg))
    found = load_config(tmp_path / "d.py")
    assert found.a == [float("inf"), -float("inf")]
    assert found.b != found.b
    assert literal(Config) == "'mmengine.config.config.Config'"
