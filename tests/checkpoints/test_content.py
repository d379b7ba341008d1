"""A checkpoint file is looked at before it is followed, and gives plain values or a refusal."""

import codecs
import contextlib
import io
import pickle
import tracemalloc
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from fldet.checkpoints import content as checkpoint_file
from fldet.checkpoints.content import RefusedError
from fldet.checkpoints.files import read_checkpoint
from fldet.errors import CheckpointError


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments, state) if state is not None else (function, arguments)

    def __reduce__(self):
        return self.call


def load(value, tmp_path, **options):
    path = tmp_path / "x.pth"
    torch.save(value, path, **options)
    return checkpoint_file.read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_values_come_back_as_they_were(tmp_path, zipped):
    weight = torch.arange(6.0).reshape(2, 3)
    content = {
        "state_dict": OrderedDict(a=weight, b=torch.nn.Parameter(weight), c=weight[:, 1:]),
        "meta": {"seed": 7, "iter": 3, "names": ("a", "b"), "none": None, "rate": 0.5, "yes": True},
        "steps": [Counter([3, 5]), torch.float32, torch.device("cpu"), torch.Size([2, 3])],
        1: [torch.tensor(2, dtype=torch.int64), torch.tensor([True])],
    }
    found = load(content, tmp_path, _use_new_zipfile_serialization=zipped)
    assert list(found) == list(content)
    assert found["meta"] == content["meta"]
    assert found["steps"] == [Counter([3, 5]), torch.float32, torch.device("cpu"), (2, 3)]
    for name, value in content["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value)
        assert type(found["state_dict"][name]) is torch.Tensor


def test_the_log_history_of_mmengine_and_numbers_of_numpy(tmp_path):
    hub = MessageHub.get_instance("test_checkpoint_file")
    hub.update_scalar("train/loss", torch.tensor(0.5))
    hub.update_scalar("train/loss", 0.25)
    content = {"hub": hub.state_dict(), "f": np.float64(1.5), "a": np.arange(6).reshape(2, 3)}
    found = load(content, tmp_path)
    history = found["hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    assert history.data[0].tolist() == [0.5, 0.25]
    assert history.mean() == 0.375
    assert found["f"] == 1.5
    assert found["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


REBUILD = np.array([1.0]).__reduce__()[0]
EMPTY = (np.ndarray, (0,), b"b")
EXPANDED = torch.zeros(1).expand(10**6)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Call(print, "x"), "needs __builtin__.print, which may run code"),
        (Call(eval, "1"), "needs __builtin__.eval"),
        (Call(bytearray, 10**10), "needs __builtin__.bytearray"),
        (Call(set, [1]), "needs __builtin__.set"),
        (Call(np.ndarray, (1,), "O"), "holds a array"),
        (Call(np.dtype, "O"), "holds a dtype"),
        (
            Call(REBUILD, np.ndarray, (0,), b"b", state=(1, (1,), np.dtype("O"), False, [1])),
            "array",
        ),
        (
            Call(REBUILD, np.ndarray, (0,), b"b", state=(1, (9,), np.dtype("f8"), False, b"x" * 8)),
            "array",
        ),
        (Call(getattr, HistoryBuffer, "__init__"), None),
        (Call(HistoryBuffer, [1.0], [1]), "needs|history"),
        (Call(OrderedDict, state={"values": torch.Size}), None),
        ({"a": EXPANDED}, "of fewer stored numbers"),
        ({i * (2**61 - 1): 0 for i in range(5000)}, "very large numbers"),
        ({b"a": 1}, "bytes as a key"),
        (1j, "needs|complex"),
        (torch.zeros(2, dtype=torch.complex64), "needs|complex"),
        (torch.zeros(2, device="meta"), "meta|needs"),
        (lambda: torch.zeros(2, 2).to_sparse(), "needs|another kind"),
        (lambda: torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8), "needs|qint8"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch says that some kinds will go
def test_what_is_refused_or_harmless(tmp_path, value, words, capsys):
    value = value() if type(value) is type(lambda: 0) else value
    if words is None:
        found = load({"a": value}, tmp_path)["a"]
        assert found is None or (type(found) is OrderedDict and not vars(found))
    else:
        with pytest.raises(RefusedError, match=words):
            load({"a": value}, tmp_path)
    assert capsys.readouterr().out == ""


def test_many_tensors_over_one_storage_are_refused(tmp_path):
    base = torch.zeros(10**6, dtype=torch.uint8)
    with pytest.raises(RefusedError, match="more than twice"):
        load({f"w{i}": base[i:] for i in range(50)}, tmp_path)


def test_values_named_again_and_again_are_counted_each_time(tmp_path):
    value = ["x"]
    for _ in range(9):
        value = [value] * 10
    with pytest.raises(RefusedError, match="more than 5000000 values"):
        load(value, tmp_path)


def test_a_value_that_contains_itself(tmp_path):
    value = []
    value.append(value)
    with pytest.raises(RefusedError, match="contains itself"):
        load(value, tmp_path)


def repacked(path, change, kind=zipfile.ZIP_STORED):
    """Writes the parts of a file anew, each as ``change(name, data)`` says."""
    with zipfile.ZipFile(path) as archive:
        parts = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in parts:
            for written in change(name, data):
                archive.writestr(name, written)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda name, data: [data], zipfile.ZIP_DEFLATED, "compressed"),
        (lambda name, data: [data, data], zipfile.ZIP_STORED, "two of one name"),
        (
            lambda name, data: [pickle.dumps(print, 4)] if name.endswith(".pkl") else [data],
            zipfile.ZIP_STORED,
            "in a way that torch.save does not",
        ),
    ],
)
def test_archives_that_torch_does_not_write(tmp_path, change, kind, words):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, path)
    repacked(path, change, kind)
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(path)


