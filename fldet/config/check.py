"""Checks a loaded config against the code it names, before anything is built."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry

from fldet import plugins
from fldet.config.bounds import out_of_bounds
from fldet.config.names import names_like, provider_of, registries
from fldet.errors import ConfigError, UnavailableError, nearest, shorten

Path = tuple[str, ...]

# Top-level keys that something besides the Runner reads.
EXTRA_KEYS = {"auto_scale_lr", "custom_imports", "skip_nonfinite", "sync_bn", "val_loss"} | {
    *("tta_model", "tta_pipeline"),
    *("accumulate", "early_stopping", "ema", "loggers", "max_time"),  # see fldet.engine.hooks.lines
    *("augment", "decoder", "oversample", "tiles"),  # see fldet.config.prepare
    *("folds", "fold"),  # see fldet.config.folds
}
# The same, about the training step; see fldet.models.fast.train_step.
TRAINING_KEYS = {"amp", "channels_last", "compile", "fold_batch_norms", "gradient_checkpointing"}
# Variables that configs keep for themselves, although they look like keys of the Runner.
VARIABLES = re.compile(r"pipeline|^classes$|^img_scales?$|^conv_cfg$")
# Where in the config (list indices left out) which registry is looked into first.
PLACES = (
    (r"(^|\.)init_cfg(\.|$)", "WEIGHT_INITIALIZERS"),
    (r"(pipeline|transforms)$", "TRANSFORMS"),
    (r"^(train|val|test)_dataloader$", "DATALOADER"),
    (r"_dataloader\.(batch_)?sampler$", "DATA_SAMPLERS"),
    (r"_dataloader\.collate_fn$", "FUNCTIONS"),
    (r"_dataloader\..*datasets?$", "DATASETS"),
    (r"^(val|test)_evaluator(\.metrics)?$", "METRICS"),
    (r"^(default|custom)_hooks", "HOOKS"),
    (r"^optim_wrapper$", "OPTIM_WRAPPERS"),
    (r"^optim_wrapper\.optimizer$", "OPTIMIZERS"),
    (r"^param_scheduler$", "PARAM_SCHEDULERS"),
    (r"^(train|val|test)_cfg$", "LOOPS"),
    (r"^visualizer$", "VISUALIZERS"),
    (r"^visualizer\.vis_backends$", "VISBACKENDS"),
    (r"^log_processor$", "LOG_PROCESSORS"),
    (r"(assigner|sampler|miner|generator|bbox_coder|iou_calculator)$", "TASK_UTILS"),
    (r"^(tta_)?model$|(backbone|neck|head|loss_\w+|normalizer|preprocessor|extractor)$", "MODELS"),
    (r"", "ANY"),
)
# Keywords that the builder of a registry takes out before the constructor sees them.
BUILDER_KEYWORDS = {
    "DATALOADER": {"num_batch_per_epoch"},
    "HOOKS": {"priority"},
    "LOOPS": {"by_epoch"},
    "MODELS": {"bg_cls_weight"},  # DETR's heads take it out of loss_cls
    "OPTIM_WRAPPERS": {"constructor", "paramwise_cfg"},
    "PARAM_SCHEDULERS": {"convert_to_iter_based"},
}
# Built by functions of their own, which change the keywords: only the name is checked.
LAYERS = re.compile(r"(_cfgs?|\.cfg|\.dcn|\.sac)$")
# Names of functions and layers in mmcv.ops, not of anything in a registry.
MMCV_OPS = re.compile(r"\.(nms|roi_layer)$")
# Keywords of one class, which is not theirs to choose.
LINES = {"ema": "fldet.EMAHook", "early_stopping": "fldet.EarlyStoppingHook"}
# Dicts below are not MMDetection's: names of other libraries, or data.
FOREIGN = {"Albu"}


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a config: what, what was expected, and how to mend it."""

    message: str
    expected: str = ""
    hint: str = ""


