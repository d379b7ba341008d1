"""What a config leaves implied, filled in before anything is built.

Paths are joined to ``data_root``, the class names come from the annotation files, evaluators learn
which data those are, images are read by ``fldet.LoadImage``, which names broken ones, and the
learning rate follows the batch. The resolved config shows every step.
"""

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from fldet.config.augment import NONE, augmented
from fldet.config.check import TRAINING_KEYS, validate
from fldet.config.folds import use_fold
from fldet.config.tiles import cut_into_tiles
from fldet.data.annotations import name_fault
from fldet.data.coco import CocoDataset
from fldet.data.image_lists import ONLY, WITHOUT
from fldet.errors import ConfigError, DataError, UsageError, shorten
from fldet.numeric import is_number
from fldet.registry import dataset_class

log = logging.getLogger("fldet")

OUR_METRICS = ("fldet.CocoMetric", "fldet.VOCMetric")
TRUTH_KEYS = (
    "type",
    "data_root",
    "ann_file",
    "data_prefix",
    "split",
    "format",
    "columns",
    "metainfo",
    ONLY,
    WITHOUT,
)
SPLITS = ("train", "val", "test")
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def prepare_config(
    cfg: Config, *, phases: tuple[str, ...], classes: tuple[str, ...] | None = None
) -> Config:
    """Returns a copy of a config with everything filled in that a run needs.

    Args:
        cfg: as ``load_config`` returned it.
        phases: what the run needs of ``train``, ``val`` and ``test``; their files must exist.
        classes: class names that a checkpoint brings. A config that names classes must name the
            same, in any order; labels are in that of the checkpoint.
    """
    validate(cfg)
    cfg = copy.deepcopy(cfg)
    use_fold(cfg, our_datasets(cfg.get("train_dataloader")))
    if cfg.get("val_dataloader") and not cfg.get("test_dataloader"):
        cfg.test_dataloader = copy.deepcopy(cfg.val_dataloader)
        cfg.test_evaluator = copy.deepcopy(cfg.val_evaluator)
    for phase in ("val", "test"):
        if not cfg.get(f"{phase}_dataloader"):  # MMEngine wants all three or none
            cfg.update({f"{phase}_cfg": None, f"{phase}_evaluator": None})
    _join_data_root(cfg)
    for phase in phases:
        _check_files(cfg, f"{phase}_dataloader")
    _set_classes(cfg, classes)
    for loader in LOADERS:
        for _, dataset in our_datasets(cfg.get(loader)):
            if "." not in dataset["type"]:  # MMEngine would build MMDetection's class of the name
                dataset["type"] = f"fldet.{dataset['type']}"
            _read_with_names(dataset.get("pipeline"))
    if "train" in phases:
        _set_training_data(cfg)
    _set_decoder(cfg)
    for phase in ("val", "test"):
        _set_truth(cfg, phase)
    if "val" in phases:
        _add_val_loss(cfg)
    if phases and "train" not in phases:
        for name in TRAINING_KEYS:
            cfg.pop(name, None)
    return cfg


def dataset_of(cfg: Config, split: str) -> tuple[type[CocoDataset], Any]:
    """Returns class and keywords of the one data set of a split, which must be ours."""
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", expected="train, val or test")
    datasets = our_datasets(prepare_config(cfg, phases=(split,)).get(f"{split}_dataloader"))
    if len(datasets) != 1:
        raise UsageError(
            f"{split}_dataloader reads {len(datasets)} data sets of boxes",
            expected="one",
        )
    return datasets[0]


def datasets_of(cfg: Config, splits: Sequence[str] = ()) -> list[tuple[type[CocoDataset], Any]]:
    """Returns class and keywords of each data set of ours in some splits, by default in all, once.

    Its files may be missing; those of a data set that is drawn are made.
    """
    for split in splits:
        if split not in SPLITS:
            raise UsageError(f"unknown split {split!r}", expected="train, val or test")
    validate(cfg)
    cfg = copy.deepcopy(cfg)
    use_fold(cfg, our_datasets(cfg.get("train_dataloader")))
    _join_data_root(cfg)
    found: dict[Any, tuple[type[CocoDataset], Any]] = {}
    for split in splits or SPLITS:
        datasets = our_datasets(cfg.get(f"{split}_dataloader"))
        if splits and not datasets:
            raise UsageError(
                f"the config's {split}_dataloader has no data set of boxes",
                expected="a split that the config has",
            )
        for kind, dataset in datasets:
            kind.make_files(dataset)
            found.setdefault((kind.annotation_file(dataset), dataset.get("split")), (kind, dataset))
    return list(found.values())