def test_a_stream_of_junk_is_an_error_of_ours(tmp_path):
    file = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(10)}}, file)
    whole = file.getvalue()
    rng = np.random.default_rng(0)
    path = tmp_path / "x.pth"
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(0, 256)
        path.write_bytes(bytes(data[: rng.integers(len(data) // 2, len(data) + 1)]))
        try:
            content = read_checkpoint(path)
        except CheckpointError:
            continue
        assert type(content) is dict


# --- plain pickles of arrays, as Detectron2's models are ---


@pytest.mark.parametrize("protocol", range(5))
def test_a_pickle_of_arrays_comes_back(protocol):
    content = {
        "model": OrderedDict(a=np.arange(6, dtype=np.float32).reshape(2, 3), b=np.float64(0.5)),
        "counts": [np.arange(3), 7, "text", (None, True, b"bytes")],
    }
    found = checkpoint_file.read_pickle(pickle.dumps(content, protocol=protocol))
    assert found["model"]["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["model"]["a"].dtype == np.float32
    assert found["model"]["b"] == 0.5
    assert found["counts"][0].tolist() == [0, 1, 2]
    assert found["counts"][1:] == [7, "text", (None, True, b"bytes")]


def by_stack(module, name):
    """A pickle of protocol 4 that puts a name together and calls it."""
    words = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
    return b"\x80\x04" + words + b"\x93)R."


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Call(print, "PWNED"), protocol=2),
        pickle.dumps(Call(eval, "print('PWNED')"), protocol=4),
        by_stack("os", "getcwd"),
        by_stack("builtins", "print"),
        by_stack("fldet.checkpoints.content", "RefusedError"),
        by_stack("numpy", "ndarray.tofile"),
        by_stack("collections", "Counter.update"),
        b"\x80\x04\x82\x01.",  # a number of the extension registry
        b"(S'a'\nios\ngetcwd\n.",
        b"cos\ngetcwd\n)R.",
        pickle.dumps(Call(codecs.encode, "text", "rot13"), protocol=2),
        pickle.dumps({1j: 2}),
        pickle.dumps(np.array([object()], dtype=object), protocol=2),
        pickle.dumps([[[1]] * 1000] * 10**4),
    ],
)
def test_a_pickle_that_may_run_code_or_holds_something_else(data, capsys):
    with pytest.raises(RefusedError):
        checkpoint_file.read_pickle(data)
    assert "PWNED" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02K\x01r\xff\xff\xff\x7f.",  # to be remembered as number two thousand million
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",  # bytes that are not there
        b"\x80\x04\x95" + (2**40).to_bytes(8, "little") + b"K\x01.",
    ],
)
def test_a_small_pickle_does_not_ask_for_much_memory(data):
    tracemalloc.start()
    try:
        with contextlib.suppress(Exception):
            checkpoint_file.read_pickle(data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_pickle_changes_nothing_of_what_stands_for_its_names():
    """BUILD sets attributes of what it finds, functions' too."""
    attributes = pickle.dumps({"__defaults__": (1, 2), "__doc__": "PWNED"}, protocol=2)[2:-1]
    name = b"cnumpy.core.multiarray\nscalar\n"
    data = b"\x80\x02" + name + b"N" + attributes + b"\x86b."
    before = checkpoint_file._make_scalar.__defaults__
    with pytest.raises(RefusedError, match="it holds a function"):
        checkpoint_file.read_pickle(data)
    assert checkpoint_file._make_scalar.__defaults__ == before
    assert checkpoint_file._make_scalar.__doc__ is None
