"""The folder of predictions: who may write there, what a later run keeps, what it removes."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from predicted import lines_in, run

from fldet.engine.lock import locked
from fldet.errors import DataError, UsageError
from fldet.inference import predict as module
from fldet.inference.detector import Detector
from fldet.inference.folder import Place, write_coco
from fldet.inference.sources import Item


def test_each_run_without_out_has_a_folder_of_its_own(tiny_run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "predictions_2").write_text("not a folder")
    (tmp_path / "predictions_3" / "pictures").mkdir(parents=True)
    (tmp_path / "predictions_3" / "pictures" / "mine.jpg").touch()
    with pytest.raises(DataError):  # leaves nothing
        run(tiny_run, "nothing", None)
    outs = [run(tiny_run, photos, None, formats=()).out for _ in range(2)]
    assert [str(out) for out in outs] == ["predictions", "predictions_4"]
    assert run(tiny_run, photos, None, formats=(), resume=True).already_done == 6
    (outs[1] / "predictions.jsonl").write_text("")
    again = run(tiny_run, photos, None, formats=(), resume=True)
    assert (str(again.out), again.images) == ("predictions_4", 6)
    assert str(run(tiny_run, photos, None, formats=(), overwrite=True).out) == "predictions_4"
    assert not list(tmp_path.rglob("run.lock"))


def test_a_run_that_wrote_no_line_blocks_nothing(tiny_run, photos, tmp_path):
    out = tmp_path / "out"
    (out / "pictures").mkdir(parents=True)
    (out / "pictures" / "old.jpg").touch()
    for name in ("predictions.jsonl", "skipped.jsonl"):
        (out / name).touch()
    (out / "predict.json").write_text("{}")
    assert run(tiny_run, photos, out, formats=()).images == 6
    assert not (out / "pictures").exists()


def test_overwriting_leaves_nothing_of_the_run_before(tiny_run, photos, tmp_path):
    out = tmp_path / "out"
    run(tiny_run, photos, out, formats=("coco", "pictures"))
    (out / "notes.txt").write_text("mine")
    result = run(tiny_run, photos / "0.png", out, formats=(), overwrite=True, score_thr=0.5)
    assert result.images == lines_in(out) == 1
    names = {"notes.txt", "predict.json", "predictions.jsonl", "skipped.jsonl"}
    assert {path.name for path in out.iterdir()} == names
    with pytest.raises(UsageError, match="--resume and --overwrite"):
        run(tiny_run, photos, out, resume=True, overwrite=True)


@pytest.mark.parametrize(
    "name", ["images.json", "results.json", "predictions.jsonl", "skipped.0-of-2.jsonl", "pictures"]
)
def test_what_somebody_else_wrote_is_not_touched(tiny_run, photos, tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir()
    if name == "pictures":
        path.mkdir()
        path = path / "0.png.jpg"
    path.write_text("precious")
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UsageError, match=r"is there, and no fldet predict has written it"):
            run(tiny_run, photos, tmp_path / "out", **options)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("source", ["out/pictures", "out/pictures/sub", "out/pictures/*.jpg"])
def test_pictures_are_not_drawn_over_their_images(tiny_run, tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "pictures" / "sub").mkdir(parents=True)
    (tmp_path / "out" / "predict.json").touch()
    with pytest.raises(UsageError, match="where the pictures go"):
        run(tiny_run, source, tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("name", ["predictions.jsonl", "results.json", "predict.json", "pictures"])
def test_nothing_is_written_through_a_link(tiny_run, photos, tmp_path, name):
    out = tmp_path / "out"
    run(tiny_run, photos, out, formats=("coco", "pictures"))
    (out / name).rename(tmp_path / "victim")
    (out / name).symlink_to(tmp_path / "victim")
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(UsageError, match=f"{name} is a link or no file"):
            run(tiny_run, photos, out, **options)


def test_a_planted_link_with_the_name_of_a_draft_is_not_followed(tiny_run, photos, tmp_path):
    out, victim = tmp_path / "out", tmp_path / "victim"
    victim.write_text("precious")
    out.mkdir()
    for name in ("results.json", "images.json", "predict.json"):
        (out / f".{name}.part").symlink_to(victim)
    run(tiny_run, photos, out, formats=("coco",))
    assert victim.read_text() == "precious"


def test_what_a_killed_run_left_is_removed_and_nothing_else(tiny_run, photos, tmp_path):
    out = tmp_path / "out"
    run(tiny_run, photos, out)
    drafts = ["pictures/.a.jpg.a1b2c3d4", "pictures/sub/.b.JPG.abcd_123", ".results.json.part"]
    others = [".notes.json.part", "pictures/.a.jpg", "pictures/.a.jpg.a1b2", ".results.json.bak"]
    for name in [*drafts, *others]:
        (out / name).touch()
    run(tiny_run, photos, out, resume=True)
    assert not [name for name in drafts if (out / name).exists()]
    assert all((out / name).exists() for name in others)


def test_two_runs_into_one_folder_are_one_too_many(tiny_run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with locked(tmp_path / "predictions"):
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(UsageError, match="is in use by process") as error:
                run(tiny_run, photos, tmp_path / "predictions", **options)
            assert "--out" in error.value.hint
        assert str(run(tiny_run, photos, None, formats=()).out) == "predictions_2"


def test_a_run_that_ended_while_this_one_loaded_its_model_is_noticed(
    tiny_run, photos, tmp_path, monkeypatch
):
    load, out = Detector.load, tmp_path / "out"

    def slowly(*arguments, **options):
        monkeypatch.setattr(Detector, "load", load)
        run(tiny_run, photos, out, formats=())
        return load(*arguments, **options)

    monkeypatch.setattr(Detector, "load", slowly)
    with pytest.raises(UsageError, match="already holds predictions"):
        run(tiny_run, photos, out)
    assert lines_in(out) == 6


def test_an_out_that_is_a_file(tiny_run, photos, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UsageError, match="is not a folder"):
        run(tiny_run, photos, tmp_path / "out")


JUNK = [
    b"\0" * 1000 + b"\n",
    b"\n",
    b"{}\n",
    b"[[[[\n",
    b"[" * 100_000 + b"\n",
    b"9" * 5000 + b"\n",
    b"\xff\xfe\n",
    b'{"file": "\\ud800", "boxes": [[1, 2, 3]]}\n',
    *(
        b'{"file": ' + file + b', "width": 1, "height": 1, "boxes": [' + boxes + b'], "labels": [0'
        b'], "scores": [1], "names": ["b"]}\n'
        for file, boxes in (
            (b'"a"', b""),
            (b"1", b"[0, 0, 1, 1]"),
            (b'"a"', b"[0, 0, 1, NaN]"),
            (b'"a"', b"[0, 0, 1, 1" + b"0" * 400 + b"]"),
            (b'"a"', b"[0, 0, 1, true]"),
            (b'"a"', b"[0, 0, 1]"),
            (b'"a"', b'"wxyz"'),
        )
    ),
    b"half a line",
]


def test_lines_that_are_none_are_removed_when_a_run_goes_on(tiny_run, photos, tmp_path):
    out = tmp_path / "out"
    run(tiny_run, photos, out, formats=())
    path = out / "predictions.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    pieces = [*JUNK[:6], *whole[:2], *JUNK[6:-1], *whole[2:5], JUNK[-1]]
    path.write_bytes(b"".join(pieces))
    result = run(tiny_run, photos, out, formats=("coco",), resume=True)
    assert (result.already_done, result.images) == (5, 1)
    assert path.read_bytes().splitlines(keepends=True)[:5] == whole[:5]
    assert lines_in(out) == path.read_bytes().count(b"\n") == 6


@given(st.lists(st.sampled_from(JUNK) | st.binary(max_size=60), max_size=6))
@settings(max_examples=100, deadline=None)
def test_whatever_stands_in_the_file(tmp_path_factory, pieces):
    good = b'{"file": "\\udcff", "frame": 1, "width": 2, "height": 2, "boxes": [[0, 0, 1, 1.5]], '
    good += b'"labels": [0], "scores": [0.5], "names": ["\\u7bb1"]}\n'
    out = tmp_path_factory.mktemp("junk")
    path = out / "predictions.jsonl"
    path.write_bytes(b"".join(piece.rstrip(b"\n") + b"\n" for piece in pieces) + good + b"rest")
    done = module._Done(out)
    assert Item("\udcff", 1, "") in done
    module._mend(out, Place(), done.junk)
    assert path.read_bytes() == good
    write_coco([path], out, ["a"])
    assert len(json.loads((out / "results.json").read_text())) == 1
