import json
import logging
import sys

import pytest
import typer

from fldet.cli.output import Output, command, note
from fldet.errors import DataError, UsageError


def test_the_three_forms_of_a_result(capfd):
    for options, expected in (({}, "table\n"), ({"quiet": True}, "0.5\n")):
        Output("test", **options).result({"ap": 0.5}, text=lambda: "table", essential=0.5)
        assert capfd.readouterr().out == expected
    Output("test", as_json=True).result({"ap": 0.5}, text="table")
    printed = json.loads(capfd.readouterr().out)
    assert printed.pop("version")
    assert printed == {"schema": 1, "command": "test", "result": {"ap": 0.5}}


def test_only_the_first_process_speaks(capfd, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    Output("test").result(1, text="x")
    note("y")
    assert capfd.readouterr() == ("", "")


def test_what_libraries_print_goes_to_stderr(capfd):
    @command
    def body():
        print("chatter")
        Output("x").result(1, text="result")

    body()
    out, err = capfd.readouterr()
    assert (out, err) == ("result\n", "chatter\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError("a", expected="b", hint="c"), 1), (UsageError("a"), 2), (KeyboardInterrupt(), 130)],
)
def test_expected_errors_become_exit_codes(error, code, capsys):
    @command
    def body():
        raise error

    with pytest.raises(typer.Exit) as exit_:
        body()
    assert exit_.value.exit_code == code
    assert "Traceback" not in capsys.readouterr().err


def test_unexpected_errors_keep_their_traceback():
    @command
    def body():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()


def test_log_lines_follow_a_replaced_stderr(monkeypatch, capsys):
    command(lambda: logging.getLogger("fldet").warning("look out"))()
    assert capsys.readouterr().err == "warning: look out\n"
    assert sys.stdout is not sys.stderr