def scale_learning_rate(cfg: Config, num_processes: int) -> None:
    """Sets the learning rate for the images per step that a run really has, in place.

    The linear rule: lr x (images per step) / ``auto_scale_lr.base_batch_size``. The number of
    iterations stays, so fewer images per step also means that fewer images are seen.
    """
    rule = cfg.get("auto_scale_lr") or {}
    if not rule.get("enable", False):
        return
    optimizer = cfg.optim_wrapper.optimizer
    per_process = cfg.train_dataloader.batch_size
    steps = cfg.optim_wrapper.get("accumulative_counts", 1)
    images, base = per_process * num_processes * steps, rule["base_batch_size"]
    scaled = optimizer.lr * images / base
    log.info(
        "learning rate %g x %d/%d = %g (%d images per step: %d process%s x %d%s; "
        "the config's rate is for %d)",
        *(optimizer.lr, images, base, scaled, images, num_processes),
        *("es" if num_processes > 1 else "", per_process),
        *(f" x {steps} accumulated" if steps > 1 else "", base),
    )
    optimizer.lr = scaled
    rule["enable"] = False  # done; MMEngine would do it once more


def _datasets(loader: Any) -> Iterator[Any]:
    """Yields the data sets of a loader, those inside wrappers too."""
    todo = [_as_dict(loader, "a loader").get("dataset")] if loader else []
    while todo:
        dataset = _as_dict(todo.pop(0), "a data set")
        if inner := dataset.get("dataset") or dataset.get("datasets"):
            todo = [*(inner if isinstance(inner, (list, tuple)) else [inner]), *todo]
        elif isinstance(dataset.get("type"), str):
            yield dataset
        else:
            raise ConfigError(
                f"the type of a data set is {shorten(dataset.get('type'))}",
                expected="the name of a class: type='CocoDataset'",
            )


