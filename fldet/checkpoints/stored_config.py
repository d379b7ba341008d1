"""The config that a checkpoint or an exported model carries: read, checked, then built; never run.

MMEngine stores the resolved config as Python text. Three things stand between that text and code:
only literals in it are read (``literals``); only what a detector needs is taken, and each
``type`` in it must be on the closed list of ``stored_names``, each number within its bounds
(``checked``); and while it is built, nothing is imported by name and nothing larger is made than
the file has weights for (``building``).
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import registry
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode

from fldet.checkpoints.files import checkpoint_classes, meta_of
from fldet.checkpoints.literals import HINT, class_tuple, read_literals
from fldet.checkpoints.stored_names import is_plugin, is_scope, may_stand, place_of
from fldet.errors import CheckpointError, FldetError, shorten
from fldet.plugins import load_scope

# Bounds of a stored config; a model of MMDetection has at most 3,000 values, nested 12 deep.
MOST_VALUES = 20_000
DEEPEST = 40
MOST_MODULES = 20_000
MOST_TRANSFORMS = 20
LARGEST = 1e9  # number with a point; infinity is none
SPARE_NUMBERS = 2**24  # what a model may make besides its weights: anchors, positions

# Nothing of these matters to a model whose weights are at hand.
LEFT_OUT = frozenset({"init_cfg", "pretrained", "backend_args", "file_client_args"})
# Arguments that name files, addresses, other configs or code.
FORBIDDEN = re.compile(
    r"(^|_)(files?|filename|path|dir|folder|root|url|uri|checkpoint|ckpt|config|module|"
    r"imports?|script|command|cmd)$|^(teacher|lang|language|tokenizer)|^_"
)
_KEY = re.compile(r"[A-Za-z_]\w{0,99}")
_TEXT = re.compile(r"[\w .:+-]{0,200}", re.ASCII)
# The largest whole numbers, by key; what is not listed may be 65,536.
_COUNT = r"(^|_)(num|depths?|convs|layers|stages|blocks|repeats?|times|scales|per_octave)"
_BOUNDS = (
    (re.compile(r"^(num_classes|num_things_classes|num_stuff_classes)$"), 100_000),
    (re.compile(r"num_(quer|proposals|points|feats|params)"), 10_000),
    (re.compile(r"^(nms_pre|max_per_img|max_num|nms_post|split_thr|seed)$"), 10_000_000),
    (re.compile(r"^(scale|size|size_divisor|pad_size_divisor|crop_size|img_scale)$"), 4096),
    (re.compile(r"^(scale_factor|ratio_range)$"), 4),
    (re.compile(r"^(ratios|scales|sizes|base_sizes|strides)$"), 8192),
    (re.compile(_COUNT), 512),
)
_LONGEST = (
    (re.compile(r"^(ratios|scales|sizes|base_sizes|strides|octave_base_scale)$"), 64),
    (re.compile(r""), 1024),
)
# What odd values make constructors and transforms raise.
ODD = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError),
    *(NotImplementedError, RecursionError, RuntimeError, TypeError, ValueError, OSError),
)


def stored_config(content: Mapping[str, Any], path: Path) -> Config | None:
    """Returns what a detector needs of the config in a checkpoint; None if there is no config.

    That is ``model``, without what is for training only; ``default_scope``; ``test_dataloader``
    with the ``pipeline`` and the classes of its data set, where there are any. Its
    ``custom_imports`` are not run; an installed plug-in among them is loaded as by its scope.
    """
    text = meta_of(content).get("cfg")
    if not isinstance(text, str):
        return None
    values = read_literals(text, path)
    if not isinstance(values.get("model"), dict):
        raise CheckpointError(f"the config in {path} has no model", hint=HINT)
    model = {key: value for key, value in values["model"].items() if key != "train_cfg"}
    pipeline, classes = find_pipeline(values), _classes(values, path)
    parts = {"model": model, **({} if pipeline is None else {"pipeline": pipeline})}
    scope = values.get("default_scope") or "mmdet"
    dataset = checked(parts, path, scope=scope, not_run=_load_plugins(values))
    model = dataset.pop("model")
    if model.keys() & {"rpn_head", "roi_head"}:  # detectors of two stages insist on the argument
        model["train_cfg"] = None
    dataset["metainfo"] = {"classes": classes or checkpoint_classes(content, path)}
    loader = {"dataset": dataset}
    return Config({"model": model, "default_scope": scope, "test_dataloader": loader})


def find_pipeline(cfg: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Returns the transforms of a config's test images, those of its validation if it has none."""
    for key in ("test_dataloader", "val_dataloader"):
        if (steps := pipeline_of(cfg.get(key))) is not None:
            return steps
    return cfg.get("test_pipeline")