def validate(cfg: Config) -> None:
    """Checks every name and keyword in ``cfg``; a ConfigError lists what is wrong.

    Builds nothing, imports MMDetection. Looked at: the spelling of top-level keys; whether each
    ``type`` is registered; whether each keyword is one of the constructor's; whether each loader
    has a data set; numbers that cannot be (``fldet.config.bounds``). Other values are not checked,
    nor are dicts that take what they like (``**kwargs`` that ends nowhere). Variables that a config
    keeps are left alone.
    """
    registries()  # the first import of MMDetection, without its noise
    problems = [*_top_level(cfg)]
    for key in sorted(_known_keys() & set(cfg.keys())):
        problems += _walk(cfg[key], (key,), str(cfg.get("default_scope") or "mmdet"))
        problems += [Problem(*found) for found in out_of_bounds(cfg[key], (key,))]
        if key.endswith("_dataloader") and cfg[key]:
            problems += _data_sets(cfg[key], key)
    if not problems:
        return
    first, *others = dict.fromkeys(problems)
    lines = [first.expected] if first.expected else []
    lines += [f"also: {' '.join((other.message, other.expected)).strip()}" for other in others]
    raise ConfigError(first.message, expected="\n".join(lines), hint=first.hint)


# --- top-level keys ---


@cache
def _known_keys() -> set[str]:
    from mmengine.runner import Runner

    return {*inspect.signature(Runner).parameters, *EXTRA_KEYS, *TRAINING_KEYS} - {"cfg"}


def _top_level(cfg: Config) -> Iterator[Problem]:
    """Yields keys that nothing reads and that look like a misspelt one; others are variables."""
    known = _known_keys()
    for key in sorted(set(cfg.keys()) - known):
        close = get_close_matches(key, known, n=1, cutoff=0.8)
        if close and not key.startswith(f"{close[0]}_") and not VARIABLES.search(key):
            yield Problem(
                f"{key}: nothing reads this key",
                f"did you mean {close[0]}?",
                f"write {close[0]} = ..., or give a variable a name less like it",
            )


def _data_sets(node: Any, place: str) -> Iterator[Problem]:
    """Yields a problem where a loader, or what wraps data sets, has none."""
    inner = node.get("dataset") or node.get("datasets") if isinstance(node, Mapping) else None
    if inner:
        for one in inner if isinstance(inner, (list, tuple)) else [inner]:
            yield from _data_sets(one, f"{place}.dataset")
    elif not isinstance(node, Mapping) or place.endswith("_dataloader") or not node.get("type"):
        yield Problem(
            f"{place} has no data set" if place.endswith("_dataloader") else f"{place} has no type",
            "all of it: dataset=dict(type='CocoDataset', ann_file=...), batch_size, sampler",
            "a config without test_dataloader tests with val_dataloader" * place.startswith("test"),
        )


# --- types and keywords ---


def _walk(value: Any, path: Path, scope: str) -> Iterator[Problem]:
    """Yields the problems of ``value`` and of everything below it."""
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, str(index)), scope)
    if not isinstance(value, Mapping):
        return
    scope = str(value.get("_scope_") or scope)
    yield from _check_dict(value, path, scope)
    if str(value.get("type")) not in FOREIGN:
        for key, item in value.items():
            if key != "metainfo":
                yield from _walk(item, (*path, str(key)), scope)


