import json
import math
from pathlib import Path

import pytest

from fldet.results import SpeedComparison, to_jsonable, write_atomically


def test_dataclasses_paths_and_nan_become_json():
    speed = SpeedComparison("mmdet", 1.5, math.nan)
    plain = to_jsonable({"speed": (speed, None), "path": Path("a/b"), 1: (math.inf, True)})
    assert json.loads(json.dumps(plain)) == {
        "speed": [{"name": "mmdet", "median_ms": 1.5, "speedup": None}, None],
        "path": "a/b",
        "1": [None, True],
    }


def test_files_are_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "a.json"
    write_atomically(target, '{"x": 1}')
    assert json.loads(target.read_text()) == {"x": 1}
    with pytest.raises(TypeError):
        write_atomically(target, 5)
    assert json.loads(target.read_text()) == {"x": 1}
    assert [path.name for path in target.parent.iterdir()] == ["a.json"]
