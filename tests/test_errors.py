import pytest

from fldet.errors import ConfigError, DataError, FldetError, UsageError, nearest, shorten


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DataError("no x"), "no x"),
        (DataError("no x", expected="a y", hint="do z"), "no x\nExpected: a y\nHint: do z"),
        (DataError("no x", expected="did you mean y?"), "no x\ndid you mean y?"),
    ],
)
def test_an_error_is_up_to_three_lines(error, text):
    assert str(error) == text


def test_exit_codes_follow_the_kind():
    assert (FldetError("a").exit_code, UsageError("a").exit_code, ConfigError("a").exit_code) == (
        1,
        2,
        2,
    )


def test_nearest_names_are_offered_only_if_near():
    assert nearest("persn", ["person", "car"]) == "did you mean person?"
    assert nearest("xyz", ["person", "car"]) == ""


def test_long_values_are_shortened():
    assert shorten("a" * 200, limit=5) == "'aaaa..."
    assert shorten([1]) == "[1]"


def nested(depth, width, leaf="x"):
    value = leaf
    for _ in range(depth):
        value = [value] * width
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"id": 1, "b": [None]}, "{'id': 1, 'b': [None]}"),
        ((1,), "(1,)"),
        ((), "()"),
        ({}, "{}"),
        (b"ab", "b'ab'"),
        (True, "True"),
        (nested(9, 10), "[[[[[[[[['x', 'x', 'x'..."),
        (nested(10**5, 1), "[" * 22 + "..."),
        ({"a": nested(9, 10)}, "{'a': [[[[[[[[['x', 'x..."),
        (10**5000, "a number of 16610 bits"),
        ("a" * 10**8, "'" + "a" * 21 + "..."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_shortened_is_never_made_whole(value, text):
    assert shorten(value, limit=22) == text
