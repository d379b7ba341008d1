import pytest

from fldet.config import load_config
from fldet.engine.benchmark import benchmark
from fldet.evaluation.speed import time_per_image


def test_times_the_images_of_the_test_set(tiny_config):
    result = benchmark(load_config(tiny_config), num_images=5, device="cpu")
    assert result.num_images == 5
    assert 0 < result.median_ms <= result.p90_ms
    assert result.image_shape == (96, 96)
    assert (result.device, result.precision) == ("cpu", "float32")


def test_times_a_random_image_without_any_data(tiny_config):
    cfg = load_config(tiny_config, ["data_root=nowhere"])
    result = benchmark(cfg, num_images=3, shape=(64, 96), device="cpu")
    assert (result.num_images, result.image_shape) == (3, (64, 96))


class Sleeper:
    def __init__(self):
        self.calls = 0

    def test_step(self, batch):
        self.calls += 1


def test_warm_up_is_run_but_not_counted():
    model = Sleeper()
    assert len(time_per_image(model, [{}] * 5, warmup=3)) == 2
    assert model.calls == 5
    with pytest.raises(ValueError, match="no image left to time after 3 for warming up"):
        time_per_image(model, [{}] * 3, warmup=3)
