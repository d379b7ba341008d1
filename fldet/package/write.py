"""``fldet package`` as a function, and the card beside an exported model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from fldet.checkpoints.files import checkpoint_classes, load_weights, read_checkpoint, weights_of
from fldet.checkpoints.model import model_in_words
from fldet.checkpoints.model_folder import CONFIG, THRESHOLDS, WEIGHTS, write_weights_file
from fldet.checkpoints.paths import resolve_checkpoint
from fldet.checkpoints.stored_config import building, find_pipeline, stored_config
from fldet.config.load import format_config, load_config
from fldet.config.prepare import prepare_config
from fldet.data.folds.files import is_folder_of_folds
from fldet.errors import CheckpointError, UsageError
from fldet.files import make_folder, write_atomically
from fldet.package.card import Described, card_text, checked_licence
from fldet.package.facts import Facts, Sources, collect_facts
from fldet.registry import MODELS
from fldet.results import to_jsonable

CARD = "README.md"


@dataclass(frozen=True)
class Packaged:
    """What ``fldet package`` leaves behind."""

    folder: Path
    files: tuple[Path, ...]
    checkpoint: Path  # that the weights are of
    classes: tuple[str, ...]
    parameters: int
    size_mib: float  # of the weights
    gaps: tuple[str, ...]  # what the card cannot say, and which command would add it


@dataclass(frozen=True)
class _Opened:
    """A checkpoint whose model was built."""

    path: Path
    content: Mapping[str, Any]
    cfg: Config  # what ``stored_config`` returns
    model: nn.Module
    state: dict[str, Tensor]
    classes: tuple[str, ...]


def write_package(
    checkpoint: Path,
    *,
    out: Path | None = None,
    name: str | None = None,
    licence: str | None = None,
    sources: Sources | None = None,
    config: str | None = None,
) -> Packaged:
    """Writes the model of a work dir or checkpoint as a folder that can be handed on.

    The folder has the weights as ``model.safetensors``, what a detector needs of the config as
    ``config.py``, ``thresholds.json`` if there are any, and a card, ``README.md``. No paths of this
    machine are in it. ``Detector.load`` and all commands take it for a checkpoint.

    Args:
        checkpoint: a work dir (its best checkpoint, else its newest), or a file.
        out: a new or empty folder; by default ``package`` in the work dir.
        name: title of the card; by default that of the work dir.
        licence: of the model; None leaves it open, and the card says so.
        sources: where to look for figures, thresholds and times that the work dir does not have.
        config: for a checkpoint that carries none.

    Raises:
        UsageError: the folder is not empty, or the licence is no name.
        CheckpointError, ConfigError, DataError: see ``fldet.errors``.
        UnavailableError: safetensors is not installed.
    """
    licence = checked_licence(licence)
    if is_folder_of_folds(checkpoint):
        raise UsageError(
            f"{checkpoint} has the models of all folds",
            expected="one model: train on all images, or take the work dir of a fold",
            hint=f"fldet package {checkpoint / 'fold_1'}",
        )
    opened = _open(resolve_checkpoint(checkpoint), config)
    home = checkpoint if checkpoint.is_dir() else checkpoint.parent
    folder = out or home / "package"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists", expected="a new or empty folder: --out FOLDER")
    facts = _facts(opened, checkpoint, sources, runs_config=True)
    make_folder(folder)
    files = [write_atomically(folder / CONFIG, format_config(opened.cfg))]
    if facts.thresholds:
        thresholds = json.dumps(to_jsonable(facts.thresholds), indent=1)
        files.append(write_atomically(folder / THRESHOLDS, thresholds + "\n"))
    # Last but for the card, since it makes the folder a package.
    weights = write_weights_file(opened.state, folder / WEIGHTS)
    described = _described(opened, name or home.resolve().name, licence, weights, facts)
    card = card_text(described, _usage_of_folder())
    files += [weights, write_atomically(folder / CARD, card)]
    return Packaged(
        folder=folder,
        files=tuple(files),
        checkpoint=opened.path,
        classes=opened.classes,
        parameters=described.parameters,
        size_mib=described.size_mib,
        gaps=facts.gaps,
    )


def write_card(
    checkpoint: Path,
    exported: Path,
    *,
    licence: str = "",
    config: str | None = None,
    sources: Sources | None = None,
) -> Path:
    """Writes the card of an exported model beside it, with ``.md`` behind its name.

    No config of a work dir is run for it, so it does not know the training data.
    """
    opened = _open(resolve_checkpoint(checkpoint), config)
    facts = _facts(opened, checkpoint, sources, runs_config=False)
    described = _described(opened, exported.stem, licence, exported, facts)
    trust = " --trust-checkpoint" if exported.suffix == ".torchscript" else ""
    usage = f"```\nfldet predict {exported.name} PICTURES{trust}\n```"
    return write_atomically(card_of(exported), card_text(described, usage))


def card_of(exported: Path) -> Path:
    """Returns where the card of an exported model lies."""
    return exported.with_name(f"{exported.name}.md")


def _open(path: Path, config: str | None) -> _Opened:
    content = read_checkpoint(path)
    if config is not None:
        names = checkpoint_classes(content, path)
        text = format_config(prepare_config(load_config(config), phases=(), classes=names))
        meta = {"cfg": text, "dataset_meta": {"classes": names}}
        content = {**content, "meta": {**content.get("meta", {}), **meta}}
    cfg = stored_config(content, path)
    if cfg is None:
        raise CheckpointError(
            f"{path} carries no config", hint="name the one that it was trained with: --config"
        )
    classes = cfg.test_dataloader.dataset.metainfo.classes
    if not (classes and find_pipeline(cfg)):
        raise CheckpointError(
            f"{path} does not say " + ("how images are prepared" if classes else "its classes"),
            expected="a checkpoint of a run, as fldet or MMDetection writes it",
        )
    state = {n.removeprefix("module."): v for n, v in weights_of(content, path).items()}
    init_default_scope(cfg.default_scope)
    with building(path, sum(value.numel() for value in state.values())):
        model = MODELS.build(cfg.model)
    load_weights(model, content, path)
    return _Opened(path, content, cfg, model, state, tuple(classes))


def _facts(opened: _Opened, source: Path, sources: Sources | None, *, runs_config: bool) -> Facts:
    return collect_facts(
        *(source, opened.path, opened.content, opened.classes, sources), runs_config=runs_config
    )


def _described(opened: _Opened, name: str, licence: str, weights: Path, facts: Facts) -> Described:
    return Described(
        name=name,
        licence=licence,
        model=model_in_words(opened.model),
        classes=opened.classes,
        parameters=sum(one.numel() for one in opened.model.parameters()),
        size_mib=weights.stat().st_size / 2**20,
        input=_input_size(find_pipeline(opened.cfg) or ()),
        facts=facts,
    )


def _input_size(pipeline: Sequence[Mapping[str, Any]]) -> str:
    """Returns what the last step that resizes makes of images, in words; empty if none does."""
    scales = [step for step in pipeline if isinstance(step.get("scale"), (list, tuple))]
    if not scales or len(scales[-1]["scale"]) != 2:
        return ""
    width, height = scales[-1]["scale"]
    within = "fit into " if scales[-1].get("keep_ratio") else ""
    return f"{within}{width}x{height} pixels"


def _usage_of_folder() -> str:
    folder = "FOLDER"
    return (
        f"With `pip install 'fldet[package]'`, and this folder as `{folder}`:\n\n"
        f"```\nfldet predict {folder} PICTURES\n"
        f"fldet test {folder} --cfg-options data_root=DATA   # in the COCO layout\n"
        f"fldet init DATA --finetune {folder} --out my_config.py\n```\n\n"
        f"```python\nfrom fldet import Detector\n\n"
        f'found = Detector.load("{folder}")("photo.jpg")\n```'
    )
