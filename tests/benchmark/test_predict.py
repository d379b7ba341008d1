import copy
import time

import pytest
import torch
from mmdet.structures import DetDataSample

from fldet.analysis.flops.count import count_flops
from fldet.benchmark.clock import STAGES, Marks, WatchedBatches, time_in_turns, time_stages
from fldet.benchmark.predict import OptimizedCopy, benchmark
from fldet.benchmark.training import benchmark_training
from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.errors import ConfigError, UnavailableError, UsageError
from fldet.models.fast.cuda_graph import graphed
from fldet.models.fast.optimize import optimized


def test_times_the_images_of_the_test_set(tiny_config):
    result = benchmark(load_config(tiny_config), num_images=5, device="cpu")
    assert result.num_images == 5
    assert 0 < result.median_ms <= result.p90_ms
    assert result.image_shape == (96, 96)
    assert (result.device, result.precision) == ("cpu", "float32")
    assert tuple(result.stages_ms) == STAGES
    assert (result.weights, result.warmup, result.batch_size) == ("random", 3, 1)


def test_says_where_the_time_goes_and_what_it_was_measured_on(tiny_config):
    result = benchmark(load_config(tiny_config), num_images=3, shape=(64, 96), device="cpu")
    assert result.median_ms <= result.p90_ms <= result.p99_ms
    assert result.images_per_second > 0
    assert tuple(result.stages_ms) == STAGES[1:]  # a random image is not loaded
    assert all(value > 0 for value in result.stages_ms.values())
    assert "test_step" in result.timed
    assert {"processor", "cores", "python", "torch", "mmdet", "fldet", "nms"} <= set(result.machine)
    assert (result.optimized, result.compiled, result.against) == (False, False, None)


def test_share_of_the_peak_is_work_over_time_over_the_best_measured_rate(tiny_config, monkeypatch):
    rates = {"conv": 50.0, "matmul": 40.0}
    monkeypatch.setattr("fldet.benchmark.summary.measured_rates", lambda device, dtype: rates)
    cfg = load_config(tiny_config)
    result = benchmark(cfg, num_images=3, shape=(64, 96), device="cpu")
    work = sum(call.flops for call in count_flops(cfg, (64, 96)).calls) / 1e9
    assert result.gflop == pytest.approx(work)
    assert result.machine_gflops == rates
    assert result.peak_share == pytest.approx(work / (result.median_ms / 1000) / 50)


@pytest.mark.parametrize("time", [benchmark, benchmark_training])
@pytest.mark.parametrize("shape", [(33, 500), (300, 400)])
def test_a_size_that_the_config_never_gives_its_network_is_refused(time, shape):
    cfg = load_config("systems/shapes/ssd_r18.py")
    with pytest.raises(ConfigError, match="warps all of them to 160x160"):
        time(cfg, shape=shape, device="cpu")


def test_an_image_with_no_room_for_a_layer_is_refused():
    cfg = load_config("systems/shapes/ssd_r18.py", {"val_dataloader.dataset.pipeline": []})
    with pytest.raises(UsageError, match="too small for the network"):
        benchmark(cfg, num_images=1, shape=(33, 500), device="cpu")


def test_cuda_graphs_need_one_size_and_a_gpu(tiny_config):
    cfg = load_config(tiny_config)
    with pytest.raises(UsageError, match="needs images of one size") as refused:
        benchmark(cfg, device="cpu", copy=OptimizedCopy(cuda_graph=True))
    assert "--shape" in refused.value.hint
    with pytest.raises(UnavailableError, match="cpu has no CUDA graphs") as refused:
        benchmark(cfg, device="cpu", copy=OptimizedCopy(cuda_graph=True), shape=(64, 64))
    assert "--cuda-graph" in refused.value.hint


