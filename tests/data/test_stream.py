import pickle
import random

import numpy as np
import pytest
import torch
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader

from fldet.data.stream import BatchStream, Drawn, NumberedBatches, exact_loader, seed_everything
from fldet.errors import ConfigError, DataError


class Images:
    """Eleven images, wide and tall ones; a sample is what the three generators draw for it."""

    def __len__(self):
        return 11

    def __getitem__(self, index):
        return int(index), random.random(), np.random.rand(), torch.rand(()).item()

    def get_data_info(self, index):
        return {"width": 2 if index % 3 else 1, "height": 1.5}


def loader(seed=0, rank=0, workers=0, sampler=InfiniteSampler):
    images = Images()
    batches = AspectRatioBatchSampler(sampler(images, seed=7, shuffle=True), batch_size=2)
    plain = DataLoader(images, batch_sampler=batches, num_workers=workers, collate_fn=list)
    return exact_loader(plain, seed, rank)


def take(stream, count):
    return [next(stream) for _ in range(count)]


def test_samples_do_not_depend_on_the_number_of_loader_processes():
    one, two, none = (take(BatchStream(loader(workers=n)), 8) for n in (1, 2, 0))
    assert one == two == none
    assert len({batch[0][1] for batch in one}) == 8  # and they do differ from each other


@pytest.mark.parametrize("sampler", [InfiniteSampler, DefaultSampler], ids=["endless", "epochs"])
@pytest.mark.parametrize("done", [1, 9, 14])
def test_a_stream_goes_on_where_it_stopped_in_buckets_of_aspect_ratio(sampler, done):
    whole = take(BatchStream(loader(sampler=sampler)), 20)
    rest = BatchStream(loader(sampler=sampler))
    rest.skip_iter(done)
    assert take(rest, 20 - done) == whole[done:]


def test_going_on_loads_none_of_the_images_before(monkeypatch):
    seen = []
    monkeypatch.setattr(Images, "__getitem__", lambda self, index: seen.append(int(index)))
    stream = BatchStream(loader())
    stream.skip_iter(50)
    next(stream)
    assert len(seen) == 2


def test_seed_and_rank_change_the_samples_but_not_the_order():
    streams = [take(BatchStream(loader(**k)), 3) for k in ({}, {"seed": 1}, {"rank": 1})]
    orders = [[[sample[0] for sample in batch] for batch in stream] for stream in streams]
    assert orders[0] == orders[1] == orders[2]
    assert len({stream[0][0][1] for stream in streams}) == 3


def test_an_index_keeps_its_place_on_the_way_to_a_loader_process():
    index = pickle.loads(pickle.dumps(Drawn(3, position=40)))
    assert (index, index.position) == (3, 40)


def test_a_data_set_smaller_than_a_batch_is_refused():
    batches = BatchSampler(DefaultSampler(Images(), seed=0), batch_size=12, drop_last=True)
    with pytest.raises(DataError, match="fewer images than a batch"):
        next(iter(NumberedBatches(batches)))


def test_seeding_sets_all_three_generators():
    def draw(*numbers):
        seed_everything(*numbers)
        return random.random(), np.random.rand(), torch.rand(()).item()

    first, again, other = draw(1, 2, 3), draw(1, 2, 3), draw(1, 3, 2)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_a_batch_sampler_of_another_kind_is_named():
    loader = DataLoader([1, 2, 3], batch_sampler=[[0, 1], [2]])
    with pytest.raises(ConfigError, match="batch_sampler is a list"):
        exact_loader(loader, seed=0, rank=0)


def test_a_cpu_gets_no_batch_ahead(monkeypatch):
    seen = []
    monkeypatch.setattr(Images, "__getitem__", lambda self, index: seen.append(int(index)))
    stream = BatchStream(loader(), torch.device("cpu"))
    take(stream, 2)
    assert len(seen) == 4


class Pictures(Images):
    """Images as a pipeline gives them."""

    def __getitem__(self, index):
        return {"inputs": torch.rand(3, 200, 300), "data_samples": int(index)}


def collate(samples):
    return {key: [sample[key] for sample in samples] for key in samples[0]}


@pytest.mark.gpu
@pytest.mark.parametrize("pin_memory", [False, True])
def test_a_gpu_gets_the_same_batches_one_ahead(pin_memory):
    def stream(device, done=0):
        sampler = InfiniteSampler(Pictures(), seed=7, shuffle=True)
        batches = AspectRatioBatchSampler(sampler, batch_size=2)
        plain = DataLoader(
            Pictures(), batch_sampler=batches, collate_fn=collate, pin_memory=pin_memory
        )
        result = BatchStream(exact_loader(plain, seed=0, rank=0), torch.device(device))
        result.skip_iter(done)
        return result

    expected = take(stream("cpu"), 20)
    ahead = stream("cuda")
    for batch in expected:
        found = next(ahead)
        assert found["data_samples"] == batch["data_samples"]
        assert all(image.device.type == "cuda" for image in found["inputs"])
        torch.cuda._sleep(1_000_000)  # still computing when the next images arrive
        sums = [image.double().sum().item() for image in found["inputs"]]
        assert sums == pytest.approx([i.double().sum().item() for i in batch["inputs"]])
    resumed = next(stream("cuda", done=13))
    assert torch.equal(resumed["inputs"][1].cpu(), expected[13]["inputs"][1])
