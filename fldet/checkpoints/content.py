"""The content of a checkpoint file, as plain values, whatever the file says.

torch's ``weights_only`` keeps a pickle from running functions, but lets it make objects that lie
about themselves (an array of addresses, a dictionary with another ``values``) and ask for any
amount of memory. So three things are done around it. The instructions of the pickle are looked at
before they are followed; NumPy's and MMEngine's classes, which earlier checkpoints hold, are inert
stand-ins meanwhile; and what comes out is built anew from dictionaries, lists, tuples, numbers,
texts and plain tensors.
"""

import io
import pickle
import pickletools
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

# Names that a pickle of tensors and plain values needs; all of them make values only.
_TORCH = (
    *("device", "Size", "_utils._rebuild_tensor", "_utils._rebuild_tensor_v2"),
    *("_utils._rebuild_parameter", "serialization._get_layout", "nn.parameter.Parameter"),
)
_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_DTYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}
_PLAIN = {
    *(f"torch.{name}" for name in _TORCH),
    *(f"torch.{name}Storage" for name in _STORAGES),
    *(str(dtype) for dtype in _DTYPES),
    *("torch.storage.UntypedStorage", "_codecs.encode"),
    *("collections.OrderedDict", "collections.Counter"),
}
# Of arrays in earlier checkpoints, by the letter and size of NumPy.
_ARRAYS = {"f8", "f4", "i8", "i4", "u8", "u4", "u1", "b1"}

_DICTS = (dict, OrderedDict, Counter)

MOST_INSTRUCTIONS = 20_000_000
MOST_VALUES = 5_000_000  # with those that are named again counted again
MOST_ENTRIES = 200_000  # of the archive: a file for each tensor
_FEW_LARGE = 1000  # whole numbers of more than 61 bits, which could all have the same hash


class RefusedError(Exception):
    """Why a file is not read; ``needs`` is the name of code that it wants."""

    def __init__(self, reason: str, needs: str = "") -> None:
        super().__init__(reason)
        self.needs = needs


class _Dtype:
    """Stands for ``numpy.dtype``."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.name = name if isinstance(name, str) and name in _ARRAYS else ""

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and state[1:2] in (("<",), ("|",))):
            self.name = ""


class _Inert:
    """Takes what a file says of an object, and does nothing with it."""

    state: Any = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _History(_Inert):
    """Stands for MMEngine's log history."""


class _Array(_Inert):
    """Stands for an array of NumPy, and for one of its numbers."""

    def value(self) -> Any:
        """Returns the array that a file describes, None if it is no plain one."""
        if not (isinstance(self.state, tuple) and len(self.state) == 5):
            return None
        _, shape, kind, column_major, data = self.state
        is_plain = isinstance(kind, _Dtype) and isinstance(data, bytes) and not column_major
        try:
            return np.frombuffer(data, kind.name).reshape(shape).copy() if is_plain else None
        except (TypeError, ValueError):
            return None


def _make_scalar(kind: Any = None, data: Any = None, *_: Any) -> _Array:
    scalar = _Array()
    scalar.state = (1, (), kind, False, data)
    return scalar


def _nothing(*_: Any) -> None:
    """Stands for functions whose results nobody needs: the names of a history's statistics."""


_STAND_INS: dict[str, Any] = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": _make_scalar,
    "numpy._core.multiarray.scalar": _make_scalar,
    "mmengine.logging.history_buffer.HistoryBuffer": _History,
    "builtins.getattr": _nothing,
    "__builtin__.getattr": _nothing,
}


def read(path: Path) -> Any:
    """Returns the content of a checkpoint file, tensors on the CPU.

    A RefusedError means that the file may run code, or holds something else than plain values;
    torch's own errors mean that it is damaged.
    """
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            _check_archive(path)
        else:
            file.seek(0)
            for _ in range(5):  # the older kind: number, version, machine, content, names
                _check_instructions(file)
    with torch.serialization.safe_globals([(value, name) for name, value in _STAND_INS.items()]):
        content = torch.load(path, map_location="cpu", weights_only=True)
    return _Copy().of(content)


def read_pickle(data: bytes) -> Any:
    """Returns the content of a plain pickle of arrays, as Detectron2's models are, read likewise.

    A RefusedError means that it may run code, or holds something else than plain values; other
    errors mean that it is damaged.
    """
    _check_instructions(io.BytesIO(data), by_stack=True)
    return _Copy().of(_PlainUnpickler(io.BytesIO(data)).load())


# Python's own: the one in C makes room for as many values as a file says.
class _PlainUnpickler(pickle._Unpickler):
    """Finds stand-ins for NumPy's arrays and what makes plain values, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns what stands for a name."""
        known = {"collections.OrderedDict": OrderedDict, "_codecs.encode": _encode}
        found = {**_STAND_INS, **known}.get(f"{module}.{name}")
        if found is None:
            raise RefusedError(f"it needs {module}.{name}, which may run code", f"{module}.{name}")
        # a function of its own each time: a pickle may set its attributes
        return found if isinstance(found, type) else lambda *arguments: found(*arguments)


def _encode(text: Any = "", encoding: Any = "latin1", *_: Any) -> bytes:
    """Stands for ``_codecs.encode``, by which early pickles hold bytes."""
    if not (isinstance(text, str) and encoding == "latin1"):
        raise RefusedError("it holds bytes in a way that pickle does not")
    return text.encode("latin1")