def _check_dict(node: Mapping[str, Any], path: Path, scope: str) -> Iterator[Problem]:
    place = ".".join(part for part in path if not part.isdigit())
    kind = next(name for pattern, name in PLACES if re.search(pattern, place))
    target = LINES.get(place) or node.get("type") or _default_type(node, place)
    if isinstance(target, str):
        name, where = target, f"{'.'.join(path)}.type"
        try:
            plugins.load_scope(name.partition(".")[0] if "." in name else scope)
            target = _resolve(name, kind, place, scope)
        except UnavailableError as error:
            yield Problem(f"{where}: {name!r}: {error.message}", hint=error.hint)
            return
        except Exception as error:  # a package that is no plug-in, or MMEngine about a strange name
            words = f"{type(error).__name__}: {error}".split("\n")[0]
            yield Problem(f"{where}: {name!r} cannot be looked up: {words}")
            return
        # a label that only one class understands is no class name: adapt_cfg=dict(type='offset')
        if target is None and (kind != "ANY" or name[:1].isupper() or MMCV_OPS.search(place)):
            yield _unknown_type(name, kind, path, place)
    if not callable(target) or MMCV_OPS.search(place):
        if target is not None and not isinstance(target, str) and kind != "ANY":
            yield Problem(f"{'.'.join(path)}.type is {shorten(target)}", "the name of a class")
        return
    yield from _use_sigmoid(node, target, path)
    if LAYERS.search(place) and kind != "LOOPS":
        return
    known = accepted_keywords(target)
    if known is not None:
        extra = {"type", "_scope_"} | BUILDER_KEYWORDS.get(kind, set())
        for key in sorted(map(str, node.keys() - known - (set() if place in LINES else extra))):
            yield _unknown_keyword(key, target, known, path)


def _default_type(node: Mapping[str, Any], place: str) -> Any:
    """Returns what a run makes of a dict without ``type``; None for any other dict."""
    from torch.utils.data import DataLoader

    train_loop = "EpochBasedTrainLoop" if node.get("by_epoch", True) else "IterBasedTrainLoop"
    loops = {"train_cfg": train_loop, "val_cfg": "ValLoop", "test_cfg": "TestLoop"}
    return DataLoader if place.endswith("_dataloader") else loops.get(place)


def _resolve(name: str, kind: str, place: str, scope: str) -> Any:
    """Returns what ``name`` stands for in the registry ``kind``, else in any; None if nowhere."""
    if MMCV_OPS.search(place):
        import mmcv.ops

        return getattr(mmcv.ops, name, None)
    known = registries()
    first = [known[kind]] if kind in known else []
    found = (_lookup(registry, name, scope) for registry in (*first, *known.values()))
    return next(filter(callable, found), None)


def _lookup(registry: Registry, name: str, scope: str) -> Any:
    found = registry.get(name if "." in name else f"{scope}.{name}")
    if found is not None or "." in name:
        return found
    # not Registry.get: for a bare name it would import any module of that name
    trees = (registry, registry.parent or registry)
    return next((tree.module_dict[name] for tree in trees if name in tree.module_dict), None)


def _unknown_type(name: str, kind: str, path: Path, place: str) -> Problem:
    scope, bare = name.partition(".")[0] if "." in name else "", name.rpartition(".")[2]
    what = f"{'.'.join(path)}.type: {name!r} is not registered"
    hint = (
        "names of fldet have its prefix, type='fldet.X'; modules of your own go in custom_imports"
    )
    if MMCV_OPS.search(place):
        import mmcv.ops

        return Problem(what, nearest(bare, vars(mmcv.ops)), hint)
    names = names_like(registries().get(kind, registries()["MODELS"]))
    expected = _did_you_mean(bare, names, scope)
    if scope and find_spec(scope) is None:
        what += f": neither the package {scope!r} nor a plug-in with that scope is installed"
        package = MODULE2PACKAGE.get(scope)
        hint = f"pip install {package}" if package else "fldet plugins lists what is installed"
    elif scope and _import_error(f"{scope}.registry"):
        what += f": {_import_error(f'{scope}.registry')}"
        hint = f"custom_imports = dict(imports=['{scope}.MODULE']) imports a module that registers"
    elif scope:
        plugin = plugins.find(plugins.SCOPES, scope)
        hint = f"fldet plugins --package {plugin.package if plugin else scope} lists its names"
    elif not expected:
        broken = [plugin.provider for plugin in plugins.installed() if plugins.problem_of(plugin)]
        hint = f"of {', '.join(broken)} nothing is known: see fldet plugins" if broken else hint
    return Problem(what, expected, hint)


def _import_error(module: str) -> str:
    """Returns why a module cannot be imported, or ''."""
    try:
        import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}".split("\n")[0]
    return ""


