"""Sec. 3.3 and 4.1 in a small run: cross entropy diverges without the prior and trains with it."""

import math

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.registry import DATASETS

ITERATIONS = 40


def losses(control, seed, root):
    """The classification loss of each iteration of a small model with the head of a control row.

    As in the paper: no norms in neck and head, SGD; its rate of .01 for 16 images, here for 4.
    """
    cfg = load_config("shapes/retinanet_r18_shapes.py", {"data_root": str(root)})
    head = load_config(f"paper/controls/{control}.py").model.bbox_head
    cfg.model.neck.norm_cfg = None
    cfg.model.bbox_head.norm_cfg = None
    cfg.model.bbox_head.prior_prob = head.prior_prob
    cfg.model.bbox_head.loss_cls = head.loss_cls
    loader = cfg.train_dataloader
    loader.update(batch_size=4, num_workers=0, persistent_workers=False)
    loader.dataset.update(data_root=str(root), num_train=4 * ITERATIONS, num_val=1)
    torch.manual_seed(seed)
    model = build_model(cfg).train()
    sgd = dict(type="SGD", lr=0.01 * 4 / 16, momentum=0.9, weight_decay=1e-4)
    optimizer = build_optim_wrapper(model, dict(type="OptimWrapper", optimizer=sgd))
    DATASETS.get(loader.dataset.type).make_files(loader.dataset)
    batches = iter(Runner.build_dataloader(loader, seed=seed))
    return [
        model.train_step(next(batches), optimizer)["loss_cls"].item() for _ in range(ITERATIONS)
    ]


@pytest.mark.slow
def test_cross_entropy_diverges_without_the_prior_and_is_stable_with_it(tmp_path):
    without, with_prior = (
        losses(row, seed=0, root=tmp_path) for row in ("ce_without_prior", "ce_with_prior")
    )
    assert without[0] > 20 * with_prior[0]
    assert not all(math.isfinite(value) for value in without)
    assert max(with_prior) < 3 * with_prior[0]
