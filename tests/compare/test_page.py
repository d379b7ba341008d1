"""What a comparison says, worked by hand, and its page."""

import math
import re
from html import unescape
from pathlib import Path

import pytest

from fldet.analysis.log.read import Series
from fldet.compare.page import render
from fldet.compare.result import (
    Comparison,
    Contestant,
    advice,
    curve_of,
    minutes_at,
    with_envelope,
)

EVIL = "<b onclick=alert(1)>"


def contestant(name, ap=math.nan, ms=math.nan, **more):
    state = more.pop("state", "done")
    return Contestant(
        name, name.title(), "words", Path("c.py"), Path("w"), state, ap=ap, ms=ms, **more
    )


FOUR = (
    contestant(
        "slow", 40, 30, memory_mib=90, curve=((1.0, 20.0), (2.0, 40.0)), iterations=10, planned=10
    ),
    contestant("quick", 30, 10, memory_mib=50, iterations=9, planned=10),
    contestant("worse", 25, 20, memory_mib=40, iterations=10, planned=10),
    contestant(EVIL, state="failed", reason=f"train ended with exit code 1: {EVIL}"),
)


def comparison(contestants):
    found = with_envelope(contestants)
    return Comparison(found, f"/data/{EVIL}", "6 min", 171, "cpu", {"CPU": EVIL}, advice(found))


def test_the_envelope_and_which_one_to_take():
    found = with_envelope(FOUR)
    assert [one.on_envelope for one in found] == [True, True, False, False]
    assert advice(found) == (
        "Without a limit of time take Slow: AP 40.0, 30.0 ms an image.",
        "Where an image has less than 30.0 ms, take Quick: AP 30.0, 10.0 ms.",
        "None that has learned takes less than 10.0 ms.",
        "Worse takes least memory, 40 MiB an image.",
    )


def test_nothing_is_advised_where_nothing_was_measured():
    (line,) = advice(with_envelope([contestant("one", state="diverged")]))
    assert "nothing to advise" in line
    (line,) = advice(with_envelope([contestant("one", 0.4, 10)]))
    assert line == "None has learned enough to choose by, the best AP is 0.4: train longer."


def test_what_has_not_learned_is_not_advised_however_fast_and_small_it_is():
    fast = contestant("fast", 0.0, 5, memory_mib=1)
    found = with_envelope([*FOUR, fast])
    assert found[-1].on_envelope
    assert advice(found) == advice(with_envelope(FOUR))


def test_minutes_of_a_curve_by_hand():
    times = Series((10, 20, 25), (6.0, 12.0, 24.0))  # a minute, two, two
    assert minutes_at(times, 10) == pytest.approx(1)
    assert minutes_at(times, 15) == pytest.approx(2)
    assert minutes_at(times, 25) == pytest.approx(5)
    assert minutes_at(times, 30) == pytest.approx(7)  # not logged any more
    assert math.isnan(minutes_at(Series(), 30))
    curve = curve_of(times, Series((10, 25), (0.1, 0.4)))
    assert curve == (pytest.approx((1, 10)), pytest.approx((5, 40)))


def test_the_page_shows_all_of_them_and_escapes_what_comes_from_outside():
    page = render(comparison(FOUR))
    assert EVIL not in page
    text = unescape(re.sub(r"<[^>]+>", " ", page))
    for words in (
        "Where an image has less than 30.0 ms, take Quick",
        "failed",
        f"exit code 1: {EVIL}",
        "9 of 10 iterations",
        "tested on 171 images",
    ):
        assert words in " ".join(text.split()), words
    assert page.count("★") == 3  # two of them, and the note
    assert page.count("<figure") == 2
    assert len(re.findall(r"<text[^>]*>(?:Slow|Quick|Worse)</text>", page)) == 3  # beside points
    rows = re.findall(r'<th scope="row">([^<]+)', page)
    assert [row.split(" ")[0] for row in rows[:3]] == ["Slow", "Quick", "Worse"]


def test_a_page_of_failures_alone_has_no_charts():
    page = render(comparison(FOUR[3:]))
    assert "<figure" not in page
    assert "nothing to advise" in page