def _did_you_mean(bare: str, names: Mapping[str, list[str]], scope: str) -> str:
    """Returns the question for the closest names, those of ``scope`` first, and what has them."""
    written = [one for close in get_close_matches(bare, names) for one in names[close]]
    written.sort(key=lambda one: bool(scope) and one.partition(".")[0] != scope)
    words = [f"{one} ({provider_of(one)})" if provider_of(one) else one for one in written]
    return f"did you mean {', '.join(words)}?" if words else ""


def _unknown_keyword(key: str, target: Any, known: Set[str], path: Path) -> Problem:
    where = ".".join(path)
    return Problem(
        f"{where}.{key}: {target.__name__} takes no {key!r}",
        nearest(key, known) or f"one of: {', '.join(sorted(known - {'self'}))}",
        f"put _delete_=True into {where} if the key is inherited from another type",
    )


def _use_sigmoid(node: Mapping[str, Any], target: Any, path: Path) -> Iterator[Problem]:
    """Yields a problem for an anchor head whose loss leaves ``use_sigmoid`` open.

    MMDetection reads the key from the config and takes a missing one for softmax, whatever the
    default of the loss.
    """
    from mmdet.models.dense_heads import AnchorHead

    loss = node.get("loss_cls")
    if not isinstance(loss, Mapping) or "type" not in loss or "use_sigmoid" in loss:
        return
    if inspect.isclass(target) and issubclass(target, AnchorHead):
        where = ".".join((*path, "loss_cls"))
        yield Problem(
            f"{where}: use_sigmoid is missing",
            f"{target.__name__} reads it from the config and would silently build K + 1 channels "
            "for softmax",
            f"{where}.use_sigmoid=True",
        )


# --- signatures ---


@cache
def accepted_keywords(target: Callable[..., Any]) -> frozenset[str] | None:
    """Returns the keywords that ``target`` takes, or None if it takes any.

    A class that hands its ``**kwargs`` to the next constructor takes that one's keywords too.
    """
    if not inspect.isclass(target):
        names, rest = _parameters(target)
        return None if rest else frozenset(names)
    accepted: set[str] = set()
    lineage = list(target.__mro__[:-1])
    while lineage:
        cls = lineage.pop(0)
        init = vars(cls).get("__init__")
        if init is None:
            continue
        names, rest = _parameters(init)
        accepted |= names
        if not rest:
            return frozenset(accepted)
        handed = _handed_on(init, rest)
        if handed is None:
            return None
        taken, above = handed
        accepted |= taken
        ancestors = [parent.__name__ for parent in lineage]
        if above != cls.__name__ and above in ancestors:  # super(Parent, self) leaves Parent out
            lineage = lineage[ancestors.index(above) + 1 :]
    return None


def _parameters(function: Callable[..., Any]) -> tuple[set[str], str]:
    """Returns the names of a function's parameters, and that of its ``**kwargs`` or ''."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # written in C
        return set(), "kwargs"
    rest = next((item.name for item in parameters if item.kind is item.VAR_KEYWORD), "")
    names = {item.name for item in parameters if item.kind is not item.VAR_POSITIONAL}
    return names - {rest}, rest


def _handed_on(init: Callable[..., Any], rest: str) -> tuple[set[str], str] | None:
    """Returns the keys that ``init`` takes out of ``**rest``, and X if it calls ``super(X, self)``.

    None if it does not hand the rest to another ``__init__``, or does something else with it.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(init))))
    except (OSError, TypeError, SyntaxError):
        return None
    source = ast.unparse(tree)
    taken = re.findall(rf"\b{rest}(?:\.(?:pop|get)\(|\[)'(\w+)'", source)
    calls = [
        ast.unparse(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and f"**{rest}" in map(ast.unparse, node.keywords)
    ]
    uses = sum(isinstance(node, ast.Name) and node.id == rest for node in ast.walk(tree))
    if len(calls) != 1 or not calls[0].endswith(".__init__") or uses != 1 + len(taken):
        return None
    parent = re.match(r"super\((\w+),", calls[0])
    return set(taken), parent[1] if parent else ""
