"""Lets the OpenMMLab packages work as they are found: with or without compiled operators.

``install`` runs when a room of fldet is imported that uses them, and not with ``import fldet`` or
``fldet.losses``. It imports nothing but the standard library and leaves import finders behind.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_EXT_FILE = os.path.join(os.path.dirname(__file__), "ops", "mmcv_ext.py")

# What the modules below import and need when a function of theirs is called, by the package that
# may have been imported already. torch's sharding takes a third of all imports of a training: it
# brings SymPy. Nothing else needs imgaug.
_LATER = {
    "imgaug": (
        *("imgaug", "imgaug.augmenters", "imgaug.augmentables", "imgaug.augmentables.lines"),
        "imgaug.augmentables.segmaps",
    ),
    "scipy": (
        *("scipy", "scipy.interpolate", "scipy.linalg", "scipy.optimize", "scipy.sparse"),
        "scipy.sparse.csgraph",
    ),
    "matplotlib": (
        *("matplotlib", "matplotlib.colors", "matplotlib.patches", "matplotlib.pyplot"),
    ),
    "torch.distributed.optim": ("torch.distributed.optim",),
    "torch.distributed.fsdp": (
        *("torch.distributed.fsdp", "torch.distributed.fsdp.api"),
        "torch.distributed.fsdp.fully_sharded_data_parallel",
    ),
}
_WITHOUT_THEM = (
    "mmdet.datasets.transforms.generate_line",
    "mmdet.evaluation.metrics.crowdhuman_metric",
    "mmdet.evaluation.metrics.culane_metric",
    "mmdet.models.dense_heads.clr_head.clr_head",
    "mmdet.models.dense_heads.clr_head.lane",
    "mmdet.models.task_modules.assigners.hungarian_assigner",
    "mmdet.models.task_modules.assigners.topk_hungarian_assigner",
    "mmdet.models.task_modules.tracking.aflink",
    "mmdet.models.task_modules.tracking.kalman_filter",
    "mmdet.models.trackers.sort_tracker",
    "mmdet.utils.mot_error_visualize",
    "mmdet.visualization.local_visualizer",
    "mmengine._strategy.fsdp",
    "mmengine.model.wrappers.fully_sharded_distributed",
    "mmengine.optim.optimizer.zero_optimizer",
)

# The newest mmcv that upstream mmdet 3.x accepts; later ones work but fail its version check.
_MMCV_FOR_UPSTREAM_MMDET = "2.1.0"

_KNOWN_LINES = ("Could not import OneDL. Skipping OneDL datasets.",)
_KNOWN_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    ("faster_coco_eval is not installed", UserWarning),
    (r"`torch\.jit\.\w+` is deprecated", DeprecationWarning),
    ("``MultiScaleDeformableAttention`` has been moved", ImportWarning),
)


def install() -> None:
    """Installs the import finders; calling it again changes nothing."""
    if not any(isinstance(finder, _FallbackFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AroundFinder())
        # Last, so that a compiled mmcv._ext wins by itself.
        sys.meta_path.append(_FallbackFinder())


@contextmanager
def silence_imports() -> Iterator[None]:
    """Swallows the known noise of importing mmcv and mmdet, and nothing else.

    Other text that the imports print on stdout goes to stderr at the end, so that the stdout of
    a command holds its result alone. Warnings other than the known ones are not touched.
    """
    import io
    import warnings

    with warnings.catch_warnings():
        for message, category in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message, category)
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                yield
        finally:
            for line in printed.getvalue().splitlines(keepends=True):
                if line.strip() not in _KNOWN_LINES:
                    sys.stderr.write(line)


class _FallbackFinder:
    """Supplies ``mmcv._ext`` where nobody else does."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if name != "mmcv._ext":
            return None
        from importlib.util import spec_from_file_location

        return spec_from_file_location(name, _EXT_FILE)


