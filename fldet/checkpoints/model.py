"""The model of a config, with the weights of a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn

from fldet.checkpoints.files import (
    checkpoint_classes,
    load_weights,
    read_checkpoint,
    weights_of,
)
from fldet.checkpoints.model_folder import WEIGHTS
from fldet.checkpoints.paths import resolve_checkpoint
from fldet.checkpoints.pretrained import drop_pretrained, explained_downloads
from fldet.checkpoints.stored_config import building, find_pipeline, stored_config
from fldet.config.load import load_config
from fldet.config.overrides import apply_overrides
from fldet.config.prepare import prepare_config
from fldet.errors import CheckpointError
from fldet.files import is_model_folder
from fldet.registry import MODELS
from fldet.streams import quiet_console


def build_model(cfg: Config) -> nn.Module:
    """Returns the model of a config with its initial weights, in training mode, on the CPU.

    Pretrained weights are loaded (and downloaded) where the config names them in ``init_cfg``.

    Args:
        cfg: as ``load_config`` returned it; only ``model`` and ``default_scope`` are read.

    Raises:
        CheckpointError: pretrained weights cannot be downloaded.
    """
    init_default_scope(cfg.get("default_scope", "mmdet"))
    quiet_console(MMLogger.get_instance("mmengine"))
    model = MODELS.build(cfg.model)
    with explained_downloads(cfg):
        model.init_weights()
    return model


def model_in_words(model: nn.Module) -> str:
    """Returns the class of a detector and those of its heads: ``YOLOV3 with YOLOV3Head``."""
    heads = [getattr(model, name, None) for name in ("bbox_head", "rpn_head", "roi_head")]
    names = [type(head).__name__ for head in heads if head is not None]
    return f"{type(model).__name__} with {' and '.join(names) or 'no head'}"


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to be used."""

    model: nn.Module  # in evaluation mode, on the CPU
    cfg: Config  # completed, with the classes of the checkpoint
    path: Path | None  # the checkpoint; None where the weights are random


def load_model(
    cfg: Config, checkpoint: Path | None, *, phases: tuple[str, ...] = (), trust: bool = False
) -> LoadedModel:
    """Returns the model of a config with the weights of a checkpoint, or random ones.

    A work dir stands for its best checkpoint, else its newest; None leaves the initial weights,
    without pretrained ones. Data will be read of the ``phases``: ``train``, ``val``, ``test``.
    """
    if checkpoint is None:
        completed = prepare_config(cfg, phases=phases)
        drop_pretrained(completed.model)
        return LoadedModel(build_model(completed).eval(), completed, None)
    path = resolve_checkpoint(checkpoint)
    content = read_checkpoint(path, trust=trust)
    completed = prepare_config(cfg, phases=phases, classes=checkpoint_classes(content, path))
    return LoadedModel(model_with_weights(completed, content, path), completed, path)


def model_with_weights(cfg: Config, content: dict[str, Any], path: Path) -> nn.Module:
    """Returns the model of a completed config with weights that were read; on the CPU, to evaluate.

    No pretrained weights are looked for: all are in the checkpoint.
    """
    init_default_scope(cfg.get("default_scope", "mmdet"))
    model: nn.Module = MODELS.build(cfg.model)
    load_weights(model, content, path)
    return model.eval()


def load_test_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Returns the config of a test: that of a packaged model, else what ``load_config`` returns.

    Of a packaged model the config is read as that of a checkpoint is, and never run. Its data are
    in the COCO layout below ``data_root``, unless overrides name others.

    Raises:
        ConfigError: see ``load_config``.
        CheckpointError: the package is unreadable, or its config names what it may not.
    """
    if not is_model_folder(Path(source)):
        return load_config(source, overrides)
    path = Path(source, WEIGHTS)
    content = read_checkpoint(path)
    stored = stored_config(content, path)
    if stored is None or not find_pipeline(stored):
        raise CheckpointError(
            f"{source} has no config, or one that does not say how images are prepared",
            expected="a folder that fldet package wrote",
            hint=f"name a config: fldet test CONFIG {source}",
        )
    init_default_scope(stored.default_scope)
    with building(path, sum(value.numel() for value in weights_of(content, path).values())):
        MODELS.build(stored.model)  # within its bounds, or refused
    cfg = load_config("_base_/packaged_model.py")
    cfg.update(model=stored.model, default_scope=stored.default_scope)
    cfg.pop("train_dataloader")
    cfg.test_dataloader, cfg.test_evaluator = cfg.pop("val_dataloader"), cfg.pop("val_evaluator")
    cfg.test_dataloader.dataset.pipeline = find_pipeline(stored)
    apply_overrides(cfg, overrides)
    return cfg
