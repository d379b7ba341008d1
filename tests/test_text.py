import math
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fldet.text import clock, file_name, middle_cut, printable

any_text = st.text(st.characters(codec=None, categories=None), max_size=400)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a b\tc\nd", "a b\tc\nd"),
        ("箱子 Müller \u200fعربي\u200d", "箱子 Müller \u200fعربي\u200d"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\r\x08\x00\x7f", r"\r\x08\x00\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("\u202egpj.exe\u2066\u2069", r"\u202egpj.exe\u2066\u2069"),
        ("\ud800 \udcff", r"\ud800 \udcff"),
    ],
)
def test_what_a_terminal_obeys_is_written_as_python_writes_it(text, printed):
    assert printable(text) == printed


@given(any_text)
@settings(max_examples=200, deadline=None)
def test_printed_text_commands_nothing_and_stays_as_it_is_when_printed_again(text):
    printed = printable(text)
    printed.encode()
    assert not {unicodedata.category(letter) for letter in set(printed) - set("\n\t")} & {
        "Cc",
        "Cs",
    }
    assert printable(printed) == printed


@pytest.mark.parametrize("name", ["a b.png", "試驗 (1).jpg", "-rf", ".hidden", "ü" * 100, "12:30"])
def test_a_name_that_is_fit_stays_as_it_is(name):
    assert file_name(name) == name


@pytest.mark.parametrize(
    "name", ["a\nb", "a\\b", "a/b", "a\udcff", "\x1b[31m", "試" * 83, "a" * 201]
)
def test_other_names_are_marked(name):
    made = file_name(name)
    assert len(made.encode()) <= 200
    assert made[:-17].strip("_") != name
    assert file_name(made) != made, "what looks marked could be another name's"


@given(st.lists(any_text.filter(bool), min_size=2, max_size=8, unique=True))
@settings(max_examples=200, deadline=None)
def test_other_names_give_other_files(names):
    made = [file_name(name) for name in names]
    assert len(set(made)) == len(names)
    for name in made:
        assert 0 < len(name.encode()) <= 200
        assert not set(name) & set("/\\\n\0")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0, "0:00:00"), (75, "0:01:15"), (273_600.4, "3 days, 4:00:00")],
        *[(value, "-") for value in (math.nan, math.inf, -math.inf, -5, 1e15, 1e300, 10**400)],
    ],
)
def test_a_time_that_no_training_takes_is_a_dash(seconds, text):
    assert clock(seconds) == text


def test_a_long_name_keeps_both_ends():
    assert middle_cut("a.jpg") == "a.jpg"
    cut = middle_cut("photo_of_a_street_jpg.rf.0123456789abcdef0123456789abcdef.jpg")
    assert (len(cut), cut[:20], cut[-5:]) == (40, "photo_of_a_street_jp", "f.jpg")
