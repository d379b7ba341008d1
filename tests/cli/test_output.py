import json
import logging
import sys
from types import SimpleNamespace

import pytest
import typer

from fldet.about import commit
from fldet.cli.output import Output, command, note
from fldet.errors import DataError, UsageError


def test_the_three_forms_of_a_result(capfd):
    for options, expected in (({}, "table\n"), ({"quiet": True}, "0.5\n")):
        Output("test", **options).result({"ap": 0.5}, text=lambda: "table", essential=0.5)
        assert capfd.readouterr().out == expected
    Output("test", as_json=True).result({"ap": 0.5}, text="table")
    printed = json.loads(capfd.readouterr().out)
    assert printed.pop("version")
    assert printed.pop("commit") == commit()
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


def fail_in_process(rank, error, monkeypatch, **variables):
    """Runs a command that fails in one of two processes of torchrun."""
    monkeypatch.setattr("fldet.cli.output.time.sleep", lambda seconds: None)
    for name, value in {"RANK": rank, "WORLD_SIZE": 2, **variables}.items():
        monkeypatch.setenv(name, str(value))

    @command
    def body():
        raise error

    with pytest.raises(typer.Exit) as stopped:
        body()
    return stopped.value.exit_code


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError("no such thing", hint="look"), 2, "Error: no such thing\nHint: look"),
        (ValueError("a defect"), 1, "Traceback"),
    ],
)
def test_the_launcher_names_the_process_that_failed(
    error, code, text, monkeypatch, tmp_path, capsys
):
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    from fldet.engine.agent import failure_text

    file = tmp_path / "error.json"
    told = fail_in_process(1, error, monkeypatch, TORCHELASTIC_ERROR_FILE=file)
    assert told == code
    assert capsys.readouterr().err == ""
    failure = ProcessFailure(local_rank=1, pid=7, exitcode=code, error_file=str(file))
    assert failure_text(1, failure).startswith(f"process 1: {text}")
    assert str(error) in failure_text(1, failure)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        *[(130, "the processes have stopped"), (143, "the processes have stopped")],
        *[(1, "process 1 (pid 7) ended with exit code 1"), (-9, "was ended by SIGKILL")],
    ],
)
def test_torchrun_calls_only_a_failure_an_error(code, text):
    from fldet.engine.agent import failure_text

    said = failure_text(1, SimpleNamespace(message="", exitcode=code, pid=7))
    assert text in said
    assert said.startswith("Error: ") == (code < 128)


def test_before_a_restart_and_without_torchrun_a_process_speaks_for_itself(
    monkeypatch, tmp_path, capsys
):
    restart = {"TORCHELASTIC_RESTART_COUNT": 0, "TORCHELASTIC_MAX_RESTARTS": 1}
    file = tmp_path / "error.json"
    for variables in ({"TORCHELASTIC_ERROR_FILE": file, **restart}, {}):
        assert fail_in_process(1, DataError("no disk"), monkeypatch, **variables) == 1
        assert capsys.readouterr().err == "process 1 of 2: Error: no disk\n"
    assert not file.exists()


def test_a_process_that_was_killed_is_named_with_its_signal():
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    from fldet.engine.agent import failure_text

    failure = ProcessFailure(local_rank=0, pid=7, exitcode=-9, error_file="")
    assert failure_text(3, failure).startswith(
        "Error: process 3 (pid 7) was ended by SIGKILL\nHint:"
    )
