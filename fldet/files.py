"""Reading files that somebody else wrote: every one is regular, bounded and decoded here.

A file of a data set may be a pipe that never ends, a gigabyte where a line is expected, a list in
a list a hundred thousand levels deep, or text in the encoding of another country. Readers of
formats see text or JSON values only.
"""

import codecs
import contextlib
import errno
import json
import math
import os
import re
import secrets
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from fldet.errors import DataError, UsageError, is_of_the_system, shorten

KIB, MIB, GIB = 2**10, 2**20, 2**30

# Largest files, in bytes. COCO's training file has 450 MB, that of LVIS 1.1 GB.
MOST_OF_ANNOTATIONS = 4 * GIB
MOST_OF_TEXT = 16 * MIB  # a label file, a list of images, an XML file of one image
MOST_OF_SETTINGS = MIB  # data.yaml, a lock, the facts of a run
MOST_OF_IMAGE = 512 * MIB
MOST_OF_ARRAYS = 512 * MIB  # a .npz, and what is unpacked from it: 18 million boxes

PACKAGED_WEIGHTS = "model.safetensors"  # marks a folder of ``fldet package``

# Longest first: the mark of UTF-32 (little-endian) begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def is_model_folder(folder: Path) -> bool:
    """Returns whether ``fldet package`` has written a folder."""
    return (folder / PACKAGED_WEIGHTS).is_file()


def require_work_dir(path: Path) -> None:
    """Does nothing if a path is a folder, as that of a training is; else raises DataError."""
    if not path.is_dir():
        raise DataError(f"no such work dir: {path}", expected="the folder of a training run")


def require_data(path: Path) -> None:
    """Does nothing if there is something at the path of a data set; else raises DataError."""
    path = Path(os.path.abspath(path.expanduser()))
    if not os.path.exists(path):  # unlike pathlib's, false for names that cannot be
        raise DataError(f"there is no {path}", expected="the folder of a data set, or its file")


def read_bytes(
    path: Path, what: str = "file", *, expected: str = "", most: int, cut: bool = False
) -> bytes:
    """Returns the content of a regular file of at most ``most`` bytes; links are followed.

    Of a larger one ``cut`` gives the first of them. ``what`` is the kind of file and ``expected``
    what it should hold, for messages.

    Raises:
        DataError: there is no such file, it is a folder, pipe or device, too large, or unreadable.
    """
    with _regular_file(path, what, expected) as file:
        data: bytes = file.read(most + 1)
    if len(data) > most and not cut:
        raise _too_large(path, what, most)
    return data[:most] if cut else data


def read_lines(path: Path, what: str, *, most: int, longest: int) -> Iterator[bytes]:
    """Yields the lines of a regular file, without holding more than one.

    The arguments and errors are those of ``read_bytes``. Of a line with more than ``longest`` bytes
    so many are given, and the rest is passed over.
    """
    with _regular_file(path, what, "") as file:
        size, starts = 0, True
        while piece := file.readline(longest):
            size += len(piece)
            if size > most:
                raise _too_large(path, what, most)
            if starts:
                yield piece
            starts = piece.endswith(b"\n")


@contextlib.contextmanager
def _regular_file(path: Path, what: str, expected: str) -> Iterator[IO[bytes]]:
    """Gives a file to read from; what the system refuses meanwhile is a ``DataError``."""
    try:
        if kind := other_than_file(path.stat()):
            raise DataError(f"{path} is {kind}", expected=expected or "a regular file")
        with path.open("rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{what} not found: {path}", expected=expected or "a file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path}: {reason}", expected=expected) from None


def _too_large(path: Path, what: str, most: int) -> DataError:
    size = path.stat().st_size
    return DataError(
        f"{path} is too large for {what.removeprefix('the ')}: {size} bytes",
        expected=f"at most {most} bytes",
    )


def other_than_file(facts: os.stat_result) -> str:
    """Returns what lies at a path that is no regular file, empty if it is one.

    A pipe or a device may be waited for for ever, or never end.
    """
    if stat.S_ISREG(facts.st_mode):
        return ""
    return "a folder" if stat.S_ISDIR(facts.st_mode) else "a pipe, socket or device"


def read_text(path: Path, what: str = "file", *, expected: str = "", most: int) -> str:
    """Returns the text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    The arguments and errors are those of ``read_bytes`` and ``decode``.
    """
    return decode(read_bytes(path, what, expected=expected, most=most), path, expected=expected)


def decode(data: bytes, path: Path, *, encoding: str = "utf-8", expected: str = "") -> str:
    """Returns the text that bytes of a file are; a byte order mark goes before ``encoding``.

    Raises:
        DataError: it is text in another encoding, or no text.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), encoding)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: not {encoding.removesuffix('-sig').upper()}: {error.reason}",
            expected=expected or "text in UTF-8",
            hint="save the file in UTF-8: iconv -f GB18030 -t UTF-8, with the encoding it has",
        ) from None


def read_json(path: Path, what: str, *, expected: str = "", most: int = MOST_OF_ANNOTATIONS) -> Any:
    """Returns the content of a JSON file, as ``read_text`` and ``parse_json``."""
    text = read_text(path, what, expected=expected, most=most)
    return parse_json(text, str(path), expected=expected)


def parse_json(text: str, name: str, *, expected: str = "") -> Any:
    """Returns the value of the JSON text of a file, whose name is for messages.

    Raises:
        DataError: it is not JSON, nested too deep, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            expected=expected,
        ) from None
    except RecursionError:
        raise DataError(
            f"{name}: lists are nested too deep: {shorten(text[:20])}", expected=expected
        ) from None
    except ValueError as error:  # a whole number of more digits than Python converts
        raise DataError(f"{name} is not JSON: {error}", expected=expected) from None


