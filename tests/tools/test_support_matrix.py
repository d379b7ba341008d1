"""The lines of the support matrix fit what setup.py and requirements allow."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def matrix(monkeypatch):
    spec = importlib.util.spec_from_file_location("matrix", ROOT / "tools" / "support_matrix.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "matrix", module)  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_the_lines_begin_and_end_where_setup_does(matrix):
    lowest, above = re.search(
        r'python_requires=">=3\.(\d+),<3\.(\d+)"', (ROOT / "setup.py").read_text()
    ).groups()
    minors = {int(line.python.partition(".")[2]) for line in matrix.LINES}
    assert minors == set(range(int(lowest), int(above)))
    assert matrix.LINES[0].python == f"3.{lowest}"
    assert matrix.LINES[0].resolution == "lowest-direct"


def test_the_tests_of_the_matrix_exist(matrix):
    assert [name for name in matrix.TESTS if not (ROOT / name).exists()] == []


def test_a_run_of_tests_is_summed_up(matrix, tmp_path):
    (tmp_path / "test_a.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip()\ndef test_c(): assert 0\n"
    )
    outcome, passed = matrix.run_tests(Path(sys.executable), [str(tmp_path / "test_a.py")])
    assert outcome.startswith("1 failed, 1 passed, 1 skipped (")
    assert not passed


def test_a_row_has_the_versions_that_are_installed(matrix):
    row = matrix.row(matrix.LINES[0], Path(sys.executable), "seen")
    cells = row.strip("| ").split(" | ")
    assert cells[0] == "lowest"
    assert cells[1] == ".".join(map(str, sys.version_info[:3]))
    assert len(cells) == 10
    missing = matrix.row(matrix.LINES[0], Path("/nowhere/python"), "seen")
    assert missing.count("|") == row.count("|")
