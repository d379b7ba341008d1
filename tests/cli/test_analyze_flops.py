import json

import pytest
import warm
from typer.testing import CliRunner

from fldet.cli.main import app


def stdout_of(*arguments):
    """Of a process of its own: MMEngine's logger keeps the stderr that it was made with."""
    done = warm.run("analyze", "flops", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.e2e
def test_text_has_parts_levels_and_the_convention(tiny_config, tmp_path):
    text = stdout_of(tiny_config, "--shape", "60x90", "--out-dir", tmp_path)
    names = [line.split("  ")[0] for line in text.splitlines()]
    for name in ("backbone", "neck", "classification subnet", "box subnet", "total"):
        assert name in names
    assert "one image of 64x96, padded" in text
    assert "2 FLOPs for a multiply-add" in text
    assert (tmp_path / "flops_tiny_60x90.png").is_file()


@pytest.mark.e2e
def test_json_has_the_same(tiny_config, tmp_path):
    printed = stdout_of(tiny_config, "--shape", "64x64", "--out-dir", tmp_path, "--json")
    count = json.loads(printed)["result"]["count"]
    assert count["shape"] == [64, 64]
    parts = {part["total"]["name"]: part for part in count["parts"]}
    assert [piece["name"] for piece in parts["box subnet"]["pieces"]] == [
        "shared", "P3", "P4", "P5", "P6", "P7"
    ]  # fmt: skip
    assert sum(part["total"]["flops"] for part in count["parts"]) == count["total"]["flops"]


def test_a_wrong_shape_is_wrong_usage(tiny_config):
    result = CliRunner().invoke(app, ["analyze", "flops", str(tiny_config), "--shape", "big"])
    assert result.exit_code == 2
    assert "HEIGHTxWIDTH" in result.output