def _check_archive(path: Path) -> None:
    """Looks at sizes, checksums and instructions of a file that ``torch.save`` has written."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MOST_ENTRIES or len({one.filename for one in entries}) < len(entries):
            raise RefusedError(f"it has {len(entries)} parts, or two of one name")
        if any(one.compress_type != zipfile.ZIP_STORED for one in entries):
            raise RefusedError("a part of it is compressed, which torch.save does not do")
        if sum(one.file_size for one in entries) > path.stat().st_size:
            raise RefusedError("its parts are larger than the file")
        if part := archive.testzip():
            raise RefusedError(f"its part {part} is damaged (another checksum)")
        for one in entries:
            if one.filename.endswith("data.pkl"):
                with archive.open(one) as file:
                    _check_instructions(file)


def _check_instructions(file: IO[bytes], *, by_stack: bool = False) -> None:
    """Follows no instruction of a pickle, but sees what it would name, and how much it is.

    ``by_stack`` leaves names that are put together to whoever looks them up.
    """
    large = 0
    for number, (code, value, _) in enumerate(pickletools.genops(file)):
        if number > MOST_INSTRUCTIONS:
            raise RefusedError(f"it has more than {MOST_INSTRUCTIONS} instructions")
        if code.name == "GLOBAL":
            name = str(value).replace(" ", ".", 1)
            if name not in _PLAIN and name not in _STAND_INS:
                raise RefusedError(f"it needs {name}, which may run code", name)
        elif code.name == "STACK_GLOBAL" and by_stack:
            continue
        elif code.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            raise RefusedError("it names code in a way that torch.save does not")
        elif isinstance(value, int) and value.bit_length() > 60:
            large += 1
            if large > _FEW_LARGE:
                raise RefusedError(f"it has more than {_FEW_LARGE} very large numbers")


class _Copy:
    """Builds values anew."""

    def __init__(self) -> None:
        # by the identity of the original, which is kept so that no identity is used twice
        self.made: dict[int, tuple[Any, Any]] = {}
        self.sizes: dict[int, int] = {}
        self.stored: dict[int, int] = {}
        self.shown = 0

    def of(self, content: Any) -> Any:
        copy = self._value(content, 0)
        if self._size(content, set()) > MOST_VALUES:
            raise RefusedError(f"it has more than {MOST_VALUES} values")
        if self.shown > 2 * sum(self.stored.values()) + 2**20:
            raise RefusedError("its tensors show each stored number more than twice")
        return copy

    def _value(self, value: Any, depth: int) -> Any:
        if id(value) in self.made:
            return self.made[id(value)][1]
        if depth > 200:
            raise RefusedError("it is nested more than 200 deep")
        copy: Any
        if type(value) in _DICTS:
            copy = self._keep(value, type(value)())
            for key, item in dict.items(value):
                if type(key) not in (str, int, float, bool, tuple, type(None)):
                    raise RefusedError(f"a dictionary has a {type(key).__name__} as a key")
                copy[self._value(key, depth + 1)] = self._value(item, depth + 1)
        elif type(value) is list:
            copy = self._keep(value, [])
            copy += [self._value(item, depth + 1) for item in value]
        elif type(value) in (tuple, torch.Size):
            copy = self._keep(value, tuple(self._value(item, depth + 1) for item in value))
        elif type(value) in (Tensor, nn.Parameter):
            copy = self._keep(value, self._tensor(value))
        elif type(value) in (str, bytes, int, float, bool, type(None), torch.dtype, torch.device):
            return value
        elif type(value) is _Array and (array := value.value()) is not None:
            copy = self._keep(value, array if array.ndim else array.item())
        elif type(value) is _History:
            copy = self._keep(value, self._history(value.state))
        else:
            raise RefusedError(f"it holds a {type(value).__name__.strip('_').lower()}")
        return copy

    def _keep(self, original: Any, copy: Any) -> Any:
        self.made[id(original)] = original, copy
        return copy

    def _size(self, value: Any, above: set[int]) -> int:
        """Returns how many values there are below one, bounded; shared ones count each time."""
        if type(value) not in (*_DICTS, list, tuple):
            return 1
        if id(value) in above:
            raise RefusedError("a value of it contains itself")
        if id(value) not in self.sizes:
            items = list(dict.values(value)) if isinstance(value, dict) else value
            above.add(id(value))
            self.sizes[id(value)] = 1 + sum(self._size(item, above) for item in items)
            above.discard(id(value))
        return min(self.sizes[id(value)], 2 * MOST_VALUES)

    def _tensor(self, value: Tensor) -> Tensor:
        tensor = Tensor.detach(value)
        if tensor.is_nested or tensor.is_meta or tensor.layout is not torch.strided:
            kind = "meta device" if tensor.is_meta else str(tensor.layout)
            raise RefusedError(f"it holds a tensor of another kind ({kind})")
        if tensor.is_quantized or tensor.dtype not in _DTYPES:
            raise RefusedError(f"it holds a tensor of {tensor.dtype}")
        storage = tensor.untyped_storage()
        size = tensor.numel() * tensor.element_size()
        if size > storage.nbytes():
            raise RefusedError(f"it holds a tensor {tuple(tensor.shape)} of fewer stored numbers")
        self.stored[storage.data_ptr()] = storage.nbytes()
        self.shown += size
        return tensor

    def _history(self, state: Any) -> HistoryBuffer:
        """Returns MMEngine's log history of what it was pickled as."""
        state = state if type(state) is dict else {}
        parts = [state.get(key) for key in ("_log_history", "_count_history")]
        log, counts = (part.value() if type(part) is _Array else None for part in parts)
        most = state.get("max_length")
        if (
            not (isinstance(log, np.ndarray) and isinstance(counts, np.ndarray))
            or not (log.ndim == 1 and log.shape == counts.shape)
            or not (type(most) is int and most >= len(log))
        ):
            raise RefusedError("its log history is malformed")
        return HistoryBuffer(log, counts, most)