def _as_dict(value: Any, what: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{what} of the config is {shorten(value)}", expected="a dict")
    return value


def our_datasets(loader: Any) -> list[tuple[type[CocoDataset], Any]]:
    """Returns class and keywords of a loader's data sets that are ours, inside wrappers too."""
    found = []
    for dataset in _datasets(loader):
        kind = dataset_class(dataset["type"])
        if isinstance(kind, type) and issubclass(kind, CocoDataset):
            found.append((kind, dataset))
    return found


def _join_data_root(cfg: Config) -> None:
    for loader in LOADERS:
        for dataset in _datasets(cfg.get(loader)):
            if cfg.get("data_root") and not dataset.get("data_root"):
                dataset.data_root = str(cfg.data_root)


def _read_with_names(pipeline: Any) -> None:
    """Puts our step for reading images in the place of mmcv's, in place, at any depth."""
    for step in pipeline.values() if isinstance(pipeline, dict) else pipeline or ():
        if isinstance(step, dict) and str(step.get("type")).split(".")[-1] == "LoadImageFromFile":
            step["type"] = "fldet.LoadImageFromFile"
        if isinstance(step, (dict, list, tuple)):
            _read_with_names(step)


def _set_decoder(cfg: Config) -> None:
    """Has the pipelines of all data sets of ours decode images as ``decoder`` says.

    A config without that line, as that of a packaged model, goes on as its pipelines are.
    """
    decoder = cfg.get("decoder", "fast") or "exact"
    datasets = (dataset for loader in LOADERS for _, dataset in our_datasets(cfg.get(loader)))
    for dataset in {id(one): one for one in datasets}.values():
        steps = dataset.get("pipeline") or ()
        is_fast = any("largest" in step for step in steps if isinstance(step, dict))
        if is_fast or (steps and cfg.get("decoder") == "fast"):
            from fldet.config.decoder import with_decoder

            dataset.pipeline = with_decoder(steps, decoder)


def _set_training_data(cfg: Config) -> None:
    """Does to the training data what ``tiles``, ``augment`` and ``oversample`` say, once."""
    loader = cfg.train_dataloader
    if cfg.get("tiles"):
        cut_into_tiles(cfg, our_datasets(loader), [*_datasets(loader)])
    if (cfg.get("augment") or NONE) != NONE:
        for dataset in {
            id(one): one for one in _datasets(loader)
        }.values():  # one may be there twice
            dataset.pipeline = augmented(dataset.get("pipeline") or (), cfg.augment)
        cfg.augment = NONE  # done: the config that is saved has the steps themselves
    if cfg.get("oversample"):
        loader.dataset = {
            "type": "fldet.ClassBalancedDataset",
            "oversample_thr": cfg.oversample,
            "dataset": loader.dataset,
        }
        cfg.oversample = None


def _check_files(cfg: Config, loader: str) -> None:
    if not cfg.get(loader):
        raise ConfigError(f"the config has no {loader}")
    for kind, dataset in our_datasets(cfg.get(loader)):
        kind.make_files(dataset)
        path = kind.annotation_file(dataset)
        if not path.exists():
            raise DataError(
                f"annotation file not found: {path}",
                expected=f"{loader}.dataset.ann_file below data_root {cfg.get('data_root', '')!r}",
                hint="name the folder of your data: --cfg-options data_root=FOLDER",
            )
        images = kind.image_folder(dataset)
        if not images.is_dir():
            raise DataError(
                f"folder of images not found: {images}",
                expected=f"{loader}.dataset.data_prefix.img below data_root",
            )


def _set_classes(cfg: Config, from_checkpoint: tuple[str, ...] | None) -> None:
    """Gives all data sets the same class names, and the model their number."""
    explicit = cfg.get("classes")
    if isinstance(explicit, str):
        raise ConfigError(
            f"classes is the text {explicit!r}", expected=f"a tuple of names: ({explicit!r},)"
        )
    if explicit and not isinstance(explicit, (list, tuple)):
        raise ConfigError(f"classes is {shorten(explicit)}", expected="a tuple of names")
    names = _checked_names(explicit or _classes_of(cfg, stated=True))
    if from_checkpoint:
        names = _in_order_of(from_checkpoint, names)
    names = names or _classes_of(cfg, stated=False)
    if not names:
        return
    for loader in LOADERS:
        for _, dataset in our_datasets(cfg.get(loader)):
            dataset.metainfo = {**(dataset.get("metainfo") or {}), "classes": names}
    _set_num_classes(cfg.model, len(names))


def _classes_of(cfg: Config, *, stated: bool) -> tuple[str, ...]:
    """Returns the classes of the first loader whose data sets have any, of all of them together.

    ``stated`` looks only at loaders with a data set that names its classes in the config.
    """
    for loader in LOADERS:
        datasets = our_datasets(cfg.get(loader))
        given = [stated_classes(dataset) for _, dataset in datasets]
        if stated and not any(given):
            continue
        found: dict[str, None] = {}
        for (kind, dataset), names in zip(datasets, given, strict=True):
            path = kind.annotation_file(dataset)
            if not names and path.exists():
                names = kind.class_names(dataset)
                log.info("%d classes from %s", len(names), path)
            found |= dict.fromkeys(names)
        if found:
            return tuple(found)
    return ()


def stated_classes(dataset: Any) -> tuple[str, ...]:
    """Returns the classes that a data set names in the config, none where it names a file."""
    names = _as_dict(dataset.get("metainfo") or {}, "metainfo of a data set").get("classes")
    return _checked_names(names) if isinstance(names, (list, tuple)) else ()


def _checked_names(names: Iterable[Any]) -> tuple[str, ...]:
    names = tuple(names)
    for name in names:
        if fault := name_fault(name):
            raise ConfigError(f"a name in classes {fault}: {shorten(name)}")
    return names


def _in_order_of(trained: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the classes of a checkpoint in its order; those of the config must be the same."""
    if names and set(names) != set(trained):
        raise ConfigError(
            f"the config has the classes {shorten(names)}, the checkpoint {shorten(trained)}",
            expected="the classes that the checkpoint was trained for",
            hint="leave 'classes' out of the config: those of the checkpoint are used",
        )
    if names and names != trained:
        log.warning("classes are in the order of the checkpoint: %s", ", ".join(trained))
    return trained


def _set_num_classes(model: Any, count: int) -> None:
    for key, value in model.items():
        if key == "num_classes" and value != count:
            log.info("num_classes %d, of the data, in the place of %s in the config", count, value)
            model[key] = count
        elif isinstance(value, dict) and key not in ("backbone", "neck"):
            if key == "loss_cls":
                _check_of_each_class(value, count)
            _set_num_classes(value, count)


def _check_of_each_class(loss: Mapping[str, Any], count: int) -> None:
    """Refuses a loss with alphas or weights of more or fewer classes, ours or MMDetection's."""
    kind = str(loss.get("type"))
    ours = kind.startswith("fldet.")
    if not ours and kind.rpartition(".")[2] != "CrossEntropyLoss":
        return
    sigmoid = loss.get("use_sigmoid", ours)
    if ours and not sigmoid:
        return
    wanted = count if sigmoid else count + 1
    for key in ("alpha", "class_weight"):
        value: Any = loss.get(key)
        is_one = key == "class_weight" and is_number(value)
        if is_one or (isinstance(value, (list, tuple)) and len(value) != wanted):
            found = "is one number" if is_one else f"has {len(value)} values"
            raise ConfigError(
                f"{key} of loss_cls {found}, the data has {count} classes",
                expected="one for each class, in the order of the classes"
                + ("" if sigmoid else ", and one for the background"),
            )


def _set_truth(cfg: Config, phase: str) -> None:
    """Tells our metrics what their loader reads: a COCO file, or another data set."""
    datasets = our_datasets(cfg.get(f"{phase}_dataloader"))
    evaluator = cfg.get(f"{phase}_evaluator")
    for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
        if not metric or metric["type"] not in OUR_METRICS or len(datasets) != 1:
            continue
        kind, dataset = datasets[0]
        if metric.get("ann_file") or metric.get("dataset"):
            continue
        if kind.reads_coco_file and not (dataset.get(ONLY) or dataset.get(WITHOUT)):
            metric.ann_file = str(kind.annotation_file(dataset))
        else:
            metric.dataset = {key: dataset[key] for key in TRUTH_KEYS if key in dataset}


def _add_val_loss(cfg: Config) -> None:
    """Adds the hook that computes the losses in a validation, where ``val_loss`` asks for it."""
    wanted = cfg.get("val_loss", False)
    if not isinstance(wanted, bool):
        raise ConfigError(f"val_loss is {wanted!r}", expected="True or False")
    hooks = cfg.get("custom_hooks") or []
    if not wanted or any(hook.get("type") == "fldet.ValLossHook" for hook in hooks):
        return
    pipelines = [dataset.get("pipeline") or () for dataset in _datasets(cfg.val_dataloader)]
    places = {_boxes_in_file(pipeline) for pipeline in pipelines}
    if len(places) > 1:
        raise ConfigError(
            "val_loss: some validation data sets load boxes before Resize, others after",
            expected="the same order in all of them",
        )
    hook = {"type": "fldet.ValLossHook", "boxes_in_file": places.pop()}
    cfg.custom_hooks = [*hooks, hook]


def _boxes_in_file(pipeline: Iterable[Any]) -> bool:
    """Returns whether a pipeline gives boxes in pixels of the file: loads them after resizing."""
    steps = [str(step["type"]).rpartition(".")[2] for step in pipeline]  # without the scope
    if "LoadAnnotations" not in steps:
        raise ConfigError(
            "val_loss: the pipeline of val_dataloader loads no boxes",
            expected="dict(type='LoadAnnotations', with_bbox=True) in it, before PackDetInputs",
        )
    return any("Resize" in step for step in steps[: steps.index("LoadAnnotations")])