def test_a_recorded_network_is_only_replayed(tiny_config, monkeypatch):
    replays = []

    class Nothing:
        def __init__(self, *args):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def wait_stream(self, other):
            pass

        def replay(self):
            replays.append(self)

    for name in ("Stream", "stream", "graph", "CUDAGraph", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Nothing)
    monkeypatch.setattr("fldet.models.fast.cuda_graph.require_graphs", lambda device: None)
    plain = build_model(prepare_config(load_config(tiny_config), phases=())).eval()
    model = optimized(plain, precision="fp32")
    graphed(model, random_batch((64, 96)))
    monkeypatch.setattr(model.backbone.conv1, "forward", None)  # nothing is computed again
    model.test_step(random_batch((64, 96)))
    assert len(set(replays)) == 3
    with pytest.raises(RuntimeError, match=r"recorded for \(1, 3, 64, 96\) got \(1, 3, 96, 96\)"):
        model.test_step(random_batch((96, 96)))


def random_batch(shape):
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    meta = {"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)}
    return {"inputs": [image], "data_samples": [DetDataSample(metainfo=meta)]}


@pytest.mark.gpu
def test_a_replayed_network_finds_what_the_plain_one_finds(tiny_config):
    model = build_model(prepare_config(load_config(tiny_config), phases=())).eval().cuda()
    model.bbox_head.retina_cls.bias.data += 3  # boxes above the threshold
    plain, replayed = (optimized(model, precision="fp32") for _ in range(2))
    graphed(replayed, random_batch((64, 96)))
    batch = random_batch((64, 96))  # another image than the recorded one
    with torch.inference_mode():
        expected, found = (
            one.test_step(copy.deepcopy(batch))[0].pred_instances for one in (plain, replayed)
        )
    assert len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.bboxes, expected.bboxes)


@pytest.mark.gpu
def test_times_on_a_gpu_are_those_of_its_events(tiny_config):
    result = benchmark(
        load_config(tiny_config),
        num_images=3,
        shape=(64, 96),
        device="cuda",
        copy=OptimizedCopy(cuda_graph=True),
    )
    assert result.cuda_graph
    assert result.warmup == 10
    assert result.peak_memory_mib > 0
    assert 0 < sum(result.stages_ms.values()) < 20 * result.median_ms
    marks = Marks(torch.device("cuda"))
    time.sleep(0.02)
    marks.mark()
    assert marks.laps_ms()[0] >= 19


def test_times_an_optimized_copy_against_mmdetections_code(tiny_config):
    cfg = load_config(tiny_config)
    result = benchmark(
        cfg, num_images=3, shape=(64, 96), device="cpu", copy=OptimizedCopy(), against="mmdet"
    )
    assert (result.optimized, result.precision) == (True, "float32")
    assert result.against.name == "mmdet"
    assert result.against.median_ms > 0
    assert result.against.speedup > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"copy": OptimizedCopy("int8")}, "unknown precision 'int8'"),
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
    assert len(time_in_turns([model], [{}] * 5, warmup=3)) == 2
    assert model.calls == 5
    with pytest.raises(ValueError, match="no image left to time after 3 for warming up"):
        time_in_turns([model], [{}] * 3, warmup=3)


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


def test_batches_are_watched_on_their_way():
    def batches():
        for shape in ((64, 96), (96, 64), (64, 96)):
            time.sleep(0.01)
            yield random_batch(shape)

    watched = WatchedBatches(batches(), torch.device("cpu"))
    assert [tuple(batch["inputs"][0].shape) for batch in watched] == [
        (3, 64, 96),
        (3, 96, 64),
        (3, 64, 96),
    ]
    assert watched.shapes == [(64, 96), (96, 64), (64, 96)]
    assert watched.most_frequent_shape == (64, 96)
    assert len(watched.waits_ms) == 3
    assert min(watched.waits_ms) >= 9


def test_a_detector_without_a_dense_head_has_no_stages():
    assert time_stages(Sleeper(), [{}] * 3) == {}
