"""Reads experiment configs: MMEngine's text style, with errors that say where.

A config is Python text that inherits through ``_base_``: of a file beside it, or, wherever it lies,
of ``'fldet::retinanet/r50_fpn_1x.py'`` (ours) or ``'mmdet::...'`` (MMDetection's). What is in it is
checked against the code by ``fldet.config.check``.
"""

import ast
import math
import os
import re
import shlex
import traceback
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

from fldet.config.overrides import apply_overrides
from fldet.config.text import config_text
from fldet.errors import ConfigError, DataError, nearest
from fldet.files import MOST_OF_TEXT, is_model_folder, read_text

_PACKAGE = Path(__file__).resolve().parent.parent


def configs_of(package: Path) -> Path:
    """Returns the folder of configs: inside an installed package, beside it in the repository."""
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


CONFIGS = configs_of(_PACKAGE)

Chain = dict[Path, list[Path]]  # every file of a config and its bases, bases first


def load_config(path: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Returns the config in ``path`` with its bases merged in and ``overrides`` applied.

    An override replaces one value of the merged config; variables that the file used to compute
    others (``train_pipeline``) are long resolved by then; but for ``data_root``, which also moves
    the paths of loaders and evaluators that begin with the old one. Overriding a ``type`` keeps its
    neighbours, which the new type may not know:
    ``{"loss_cls": {"_delete_": True, "type": ...}}`` drops them.

    Args:
        path: a file, a name inside the repository's ``configs/``, or ``mmdet::folder/name``;
            the ending ``.py`` may be left out.
        overrides: ``key.path=value`` strings, or a mapping from key path to value. Each key must
            exist, unless it has the prefix ``+``; a number in the path is an index of a list. A
            mapping given for a dict is merged into it.

    Raises:
        ConfigError: the file or a base is missing or does not run, or an override does not fit.
    """
    file = find_config(path)
    chain = read_chain(file)
    try:
        cfg = Config.fromfile(file, lazy_import=False)
    except Exception as error:
        raise _explain(error, file, chain) from error
    apply_overrides(cfg, overrides)
    return cfg


def format_config(cfg: Config) -> str:
    """Returns the resolved config as Python text that ``load_config`` reads back."""
    return config_text(cfg.to_dict())


def to_plain(cfg: Config) -> dict[str, Any]:
    """Returns the config in JSON's types: tuples as lists, classes and infinities as text."""
    return plain(cfg.to_dict())


def plain(value: Any) -> Any:
    """Returns one value of a config in JSON's types; see ``to_plain``."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else str(value)


# --- finding the file ---


def find_config(path: str | Path) -> Path:
    """Returns the absolute path of the config file that ``path`` means; see ``load_config``.

    That of a work dir is the one that its training has written there.
    """
    name = str(path)
    if (folder := Path(path)).is_dir():
        return _config_in(folder)
    found = next((item for item in _candidates(name) if item.is_file()), None)
    if found is None:
        folders = [CONFIGS, *(item.parent for item in _candidates(name))]
        raise _no_such_file(f"config {name!r}", name, folders)
    if found.suffix != ".py":
        raise ConfigError(
            f"config {name!r} is not a .py file",
            expected="a config in MMEngine's Python text style",
            hint=f"find {CONFIGS} -name '*.py'",
        )
    return Path(os.path.abspath(found))


def _config_in(folder: Path) -> Path:
    """Returns the config of a work dir, the newest one if there are several."""
    if is_model_folder(folder):
        raise ConfigError(
            f"{folder} is a packaged model: its config is read as data, and not run",
            expected="a config (.py), or the work dir of a training",
            hint=f"a new config that starts from it: fldet init DATA --finetune {folder}",
        )
    configs = [file for file in folder.glob("*.py") if file.is_file()]
    is_work_dir = (folder / "last_checkpoint").exists() or any(folder.glob("*.pth"))
    if configs and is_work_dir:
        return Path(os.path.abspath(max(configs, key=os.path.getmtime)))
    raise ConfigError(
        f"{folder} is a folder, and no work dir of a training",
        expected="a config (.py), or a work dir with a config and a checkpoint",
        hint=f"if it holds your images: fldet init {shlex.quote(str(folder))} --out my_config.py",
    )


def _candidates(name: str) -> Iterator[Path]:
    if "::" in name:
        places = [_in_package(name)]
    else:
        places = [Path(name).expanduser(), CONFIGS / name.removeprefix("configs/")]
    for place in places:
        yield place
        yield Path(f"{place}.py")


def _in_package(name: str) -> Path:
    """Returns where ``package::folder/name.py`` lies, without importing the package."""
    package, _, rest = name.partition("::")
    if package == "fldet":
        return CONFIGS / rest
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"config {name!r}: there is no package {package!r}",
            expected="mmdet::folder/name.py",
            hint=f"pip show {package or 'onedl-mmdetection'}",
        )
    return Path(spec.origin).parent / ".mim" / "configs" / rest


_path_and_scope = Config._get_cfg_path


def _path_and_scope_with_ours(base: str, file: str) -> tuple[str, str | None]:
    """Returns path and scope of a base; MMEngine's own knows OpenMMLab's packages only."""
    return (str(_in_package(base)), None) if base[:7] == "fldet::" else _path_and_scope(base, file)


Config._get_cfg_path = staticmethod(_path_and_scope_with_ours)

_merge = Config._merge_a_into_b


def _merge_with_switches(
    child: dict[str, Any], base: Any, allow_list_keys: bool = False
) -> dict[str, Any]:
    """Merges as MMEngine does, and puts a dict in the place of True, False or None of the base.

    So ``ema = dict(...)`` can stand in a config whose base says ``ema = False``.
    """
    if isinstance(base, dict):
        base = base.copy()
        for key, value in child.items():
            is_switch = key in base and (base[key] is None or isinstance(base[key], bool))
            if is_switch and isinstance(value, dict) and "_delete_" not in value:
                del base[key]
    return _merge(child, base, allow_list_keys)


Config._merge_a_into_b = staticmethod(_merge_with_switches)


def _no_such_file(what: str, name: str, folders: list[Path]) -> ConfigError:
    """Returns the error for a missing file, with the files of ``folders`` named most like it."""
    files = {file.stem: str(file) for folder in folders for file in _python_files(folder)}
    close = get_close_matches(Path(name.rpartition("::")[2]).stem, files)
    folder = next((folder for folder in reversed(folders) if folder.is_dir()), CONFIGS)
    return ConfigError(
        f"{what} does not exist",
        expected=f"did you mean {', '.join(files[stem] for stem in close)}?" if close else "",
        hint=f"find {folder} -name '*.py'",
    )


def _python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py") if folder == CONFIGS else folder.glob("*.py"))


# --- reading the files: what can be wrong is said with the file and the line ---


def read_chain(file: Path) -> Chain:
    """Returns ``file`` and every file it inherits from, bases first, each with its own bases."""
    chain: Chain = {}
    _check_sources(file, (), chain)
    return chain


def _check_sources(file: Path, children: tuple[Path, ...], chain: Chain) -> None:
    """Compiles ``file`` and its bases under their own names and puts them into ``chain``."""
    if file in children:
        raise ConfigError(
            f"{children[-1]}: its base {file} inherits from it in turn",
            hint=f"take one of the two out of _base_ in {file}",
        )
    bases = []
    for base, line in bases_of(parse_config(file)):
        target = _in_package(base) if "::" in base else Path(os.path.abspath(file.parent / base))
        if not target.is_file():
            raise _no_such_file(f"{file}:{line}: base {base!r}", base, [target.parent])
        bases.append(target)
        _check_sources(target, (*children, file), chain)
    chain[file] = bases


def parse_config(file: Path) -> ast.Module:
    """Returns the syntax tree of a config in text style, not in MMEngine's lazy one."""
    try:
        text = read_text(file, "config", most=MOST_OF_TEXT)
    except DataError as error:
        raise ConfigError(error.message, expected=error.expected, hint=error.hint) from None
    _check_placeholders(text, file)
    try:
        # MMEngine fills in {{ $NAME:1 }} before Python reads
        filled = re.sub(r"\{\{\s*\$.*?\}\}", lambda found: "_" * len(found[0]), text)
        tree = ast.parse(filled, str(file))
    except SyntaxError as error:
        source = (error.text or "").strip()
        raise ConfigError(
            f"{file}:{error.lineno}: syntax error: {error.msg}",
            expected=f"in the line: {source}" if source else "",
            hint=f"python -m py_compile {file}",
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, nested too deep
        raise ConfigError(f"{file} cannot be read as Python: {error}") from None
    line = next(_lazy_lines(tree), None)
    if line is not None:
        raise ConfigError(
            f"{file}:{line}: this is MMEngine's lazy style, which does not mix with ours",
            expected="_base_ = ['other.py'] and type='RetinaNet'",
            hint="to inherit: _base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'",
        )
    return tree


def _check_placeholders(text: str, file: Path) -> None:
    """Raises ConfigError for ``{{$NAME:...}}`` that MMEngine would leave as it stands, or empty."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in re.finditer(r"\{\{['\"]?\s*\$(\w*)(.*?)\}\}", line.partition("#")[0]):
            name, rest = found[1], found[2]
            if not re.fullmatch(r"\s*:\s*\S*\s*['\"]?", rest):
                raise ConfigError(
                    f"{file}:{number}: {found[0]} would stay as it is, not filled in",
                    expected=f"{{{{${name or 'NAME'}:DEFAULT}}}}, with a colon and without spaces",
                )
            if name not in os.environ and not rest.strip(" \t:'\""):
                raise ConfigError(
                    f"{file}:{number}: the environment has no variable {name}",
                    expected="a default after the colon, or the variable",
                    hint=f"export {name}=...",
                )


def _lazy_lines(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and "read_base" in ast.unparse(node.items[0]):
            yield node.lineno
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            yield node.lineno


def bases_of(tree: ast.Module) -> list[tuple[str, int]]:
    """Returns the bases a file names and the line that does; none where they are computed."""
    for node in tree.body:
        if not isinstance(node, ast.Assign) or ast.unparse(node.targets[0]) != "_base_":
            continue
        try:
            value = ast.literal_eval(node.value)
        except ValueError:
            return []
        bases = value if isinstance(value, list) else [value]
        return [(base, node.lineno) for base in bases if isinstance(base, str) and "{{" not in base]
    return []


def _explain(error: Exception, file: Path, chain: Chain) -> ConfigError:
    """Returns what went wrong while the files in ``chain`` ran or were merged."""
    if "Duplicate key" in str(error):
        return _duplicate_key(chain) or ConfigError(f"{file}: {error}")
    where = str(file)
    names: dict[str, Any] = {}
    for frame, line in traceback.walk_tb(error.__traceback__):
        if Path(frame.f_code.co_filename) in chain:
            where, names = f"{frame.f_code.co_filename}:{line}", frame.f_globals
    expected = ""
    if isinstance(error, NameError):
        in_base = error.name in names.get("_base_", ())
        close = nearest(str(error.name), names)
        expected = f"did you mean _base_.{error.name}?" if in_base else close
    return ConfigError(
        f"{where}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        expected=expected,
        hint=f"mend {where}",
    )


def _duplicate_key(chain: Chain) -> ConfigError | None:
    """Returns which two bases of which file set the same top-level key."""
    for file, bases in chain.items():
        owners: dict[str, Path] = {}
        for base in bases:
            for key in Config.fromfile(base, lazy_import=False, import_custom_modules=False):
                if key in owners:
                    return ConfigError(
                        f"{file}: two of its bases set {key!r}: {owners[key]} and {base}",
                        expected="each key in one base only",
                        hint=f"keep one of the two in _base_ and set the rest in {file.name}",
                    )
                owners[key] = base
    return None
