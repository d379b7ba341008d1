import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont

from fldet.pictures import lettering
from fldet.pictures.lettering import drawable, families, text_mask

any_text = st.text(st.characters(codec=None, categories=None), max_size=150)


@pytest.fixture
def only_dejavu(monkeypatch):
    """A machine without other fonts."""
    lettering._font_of.cache_clear()
    lettering._say_what_is_missing.cache_clear()
    monkeypatch.setattr(lettering, "_system_fonts", tuple)
    yield
    lettering._font_of.cache_clear()


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("plain name 0.5", "plain name 0.5"),
        ("Müller кошка عربي", "Müller кошка عربي"),
        ("箱子", "⟨7BB1⟩⟨5B50⟩"),
        ("\ud800", "⟨D800⟩"),
        ("a\x1b\n\t\x00", "a⟨1B⟩⟨A⟩⟨9⟩⟨0⟩"),
        ("\u202egpj", "⟨202E⟩gpj"),
        ("⟨7BB1⟩", "⟨27E8⟩7BB1⟩"),
    ],
)
def test_what_no_font_has_is_written_as_its_number(only_dejavu, text, drawn):
    assert drawable(text) == drawn


def test_that_letters_are_missing_is_said_once(only_dejavu, caplog):
    with caplog.at_level("INFO", "fldet"):
        drawable("Müller кошка λ")
        assert not caplog.records
        drawable("箱子")
        drawable("桌子")
    assert [record.message.count("Noto Sans CJK") for record in caplog.records] == [1]


@given(st.lists(any_text, min_size=2, max_size=4, unique=True))
@settings(max_examples=100, deadline=None)
def test_two_texts_are_drawn_as_two(texts):
    drawn = [drawable(text, 40) for text in texts]
    assert len(set(drawn)) == len(texts)
    assert all(len(text) <= 40 for text in drawn)


@pytest.mark.parametrize("text", ["箱子 0.9", "é", "\ud800", "e\u0301", "⟨", "عربي", "😀"])
def test_a_mask_is_of_the_size_of_the_font_and_not_empty(text):
    mask = text_mask(drawable(text), 20)
    assert (mask.dtype, mask.shape[0]) == (np.uint8, 26)
    assert mask.max() > 100


def test_a_font_of_the_system_is_used_for_what_dejavu_lacks(only_dejavu, monkeypatch):
    own = lettering._own_font()
    import matplotlib

    other = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "STIXGeneral.ttf")
    letter = "\u23e2"  # one that STIX has alone
    assert drawable(letter) == "⟨23E2⟩"
    lettering._font_of.cache_clear()
    monkeypatch.setattr(lettering, "_system_fonts", lambda: ("no such.ttf", other))
    monkeypatch.setattr(lettering, "_needed", set())
    assert drawable(letter) == letter
    assert [path for path, _ in lettering._runs(f"a{letter}b")] == [own, other, own]
    assert families() == ["DejaVu Sans", ImageFont.truetype(other).getname()[0]]
