import pytest

from fldet.config import load_config
from fldet.engine.benchmark import benchmark
from fldet.errors import UsageError
from fldet.evaluation.speed import STAGES, time_in_turns, time_per_image, time_stages


def test_times_the_images_of_the_test_set(tiny_config):
    result = benchmark(load_config(tiny_config), num_images=5, device="cpu")
    assert result.num_images == 5
    assert 0 < result.median_ms <= result.p90_ms
    assert result.image_shape == (96, 96)
    assert (result.device, result.precision) == ("cpu", "float32")


def test_says_where_the_time_goes_and_what_it_was_measured_on(tiny_config):
    result = benchmark(load_config(tiny_config), num_images=3, shape=(64, 96), device="cpu")
    assert result.median_ms <= result.p90_ms <= result.p99_ms
    assert result.images_per_second > 0
    assert tuple(result.stages_ms) == STAGES
    assert all(value > 0 for value in result.stages_ms.values())
    assert "test_step" in result.timed
    assert set(result.machine) == {"processor", "cores", "python", "torch", "nms"}
    assert (result.optimized, result.compiled, result.against) == (False, False, None)


def test_times_an_optimized_copy_against_mmdetections_code(tiny_config):
    cfg = load_config(tiny_config)
    result = benchmark(
        cfg, num_images=3, shape=(64, 96), device="cpu", precision="fp32", against="mmdet"
    )
    assert (result.optimized, result.precision) == (True, "float32")
    assert result.against.name == "mmdet"
    assert result.against.median_ms > 0
    assert result.against.speedup > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "unknown precision 'int8'"),
        ({"against": "me"}, "unknown comparison"),
    ],
)
def test_unknown_ways_are_refused(tiny_config, options, message):
    with pytest.raises(UsageError, match=message):
        benchmark(load_config(tiny_config), shape=(64, 64), device="cpu", **options)


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


def test_models_take_turns_and_change_places():
    order = []

    class Named:
        def __init__(self, name):
            self.name = name

        def test_step(self, batch):
            order.append(self.name)

    times = time_in_turns([Named("a"), Named("b")], [{}] * 3, warmup=1)
    assert times.shape == (2, 2)
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_a_detector_without_a_dense_head_has_no_stages():
    assert time_stages(Sleeper(), [{}] * 3) == {}
