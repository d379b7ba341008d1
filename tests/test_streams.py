import io
import json
import logging
import os
import subprocess
import sys

import pytest

from fldet.cli.output import Output, note, set_up_logging
from fldet.streams import safe_streams
from fldet.text import table

NASTY = "\x1b]0;owned\x07 \x9b31m \u202eexe \udcff 箱\r"
# pytest keeps what is logged, and its processes cannot hand on half a character
LOGGED = NASTY.replace("\udcff ", "")
SHOWN = "\\x1b]0;owned\\x07 \\x9b31m \\u202eexe \\udcff 箱\\r"

# what a command does: a line for the person, a log line, a result
BODY = """
import logging, typer
from fldet.cli import main
from fldet.cli.output import Output, command, note

@command
def say(json: bool = False, file: str = ""):
    if file:
        opened = open(file, "w")
    for number in range(2000):
        note(f"note \\xfc {number}")
        logging.getLogger("fldet").warning("log \\xfc %d", number)
    Output("say", as_json=json).result({"name": "\\xfc"}, text="result \\xfc\\n" * 20_000)
    note("the end")

main.app = typer.Typer(rich_markup_mode=None, add_completion=False)
main.app.command()(say)
main.main()
"""


def shell(line, **variables):
    """Runs the body above as $SAY in a line of the shell."""
    environment = {**os.environ, "BODY": BODY, "PY": sys.executable, **variables}
    line = f'set -o pipefail; SAY() {{ "$PY" -c "$BODY" "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", line], capture_output=True, env=environment, timeout=120)


@pytest.fixture
def streams(monkeypatch):
    """Both streams of the process, caught, in an encoding."""

    def catch(encoding="utf-8"):
        caught = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        for name, stream in zip(("stdout", "stderr"), caught, strict=True):
            monkeypatch.setattr(sys, name, stream)
            monkeypatch.setattr(sys, f"__{name}__", stream)
        return [lambda one=one: one.buffer.getvalue().decode(encoding) for one in caught]

    return catch


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", SHOWN), ("latin-1", SHOWN.replace("箱", r"\u7bb1")), ("ascii", None)],
)
def test_nothing_that_is_printed_commands_the_terminal(streams, encoding, shown):
    out, err = streams(encoding)
    shown = shown or SHOWN.replace("箱", r"\u7bb1")
    with safe_streams():
        Output("x").result(1, text=table(("class", "AP"), [(NASTY, "1")]))
        Output("x", quiet=True).result(1, text="", essential=NASTY)
        note(NASTY)
        set_up_logging()
        logging.getLogger("fldet").warning("%s", LOGGED)
        print(NASTY, file=sys.stderr)
        print(NASTY)
        sys.stderr.write("\r 50 %")
    assert out().count(shown) == 3
    assert err().count(shown) == 2
    assert shown.replace(r"\udcff ", "") in err()
    assert err().endswith("\n\r 50 %")


def test_a_line_during_a_progress_bar_commands_nothing(streams):
    from rich.console import Console
    from rich.progress import Progress

    _, err = streams()
    with safe_streams():
        set_up_logging()
        screen = io.StringIO()
        with Progress(console=Console(file=screen, force_terminal=True, width=200)):
            note(NASTY)
            logging.getLogger("fldet").warning("%s", LOGGED)
    assert screen.getvalue().count("owned") == 2
    assert "\x1b]0;" not in screen.getvalue()
    assert "\u202e" not in screen.getvalue()
    assert err() == ""


def test_json_stays_json(streams):
    out, _ = streams("ascii")
    with safe_streams():
        Output("x", as_json=True).result({"name": NASTY + "\x7f"}, text="")
    assert out().isascii()
    assert json.loads(out())["result"] == {"name": NASTY + "\x7f"}
    assert "\x7f" not in out()


def test_a_wrong_argument_is_printed_safely(streams, monkeypatch, capfd):
    from fldet.cli.main import main

    _, err = streams()
    monkeypatch.setattr(sys, "argv", ["fldet", "doctor", NASTY])
    with pytest.raises(SystemExit):
        main()
    assert "owned" in err()
    assert "\x1b" not in err()
    assert "\x9b" not in err()


@pytest.mark.e2e
@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "0<&-", "0<&- 1>&- 2>&-", "2>&- --file F"])
def test_a_closed_stream_is_no_reason_to_end(closed, tmp_path):
    closed = closed.replace("F", str(tmp_path / "file"))
    done = shell(f"SAY {closed}")
    assert (done.returncode, done.stderr[:7]) == (
        0,
        b"" if "2>&-" in closed else b"note \xc3\xbc"[:7],
    )
    assert done.stdout.startswith(b"" if "1>&-" in closed else b"result")
    if "--file" in closed:
        assert (tmp_path / "file").read_bytes() == b"", "a note went into a file"


@pytest.mark.e2e
@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C"},
    ],
)
def test_a_terminal_of_any_encoding_gets_every_line(variables):
    done = shell("SAY", **variables)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.count(b"result") == 20_000
    assert done.stderr.endswith(b"the end\n")


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("SAY 2>/dev/null | head -c 9", 1),  # nobody to tell the result
        ("SAY 2>&1 >/dev/null | head -c 9", 0),  # goes on without the person
        ("SAY --json 2>&1 >/dev/null | true", 0),
    ],
)
def test_a_reader_that_goes_away_ends_it_quietly_or_not_at_all(line, code):
    done = shell(line)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr
