"""Two processes with one image each against one process with both (DEVIATION D7)."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

SCRIPT = """
import json, os, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import fldet.engine
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from fldet.config.load import load_config
from fldet.registry import MODELS

torch.set_num_threads(1)
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
if world > 1:
    dist.init_process_group("gloo")
init_default_scope("mmdet")
model = load_config("retinanet/r50_fpn_1x.py").model
config = model.bbox_head
config.update(train_cfg=model.train_cfg, test_cfg=model.test_cfg)
config.update(num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1)
config.normalizer.type = sys.argv[1]
torch.manual_seed(0)
head = MODELS.build(config)
head.init_weights()

class Loss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = head
    def forward(self, maps, boxes):
        metas = [dict(img_shape=(96, 128), pad_shape=(96, 128))] * len(boxes)
        return sum(head.loss_by_feat(*head(maps), boxes, metas).values())

generator = torch.Generator().manual_seed(1)
sizes = [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]
maps = [torch.randn(2, 8, h, w, generator=generator) for h, w in sizes]
truth = [  # one image with many assigned anchors, one with few
    InstanceData(
        bboxes=torch.tensor([[5.0, 5, 90, 90], [30, 20, 120, 80]]), labels=torch.tensor([0, 2])
    ),
    InstanceData(bboxes=torch.tensor([[10.0, 10, 30, 30]]), labels=torch.tensor([1])),
]
mine = slice(rank, rank + 1) if world > 1 else slice(*map(int, sys.argv[2:]))
loss = DistributedDataParallel(Loss()) if world > 1 else Loss()
loss([level[mine] for level in maps], truth[mine]).backward()
if rank == 0:
    print(json.dumps(torch.cat([p.grad.flatten() for p in head.parameters()]).tolist()))
sys.stdout.flush()
os._exit(0)  # without the teardown in which gloo's threads abort now and then
"""


def gradients(normalizer, world_size=1, images=(0, 2)):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, f"fldet.{normalizer}", *map(str, images)],
            env={**os.environ, **shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * world_size
    return torch.tensor(json.loads(outputs[0].splitlines()[-1]))


def assert_same_step(found, expected):
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.slow
def test_counting_over_ranks_two_processes_take_the_step_of_one():
    assert_same_step(gradients("CountOverRanks", 2), gradients("CountOverRanks"))


@pytest.mark.slow
def test_counting_per_rank_each_process_weighs_the_same():
    first, second = (gradients("CountPerRank", images=(i, i + 1)) for i in (0, 1))
    two = gradients("CountPerRank", 2)
    assert_same_step(two, (first + second) / 2)
    one = gradients("CountPerRank")
    assert (two - one).abs().max() > 0.05 * one.abs().max()  # another step than one process takes