def pipeline_of(loader: Any) -> Any:
    """Returns the transforms of the data set of a loader, None if there is none with transforms."""
    dataset = _part(loader, "dataset")
    while isinstance(dataset, Mapping) and "pipeline" not in dataset:  # inside wrappers
        inner = dataset.get("dataset") or dataset.get("datasets")
        dataset = inner[0] if isinstance(inner, (list, tuple)) and inner else inner
    steps = _part(dataset, "pipeline")
    return list(steps) if isinstance(steps, (list, tuple)) else steps


def _part(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _load_plugins(cfg: Mapping[str, Any]) -> list[str]:
    """Loads the installed plug-ins among ``custom_imports``, and returns what else is there.

    Of a plug-in the module is imported that it declares itself, whatever the config says.
    """
    names = _part(cfg.get("custom_imports"), "imports")
    names = [names] if isinstance(names, str) else names
    rest = []
    for name in names if isinstance(names, (list, tuple)) else ():
        scope = str(name).partition(".")[0]
        if is_plugin(scope):
            load_scope(scope)
        elif scope not in ("fldet", "mmdet"):
            rest.append(str(name))
    return rest


def _classes(cfg: Mapping[str, Any], path: Path) -> tuple[str, ...] | None:
    """Returns the class names of a config's test images, those of its validation if it has none."""
    for key in ("test_dataloader", "val_dataloader"):
        if isinstance(dataset := _part(cfg.get(key), "dataset"), Mapping):
            return class_tuple(_part(dataset.get("metainfo"), "classes"), path)
    return None


# --- what it may say -----------------------------------------------------------------------------


def checked(
    parts: Mapping[str, Any], path: Path, scope: Any = "mmdet", not_run: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns parts of a stored config, without what a detector does not need; refuses the rest.

    A part is ``model``, ``data_preprocessor``, ``bbox_head`` or ``pipeline``, as it was stored;
    ``scope`` is that of names without one; errors name the modules ``not_run``.
    """
    check = _Check(path, scope, not_run)
    return {key: check.part(key, value) for key, value in parts.items()}


class _Check:
    """One walk over a stored config."""

    def __init__(self, path: Path, scope: Any, not_run: Sequence[str]) -> None:
        self.path = path
        self.hint = _hint(not_run)
        self.left = MOST_VALUES
        self.scope = self._scope(scope, ())

    def part(self, key: str, value: Any) -> Any:
        if key == "pipeline" and not isinstance(value, (list, tuple)):
            raise self._refused((key,), value, "a list of transforms")
        if key == "pipeline" and len(value) > MOST_TRANSFORMS:
            raise self._refused((key,), value, f"at most {MOST_TRANSFORMS} transforms")
        for step in value if key == "pipeline" else [value]:
            if not (isinstance(step, dict) and "type" in step):
                raise self._refused((key,), value, "dicts with a type")
        return self._value(value, (key,), self.scope)

    def _value(self, value: Any, place: tuple[str, ...], scope: str) -> Any:
        self.left -= 1
        if self.left < 0 or len(place) > DEEPEST:
            raise CheckpointError(
                f"the config in {self.path} is too large",
                expected=f"a model of at most {MOST_VALUES} values, nested {DEEPEST} deep",
                hint=HINT,
            )
        if isinstance(value, dict):
            return self._dict(value, place, scope)
        if isinstance(value, (list, tuple)):
            most = next(most for keys, most in _LONGEST if keys.search(_last_key(place)))
            if len(value) > most:
                raise self._refused(place, value, f"at most {most} values")
            return type(value)(
                self._value(item, (*place, str(i)), scope) for i, item in enumerate(value)
            )
        if isinstance(value, str):
            if not _TEXT.fullmatch(value):
                raise self._refused(place, value, "a short text of letters, digits and . : + -")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            self._require_bound(value, place)
        elif not (value is None or isinstance(value, bool)):
            raise self._refused(place, value, "numbers, texts, lists and dicts")
        return value

    def _dict(self, value: dict[Any, Any], place: tuple[str, ...], scope: str) -> dict[str, Any]:
        if "_scope_" in value:
            scope = self._scope(value["_scope_"], place)
        if "type" in value:
            self._require_name(value["type"], place, scope)
        kept = {}
        for key, item in value.items():
            if not (isinstance(key, str) and _KEY.fullmatch(key)):
                raise self._refused(place, key, "keys that are names")
            if key in LEFT_OUT:
                continue
            if FORBIDDEN.search(key) and not (
                key == "_scope_" or item is None or isinstance(item, (bool, int, float))
            ):
                raise self._refused(
                    (*place, key), item, "no argument that names a file, an address or code"
                )
            kept[key] = item if key == "type" else self._value(item, (*place, key), scope)
        return kept

    def _require_name(self, name: Any, place: tuple[str, ...], scope: str) -> None:
        kind = place_of(_last_key(place))
        if kind is None or not isinstance(name, str) or not may_stand(name, kind, scope):
            raise CheckpointError(
                f"the config in {self.path} names {shorten(name)} as {'.'.join(place)}",
                expected=f"a {kind.what} that is registered by fldet, MMDetection or a plug-in"
                if kind
                else "nothing with a type there",
                hint=self.hint,
            )

    def _scope(self, scope: Any, place: tuple[str, ...]) -> str:
        if not (isinstance(scope, str) and is_scope(scope)):
            raise self._refused((*place, "scope"), scope, "fldet, mmdet or an installed plug-in")
        return scope

    def _require_bound(self, value: float, place: tuple[str, ...]) -> None:
        key, is_whole = _last_key(place), isinstance(value, int)
        rest = 65_536 if is_whole else LARGEST
        most = next((most for keys, most in _BOUNDS if keys.search(key)), rest)
        if not (abs(value) <= most or (abs(value) == math.inf and most == LARGEST)):
            raise self._refused(place, value, f"a number up to {most:g}")

    def _refused(self, place: tuple[str, ...], value: Any, expected: str) -> CheckpointError:
        return CheckpointError(
            f"the config in {self.path} has {shorten(value)} as {'.'.join(place)}",
            expected=expected,
            hint=HINT,
        )


def _hint(not_run: Sequence[str]) -> str:
    """Returns what to do about a name that is not known here."""
    if not not_run:
        return HINT
    modules = shorten(", ".join(not_run[:3]))
    return (
        f"modules that a file names are not imported (custom_imports: {modules}); {HINT}; "
        "or install them as a plug-in: docs/plug-ins.md"
    )


def _last_key(place: tuple[str, ...]) -> str:
    return next(part for part in reversed(place) if not part.isdigit())


# --- building it ---------------------------------------------------------------------------------


@contextmanager
def building(path: Path, numbers: int = 0) -> Iterator[None]:
    """Has what is built of a checked config keep to its bounds: ``numbers`` are the weights it has.

    MMEngine imports nothing by name in it. This is not safe for threads that build other models.
    """
    modules = 0

    def count(*_: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > MOST_MODULES:
            raise CheckpointError(f"the model in {path} has more than {MOST_MODULES} modules")

    hook = register_module_module_registration_hook(count)
    try:
        with (
            _no_imports_by_name(),
            _Sizes(path, 2 * numbers + SPARE_NUMBERS),
            explained(path, "does not fit the code"),
        ):
            yield
    finally:
        hook.remove()


@contextmanager
def _no_imports_by_name() -> Iterator[None]:
    """Has MMEngine's registries find what is registered, and nothing else."""
    found = registry.get_object_from_string
    registry.get_object_from_string = lambda _: None
    try:
        yield
    finally:
        registry.get_object_from_string = found


@contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Says of which file the config is that leads to an error; those of fldet pass."""
    try:
        yield
    except (FldetError, torch.OutOfMemoryError):
        raise
    except ODD as error:
        text = (str(error).strip() or "no words").splitlines()[0]
        raise CheckpointError(
            f"the config in {path} {what}: {type(error).__name__}: {text[:200]}", hint=HINT
        ) from error


class _Sizes(TorchFunctionMode):
    """Refuses to make tensors that are larger than a model of a file can need."""

    FACTORIES = frozenset(
        {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
    )

    def __init__(self, path: Path, most: int) -> None:
        super().__init__()
        self.path = path
        self.left = most

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func in self.FACTORIES:
            size = kwargs.get("size", args)
            self.left -= math.prod(_flat(size[:1] if func is torch.full else size))
            if self.left < 0:
                raise CheckpointError(
                    f"the model in the config of {self.path} is larger than its weights",
                    expected="a model of as many numbers as the file has",
                )
        return func(*args, **kwargs)


def _flat(size: Any) -> Iterator[int]:
    for item in size if isinstance(size, (list, tuple)) else [size]:
        if isinstance(item, (list, tuple)):
            yield from _flat(item)
        elif isinstance(item, int):
            yield max(item, 1)
