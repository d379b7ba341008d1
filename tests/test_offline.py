"""No command opens a connection that nobody has asked for.

All tests run cut off from the network (``tests/offline``), and fail if something tries: that no
command does is shown by all tests that run it. Here is that the cut holds, and, without a network
in the system's own sense, a training as users start it.
"""

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from doc_lines import ELSEWHERE, LINES
from typer.main import get_command

from fldet.cli.main import app


@pytest.fixture
def attempts(no_connections):
    """What was tried so far, which is forgotten then."""

    file = Path(os.environ["FLDET_ATTEMPTS"])

    def take():
        text = file.read_text() if file.exists() else ""
        file.unlink(missing_ok=True)
        return text

    return take


def send_a_datagram(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.sendto(b"x", address)


@pytest.mark.parametrize(
    "reach",
    [
        lambda: socket.create_connection(("192.0.2.1", 80), timeout=0.1),
        lambda: socket.getaddrinfo("example.org", 443),
        lambda: socket.gethostbyname("example.org"),
        lambda: urllib.request.urlopen("https://example.org/weights.pth", timeout=0.1),
        lambda: send_a_datagram(("192.0.2.1", 53)),
        lambda: socket.create_connection(("2001:db8::1", 80), timeout=0.1),
    ],
)
def test_what_leaves_this_machine_is_refused_and_noticed(reach, attempts):
    with pytest.raises(OSError, match="tests have no network"):
        reach()
    assert attempts()


def test_so_are_processes_that_tests_start(attempts):
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=0.1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "tests have no network" in done.stderr
    assert "192.0.2.1" in attempts()


def test_this_machine_can_be_reached(attempts):
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
    socket.getaddrinfo(socket.gethostname(), 80)
    assert attempts() == ""


def leaves(command, words=()):
    """Yields the words of every command below one."""
    names = getattr(command, "commands", {})
    if not names:
        yield " ".join(words)
    for name in names:
        yield from leaves(command.commands[name], (*words, name))


COMMANDS = sorted(leaves(get_command(app)))


def test_every_command_is_run_by_a_test():
    """By those of the docs, or where these say; all of them are cut off."""
    run = {" ".join(line.arguments) + " " for line in LINES if line.is_run_here and line.arguments}
    run |= {
        f"{text.removeprefix('fldet ')} "
        for text, (file, _) in ELSEWHERE.items()
        if file.startswith("tests/")
    }
    assert len(COMMANDS) > 30
    for command in COMMANDS:
        assert any(line.startswith(f"{command} ") for line in run), f"nothing runs fldet {command}"


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_a_run_needs_no_network_at_all(tiny_config, tiny_coco, tmp_path):
    """Without any interface, loopback neither: train, test, package, predict, report."""
    unshare = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("unshare is not allowed here")
    work = str(tmp_path / "run")
    for words in (
        ["train", str(tiny_config), "--work-dir", work],
        ["test", work],
        ["package", work],
        ["predict", f"{work}/package", str(tiny_coco / "val2017"), "--out", str(tmp_path / "p")],
        ["report", work],
    ):
        command = [*unshare, sys.executable, "-m", "fldet", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ)
        assert done.returncode == 0, done.stderr
