import json
import math
from pathlib import Path

import pytest

from fldet.results import SpeedResult, to_jsonable, write_atomically


def test_dataclasses_paths_and_nan_become_json():
    speed = SpeedResult(1.5, math.nan, 3, (4, 5), "cpu", "float32", 2)
    plain = to_jsonable({"speed": speed, "path": Path("a/b"), 1: (math.inf, True)})
    assert json.loads(json.dumps(plain)) == {
        "speed": {
            "median_ms": 1.5,
            "p90_ms": None,
            "num_images": 3,
            "image_shape": [4, 5],
            "device": "cpu",
            "precision": "float32",
            "threads": 2,
            "p99_ms": None,
            "images_per_second": None,
            "stages_ms": {},
            "optimized": False,
            "compiled": False,
            "against": None,
            "timed": "",
            "machine": {},
        },
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
