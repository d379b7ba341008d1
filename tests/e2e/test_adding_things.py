"""The exercise of docs/adding-things.md, done in a copy of the package as the page says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fldet

ROOT = Path(fldet.__file__).parent.parent
CONFIG = """
_base_ = '{base}'
{parts}
train_cfg = dict(max_iters=2, val_interval=2)
"""


@pytest.mark.e2e
@pytest.mark.slow
def test_a_loss_a_neck_and_an_analysis_are_a_file_each(tmp_path, tiny_coco):
    page = (ROOT / "docs" / "adding-things.md").read_text()
    loss, neck, analysis, command = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    package = tmp_path / "fldet"
    shutil.copytree(ROOT / "fldet", package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (package / "models" / "losses" / "linear.py").write_text(loss)
    (package / "models" / "necks").mkdir(exist_ok=True)
    (package / "models" / "necks" / "shallow.py").write_text(neck)
    (package / "analysis" / "class_balance.py").write_text(analysis)
    (package / "cli" / "analyze" / "class_balance.py").write_text(command)
    (parts,) = re.findall(r"Both in a config: `(.*?)`\.", page, re.DOTALL)
    base = ROOT / "tests" / "golden" / "configs" / "base.py"
    (tmp_path / "mine.py").write_text(CONFIG.format(base=base, parts=parts))

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "fldet", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "trained 2 iterations" in run("train", "mine.py", "--device", "cpu")
    file = tiny_coco / "annotations" / "instances_train2017.json"
    assert "circle" in run("analyze", "class-balance", str(file))
    counts = json.loads(run("analyze", "class-balance", str(file), "--json"))["result"]
    assert sum(counts.values()) == len(json.loads(file.read_text())["annotations"])
