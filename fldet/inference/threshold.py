"""A model that gives the scores that are wanted, beside others of the same weights."""

import copy
from typing import Any

from mmengine.config import ConfigDict
from torch import nn


def with_score_thr(model: nn.Module, score_thr: float) -> nn.Module:
    """Returns a model with the same weights whose heads give the scores that are wanted.

    Above the threshold, the rest is work for nothing; below, lost. The model itself stays as it is:
    another thread may ask it for other scores at the same time.
    """
    view = _copied(model)
    for name in ("bbox_head", "roi_head"):
        cfg = getattr(getattr(model, name, None), "test_cfg", None)
        if cfg is not None and "score_thr" in cfg:
            head: Any = _copied(getattr(model, name))
            head.test_cfg = ConfigDict({**cfg, "score_thr": score_thr})
            view._modules[name] = head
    return view


def _copied(module: nn.Module) -> nn.Module:
    """Returns a module with the same parameters and parts, which may get other ones."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied
