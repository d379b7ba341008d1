"""Times by depth and scale."""

import pytest

from fldet.benchmark import table as module
from fldet.benchmark.predict import OptimizedCopy
from fldet.benchmark.results import SpeedResult
from fldet.benchmark.table import DEPTHS, SCALES, speed_table
from fldet.errors import UnavailableError, UsageError


def fake(cfg, **options):
    assert options["num_images"] == 7
    height, width = options["shape"]
    if height == 500:
        raise RuntimeError("out of memory")
    return SpeedResult(cfg.model.backbone.depth, 1.0, 7, (height, width), "cpu", "float32", 1)


def test_every_cell_of_table_1e_beside_the_papers_time(monkeypatch):
    monkeypatch.setattr(module, "benchmark", fake)
    seen = []
    table = speed_table(num_images=7, device="cpu", on_cell=seen.append)
    assert [(c.depth, c.scale) for c in table.cells] == [(d, s) for d in DEPTHS for s in SCALES]
    assert [cell.paper_ms for cell in table.cells] == [64, 72, 98, 121, 153, 81, 90, 122, 154, 198]
    assert [len(so_far.cells) for so_far in seen] == list(range(1, 11))
    first, failed, last = table.cells[0], table.cells[1], table.cells[-1]
    assert (first.result.median_ms, first.result.image_shape) == (50, (400, 533))
    assert (last.result.median_ms, last.result.image_shape) == (101, (800, 1067))
    assert (failed.result, failed.error) == (None, "RuntimeError: out of memory")


def test_a_config_at_other_depths_one_of_which_does_not_exist(tiny_config):
    table = speed_table(str(tiny_config), depths=(18, 35), scales=(48,), num_images=1, device="cpu")
    good, bad = table.cells
    assert good.result.image_shape == (48, 64)
    assert (good.result.weights, good.paper_ms) == ("random", None)
    assert bad.result is None
    assert "35" in bad.error


def test_a_depth_without_a_config_is_a_cell_that_failed():
    (cell,) = speed_table(depths=(34,), scales=(400,), device="cpu").cells
    assert "r34_fpn_1x.py" in cell.error


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"depths": (50, 50)}, UsageError, "--depths 50 50"),
        ({"scales": (0, 400)}, UsageError, "--scales 0 400"),
        ({"against": "me"}, UsageError, "unknown comparison"),
        ({"copy": OptimizedCopy("int8")}, UsageError, "unknown precision"),
        ({"copy": OptimizedCopy(cuda_graph=True)}, UnavailableError, "no CUDA graphs"),
    ],
)
def test_what_no_cell_could_use_is_refused_before_the_first(options, error, message):
    with pytest.raises(error, match=message):
        speed_table(device="cpu", **options)
