"""Commands of plug-ins, and ``fldet plugins``, as a user types them."""

import json
import os
import subprocess
import sys

import pytest
import typer

from fldet.cli.group import epilog
from fldet.cli.plugins import plugins
from fldet.plugins import installed

pytestmark = pytest.mark.e2e

HELP = """
import sys, atexit
sys.argv = ["fldet", *{words!r}, "--help"]
heavy = ("torch", "numpy", "mmengine", "mmcv", "mmdet", "rich", "fldet_example", "broken")
atexit.register(lambda: print("IMPORTED", [name for name in heavy if name in sys.modules]))
from fldet.cli.main import main
main()
"""


def run(site, *arguments):
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.fixture
def broken(install):
    """A package with two commands that cannot be imported, and one that another has too."""
    install(
        "broken-plugin",
        "[fldet.commands]\nlook = broken.look:look\n"
        "[fldet.commands.analyze]\nbox-sizes = broken.look:look\ndataset = broken.look:look\n",
        broken__look="import no_such_package\n",
    )


def test_help_lists_commands_of_plugins_and_imports_none(example_plugin, broken):
    analyze = run(example_plugin, "-c", HELP.format(words=["analyze"]))
    assert "IMPORTED []" in analyze.stdout, analyze.stderr
    *_, section = analyze.stdout.partition("Commands of plug-ins:\n")
    assert section.splitlines()[0].split() == ["box-sizes", "broken-plugin", "1.0"]
    assert "dataset" not in section  # fldet's own comes first
    top = run(example_plugin, "-c", HELP.format(words=[]))
    assert "IMPORTED []" in top.stdout
    assert "Commands of plug-ins:\n  look  broken-plugin 1.0\n" in top.stdout


def test_a_command_of_a_plugin(example_plugin, tiny_coco):
    files = [
        tiny_coco / "annotations" / f"instances_{split}2017.json" for split in ("train", "val")
    ]
    done = run(example_plugin, "-m", "fldet", "analyze", "box-sizes", *files, "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["command"] == "analyze box-sizes"
    (train, val) = shown["result"]
    truth = json.loads(files[0].read_text())["annotations"]
    sides = sorted(one["bbox"][2] for one in truth if not one["iscrowd"])  # squares
    assert train["boxes"] == len(sides) == 9
    assert train["median"] == sides[4]
    assert train["p5"] == pytest.approx(0.6 * sides[0] + 0.4 * sides[1])
    assert val["file"] == str(files[1])
    wrong = run(example_plugin, "-m", "fldet", "analyze", "box-sizes", "no.json")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "annotation file not found: no.json" in wrong.stderr


def test_help_of_a_command_of_a_plugin(example_plugin):
    shown = run(example_plugin, "-c", HELP.format(words=["analyze", "box-sizes"]))
    assert "Examples:\n    fldet analyze box-sizes " in shown.stdout, shown.stderr
    assert "IMPORTED ['fldet_example']" in shown.stdout


def test_examples_that_bring_their_heading_are_kept():
    ours, theirs = "\n  fldet doctor\n", "\b\nExamples:\n  fldet doctor\n"
    assert epilog(ours) == epilog(theirs) == theirs


def test_a_broken_command_is_named_and_stops_no_other(site, broken):
    done = run(site, "-m", "fldet", "look")
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert "Error: the plug-in broken-plugin 1.0 (command look) does not work: Module" in error
    assert "'no_such_package'" in error
    assert hint.startswith("Hint: pip install --upgrade broken-plugin")
    assert run(site, "-m", "fldet", "--version").returncode == 0
    unknown = run(site, "-m", "fldet", "lok")
    assert (unknown.returncode, "No such command 'lok'" in unknown.stderr) == (2, True)


def test_plugins_lists_packages_problems_and_names(example_plugin, broken):
    done = run(example_plugin, "-m", "fldet", "plugins", "--json")
    assert done.returncode == 1  # one does not work
    result = json.loads(done.stdout)["result"]
    problems = {(one["package"], one["name"]): one["problem"] for one in result["plugins"]}
    assert problems["fldet-example-plugin", "fldet_example"] == ""
    assert "broken-plugin 1.0 adds" in problems["fldet-example-plugin", "box-sizes"]
    assert "'no_such_package'" in problems["broken-plugin", "look"]
    names = {(one["kind"], one["name"], one["package"]) for one in result["names"]}
    assert names >= {
        ("loss", "fldet_example.PolyFocalLoss", "fldet-example-plugin"),
        ("miner", "fldet.OHEM", "fldet"),
        ("command", "config show", "fldet"),
    }
    assert {package for *_, package in names} == {"fldet", "fldet-example-plugin"}


def test_plugins_filters(example_plugin, capfd):
    plugins(kind="miner", package="fldet", everything=False, json=False)
    rows = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert ["fldet-example-plugin", "1.0", "scope", "fldet_example"] in rows
    names = rows[rows.index(["kind", "name", "from"]) + 2 :]
    assert [row[:2] for row in names] == [["miner", "fldet.HardNegatives"], ["miner", "fldet.OHEM"]]
    plugins(kind="assigner", package=None, everything=True, json=False)
    assert " ATSSAssigner " in capfd.readouterr().out
    with pytest.raises(typer.Exit) as stop:
        plugins(kind="mine", package=None, everything=False, json=False)
    assert stop.value.exit_code == 2
    assert "did you mean miner" in capfd.readouterr().err


def test_plugins_without_any(site, capfd):
    if installed():
        pytest.skip("this environment has plug-ins")
    plugins(kind="hook", package=None, everything=False, json=False)
    assert capfd.readouterr().out.startswith("  no plug-in is installed\n\nkind  name")