def read_arrays(
    path: Path, wanted: Mapping[str, tuple[str, int]], *, expected: str
) -> dict[str, Any]:
    """Returns arrays of a ``.npz``, and texts as such; nothing is unpickled.

    Wanted are type and number of dimensions of each array by name: ``{"boxes": ("float32", 2)}``; a
    text is ``("str", 0)``.

    Raises:
        DataError: as ``read_bytes``; or it is another kind of file, an array is missing or of
            another type, or all of them are larger than ``MOST_OF_ARRAYS``.
    """
    data = read_bytes(path, "file", expected=expected, most=MOST_OF_ARRAYS)
    left, found = MOST_OF_ARRAYS, {}
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for name, (kind, dimensions) in wanted.items():
                size = _checked_size(archive, f"{name}.npy", kind, dimensions)
                left -= size
                if left < 0 or (kind == "str" and size > MOST_OF_TEXT):
                    raise ValueError(f"{name} is too large")
                found[name] = _array(archive, f"{name}.npy", kind)
    # Whatever a broken archive makes of zipfile, zlib and NumPy, which reads headers as Python.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"cannot read {path}: {shorten(reason)}", expected=expected) from None
    return found


def _checked_size(archive: zipfile.ZipFile, name: str, kind: str, dimensions: int) -> int:
    """Returns the bytes of an array by its header; only that is unpacked."""
    import numpy as np

    with archive.open(name) as member:
        shape, dtype = _header(member)
    is_kind = dtype.kind == "U" if kind == "str" else dtype == np.dtype(kind)
    if not is_kind or len(shape) != dimensions or min(shape, default=0) < 0:
        name = name.removesuffix(".npy")
        raise ValueError(
            f"{name} is a {len(shape)}-d array of {dtype}, not a {dimensions}-d one of {kind}"
        )
    return math.prod(shape) * dtype.itemsize


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    """Returns shape and dtype of an array."""
    from numpy.lib import format as npy

    is_old = npy.read_magic(member) == (1, 0)  # type: ignore[no-untyped-call]
    read: Any = npy.read_array_header_1_0 if is_old else npy.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype


def _array(archive: zipfile.ZipFile, name: str, kind: str) -> Any:
    from numpy.lib import format as npy

    with archive.open(name) as member:
        array = npy.read_array(member, allow_pickle=False)  # type: ignore[no-untyped-call]
    return str(array) if kind == "str" else array


# Bytes of a file's name that its temporary name begins with: systems allow 255.
_MOST_OF_A_NAME = 200


def write_atomically(path: Path, data: str | bytes) -> Path:
    """Writes ``data`` as ``atomic_file`` does and returns ``path``."""
    with atomic_file(path, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
    return path


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Gives a file to write into that takes the name ``path`` when the block ends well.

    A reader sees the old file or the whole new one, never a part, also after a crash of the
    machine. Text is in UTF-8. Parents are made. Who may read it is what the umask says.

    Raises:
        UsageError: its folder cannot be made: ``make_folder``.
        OSError: the system refuses; its ``filename`` is ``path``.
    """
    encoding = None if "b" in mode else "utf-8"
    with atomic_path(path) as temporary, open(temporary, mode, encoding=encoding) as file:
        yield file


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives the temporary name of an empty file, for writers that want a name: ``atomic_file``.

    The file lies in the same folder and is new: no name that somebody could foresee is written to,
    and no symbolic link is followed.
    """
    temporary = None
    try:
        make_folder(path.parent)
        temporary = new_temporary_file(path)
        yield temporary
        _sync(temporary, os.O_RDWR)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            temporary.unlink(missing_ok=True)
        # not the temporary name, and none at all for a full disk
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    # The new name lasts through a crash of the machine, where the system can do that.
    if os.name == "posix":
        with contextlib.suppress(PermissionError):  # a folder that may be written to, not listed
            _sync(path.parent, os.O_RDONLY)


def temporary_name(path: Path) -> Path:
    """Returns a name that nobody can foresee, hidden and in the same folder."""
    start = os.fsencode(path.name)[:_MOST_OF_A_NAME].decode(errors="ignore")
    return path.with_name(f".{start}.{secrets.token_hex(4)}")


def is_temporary_name(name: str, of: str) -> bool:
    """Returns whether ``temporary_name`` may have made it of a name that ``of`` matches."""
    return bool(re.fullmatch(rf"\.(?:{of})\.[0-9a-f]{{8}}", name))


def new_temporary_file(path: Path) -> Path:
    """Makes an empty file under a ``temporary_name`` and returns it."""
    while True:
        temporary = temporary_name(path)
        try:
            # not mkstemp, whose files nobody else may read: here the umask decides
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            continue
        except OSError as error:
            error.filename = str(path)
            raise
        return temporary


def make_folder(folder: Path, what: str = "folder") -> Path:
    """Makes a folder and those above it where they are not there yet, and returns it.

    Raises:
        UsageError: its name can be none: a file has it or lies above it, it is too long, a circle
            of links, or on a file system where nobody makes folders. ``what`` is what it is for.
        OSError: a disk or a permission: ``explained_file_errors``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_of_the_system(error):
            raise
        raise UsageError(
            f"{shorten(str(folder))} cannot be a {what}: {error.strerror}",
            expected="a folder, or a name that a new one can have",
            hint="choose another one: --work-dir, --out-dir, --out",
        ) from error
    return folder


def require_writable(folder: Path) -> None:
    """Makes a folder if it is not there, and does nothing else if files can be made in it.

    Raises:
        UsageError: it cannot be made: ``make_folder``.
        OSError: they cannot; its ``filename`` is ``folder``.
    """
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        error.filename = str(folder)
        raise


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot
            raise
    finally:
        os.close(handle)