class _AroundFinder:
    """Lets modules of OpenMMLab's packages be imported inside a context: see ``_AROUND``."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        around = _AROUND.get(name)
        spec = PathFinder.find_spec(name, path, target) if around else None
        if around is not None and spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with around():
                    load(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextmanager
def _postponed() -> Iterator[None]:
    """Has imports find stand-ins for modules, which import the real ones when they are used.

    Packages that are imported already are left alone.
    """
    names = [
        name for package, names in _LATER.items() if package not in sys.modules for name in names
    ]
    importing = {"now": True}
    stubs = {name: _stand_in_module(name, importing) for name in names}
    for name, stub in stubs.items():
        package, _, child = name.rpartition(".")
        if package in stubs:
            setattr(stubs[package], child, stub)
    sys.modules.update(stubs)
    try:
        yield
    finally:
        importing["now"] = False
        for name in stubs:
            sys.modules.pop(name, None)


def _stand_in_module(module_name: str, importing: dict[str, bool]) -> ModuleType:
    """Returns a module whose names are stand-ins during the import, and the real ones later."""

    def find(name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"module {module_name!r} has no attribute {name!r}")
        stand_in = _StandIn(module_name, name)
        return stand_in if importing["now"] else stand_in.real()

    module = ModuleType(module_name)
    vars(module).update(__getattr__=find, __path__=[])
    return module


class _StandIn:
    """A function or class of a module that is imported when it is called or looked into.

    Classes may be derived from it. They get their real base with their first instance.
    """

    def __init__(self, module: str, name: str) -> None:
        self.__module__, self.__name__ = module, name

    def real(self) -> Any:
        """Returns what this stands for; imports it."""
        from importlib import import_module

        try:
            return getattr(import_module(self.__module__), self.__name__)
        except ModuleNotFoundError as error:
            if error.name != "imgaug":  # a real one that is broken: not ours to hide
                raise
            raise _without_imgaug(f"{self.__module__}.{self.__name__}") from None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.real(), name)

    def __getitem__(self, name: Any) -> Any:
        return self.real()[name]

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self.real())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type]:
        """Returns the base that a class has until its first instance."""
        del bases

        class Base:
            def __init__(base, *args: Any, **kwargs: Any) -> None:  # noqa: N805
                real = self.real()
                for heir in Base.__subclasses__():
                    heir.__bases__ = tuple(real if b is Base else b for b in heir.__bases__)
                real.__init__(base, *args, **kwargs)

        return (Base,)


def _without_imgaug(name: str) -> Exception:
    from fldet.errors import UnavailableError

    return UnavailableError(
        f"{name} needs the package imgaug",
        expected="imgaug is not installed; only mmdet's lane detection uses it",
        hint="pip install -U imaug",
    )


@contextmanager
def _version_check_passed() -> Iterator[None]:
    """Lets upstream mmdet 3.x pass its version check beside a newer mmcv."""
    from importlib.metadata import distributions

    if not any(distributions(name="mmdet")):  # onedl's is "onedl-mmdetection"
        yield
        return
    import mmcv

    version, mmcv.__version__ = mmcv.__version__, _MMCV_FOR_UPSTREAM_MMDET
    try:
        yield
    finally:
        mmcv.__version__ = version


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """Keeps a function out of compiled code, as ``torch.compiler.disable`` does.

    That one imports torch's compiler as soon as it decorates something, which takes a third of a
    second of every start; here only compiled code does.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        import torch

        if torch.compiler.is_compiling():
            left_alone: Callable[P, R] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
            return left_alone(*args, **kwargs)
        return function(*args, **kwargs)

    return call


# Modules, and what is in force while each is imported.
_AROUND: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "mmdet": _version_check_passed,
    "mmdet.datasets": silence_imports,
    "mmdet.evaluation": silence_imports,
    "mmdet.models": silence_imports,
    **dict.fromkeys(_WITHOUT_THEM, _postponed),
}
