"""Predicting on folders, videos and lists, by one process and several."""

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext

import cv2
import numpy as np
import pytest
import torch
import warm
from predicted import LOW, by_file, lines_in, run, skipped_in

from fldet.errors import CheckpointError, DataError, FileSystemError, UsageError
from fldet.files import write_atomically
from fldet.inference import predict as module
from fldet.inference.detector import Detector
from fldet.inference.folder import Place, read_lines
from fldet.inference.predict import _Run, predict
from fldet.pictures.boxes import DrawOptions, draw_boxes, read_image


def test_lines_pictures_coco_and_names_of_what_is_broken(tiny_run, photos, tmp_path):
    out = tmp_path / "out"
    result = run(tiny_run, photos, out, formats=("pictures", "coco"), batch_size=2)
    assert (result.images, result.skipped, result.already_done) == (6, 2, 0)
    lines = by_file(out)
    # In the same batches: a hardly trained model scores alike, and rounding chooses between boxes.
    files = [line["file"] for line in lines.values()]
    detector = Detector.load(tiny_run[1], device="cpu")
    detections = detector.predict(files, score_thr=LOW, batch_size=2)
    for (name, line), found in zip(lines.items(), detections, strict=True):
        assert (line["width"], line["height"]) == (64, 64)
        np.testing.assert_allclose(np.reshape(line["boxes"], (-1, 4)), found.boxes, atol=1e-3)
        assert line["labels"] == found.labels.tolist(), name
        assert line["names"] == list(found.names)
    assert result.boxes == sum(len(line["boxes"]) for line in lines.values()) > 0
    skipped = [one["file"] for one in skipped_in(out)]
    assert [os.path.basename(name) for name in skipped] == ["text_not_image.jpg", "zero_bytes.jpg"]
    pictures = {str(path.relative_to(out / "pictures")) for path in out.rglob("*.jpg")}
    assert pictures == {*(f"{i}.png.jpg" for i in range(5)), os.path.join("sub", "5.png.jpg")}
    images = json.loads((out / "images.json").read_text())
    results = json.loads((out / "results.json").read_text())
    assert [one["name"] for one in images["categories"]] == ["circle", "square"]
    assert len(images["images"]) == 6
    assert len(results) == result.boxes
    first = next(one for one in images["images"] if one["file_name"].endswith("0.png"))
    box = next(one["bbox"] for one in results if one["image_id"] == first["id"])
    x1, y1, x2, y2 = lines["0.png"]["boxes"][0]
    assert box == [x1, y1, x2 - x1, y2 - y1]


def test_pictures_are_as_large_as_their_images_and_have_what_is_asked_for(
    tiny_run, photos, tmp_path, fldet
):
    photo, command = photos / "0.png", ("predict", tiny_run[1], photos / "0.png", "--device", "cpu")
    common = ("--score-thr", LOW)
    fldet(*command, *common, "--out", tmp_path / "whole")
    hidden = ("--hide-labels", "--hide-scores", "--line-width", "3")
    fldet(*command, *common, "--out", tmp_path / "bare", *hidden)
    whole, bare = (read_image(tmp_path / name / "pictures/0.png.jpg") for name in ("whole", "bare"))
    line = by_file(tmp_path / "bare")["0.png"]
    options = DrawOptions(hide_labels=True, hide_scores=True, line_width=3)
    wanted = draw_boxes(
        read_image(photo), line["boxes"], line["labels"], (), options=options, smallest=1
    )
    assert whole.shape == bare.shape == (64, 64, 3)
    apart = [np.abs(one.astype(int) - wanted).mean() for one in (bare, whole)]  # JPEG blurs both
    assert apart[0] < 0.7 * apart[1]


def test_a_folder_of_predictions_is_not_overwritten_but_gone_on_with(tiny_run, photos, tmp_path):
    out = tmp_path / "out"
    run(tiny_run, photos, out, formats=("jsonl",), batch_size=1)
    before = by_file(out)
    with pytest.raises(UsageError, match="already holds predictions") as error:
        run(tiny_run, photos, out)
    assert "--resume" in error.value.hint
    with open(out / "predictions.jsonl", "rb+") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 10)  # as after a crash: half a line
    result = run(tiny_run, photos, out, formats=("jsonl",), resume=True, batch_size=1)
    assert (result.images, result.already_done, result.skipped) == (1, 5, 2)
    assert by_file(out) == before


def test_another_number_of_processes_goes_on_as_well(tiny_run, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(module, "_place", lambda launcher, device: (Place(1, 2), device))
    for name in ("_shared", "_total"):
        monkeypatch.setattr(module, name, lambda value, *_: value)
    monkeypatch.setattr(module, "_groups", lambda place: nullcontext())
    out.mkdir()
    (out / "predict.json").write_text(json.dumps(settings_of(tiny_run)))
    assert run(tiny_run, photos, out) is None
    assert len(by_file(out)) == 3
    monkeypatch.undo()
    result = run(tiny_run, photos, out, formats=("jsonl",), resume=True)
    assert (result.images, result.already_done) == (3, 3)
    assert len(by_file(out)) == 6
    assert len(result.files) == 3  # the lines of two runs, and what was skipped


def settings_of(tiny_run):
    return module._settings(tiny_run[1], Detector.load(tiny_run[1], device="cpu"), LOW)


@pytest.mark.parametrize("other", [{"score_thr": 0.1}], ids=["threshold"])
def test_going_on_with_other_options_is_refused(tiny_run, photos, tmp_path, other):
    out = tmp_path / "out"
    run(tiny_run, photos, out, formats=())
    with pytest.raises(UsageError, match="another score_thr"):
        run(tiny_run, photos, out, resume=True, **other)


def test_frames_of_a_video_have_their_number(tiny_run, tmp_path):
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no videos")
    for grey in range(0, 250, 25):
        writer.write(np.full((64, 64, 3), grey, np.uint8))
    writer.release()
    result = run(tiny_run, path, tmp_path / "out", every=4)
    lines = list(read_lines(tmp_path / "out" / "predictions.jsonl"))
    assert [line["frame"] for line in lines] == [0, 4, 8]
    assert result.images == 3
    assert len(list((tmp_path / "out" / "pictures" / "film").iterdir())) == 3


def test_a_source_without_an_image(tiny_run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image in"):
        run(tiny_run, tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_each_process_that_torchrun_would_not_end_refuses_by_itself(
    tiny_run, photos, tmp_path, monkeypatch
):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predict.json").touch()
    (tmp_path / "out" / "predictions.jsonl").write_text("a line")
    monkeypatch.setattr(module, "_place", lambda launcher, device: (Place(1, 2), device))
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with pytest.raises(UsageError, match="already holds predictions"):
        run(tiny_run, photos, tmp_path / "out")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    monkeypatch.setattr(Detector, "load", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # goes on to load the model, and to meet the others
        run(tiny_run, photos, tmp_path / "out")


def test_only_the_end_of_the_others_is_waited_for_for_days(monkeypatch):
    waits = []
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda *_, timeout, **__: waits.append(timeout)
    )
    monkeypatch.setattr(
        torch.distributed, "new_group", lambda *, timeout: waits.append(timeout) or "group"
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    with module._groups(Place(1, 2)) as patient:
        assert patient == "group"
    assert [wait.total_seconds() / 3600 for wait in waits] == [0.5, 30 * 24]


def test_unknown_format_and_launcher(tiny_run, photos, tmp_path):
    with pytest.raises(UsageError, match="unknown format 'picture'") as error:
        run(tiny_run, photos, tmp_path / "out", formats=("picture",))
    assert error.value.expected == "did you mean pictures?"
    with pytest.raises(UsageError, match="--launcher slurm"):
        run(tiny_run, photos, tmp_path / "out", launcher="slurm")


# --- names and pictures ---


def test_no_name_of_a_file_loses_it_or_the_others(tiny_run, tiny_coco, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    names = [
        "試" * 83 + ".png",
        "z" * 251 + ".png",
        "a\nb.png",
        "a\\b.png",
        "-rf.png",
        "\x1b[31m.png",
    ]
    names += ["a.png", "A.png", "a.png.jpg", "\udcff\udcfe.png", "龜.png"]
    for name in names:
        shutil.copy(tiny_coco / "val2017" / "0.png", folder / name)
    result = run(tiny_run, folder, out)
    assert (result.images, result.skipped) == (len(names), 0)
    assert set(by_file(out)) == set(names)
    assert len(list((out / "pictures").iterdir())) == len(names)
    (out / "predictions.jsonl").read_bytes().decode()
    assert run(tiny_run, folder, out, resume=True).already_done == len(names)


def test_a_picture_that_cannot_be_drawn_loses_neither_the_boxes_nor_the_others(
    tiny_run, photos, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    for name in ("zero_bytes.jpg", "text_not_image.jpg"):
        (photos / name).unlink()
    faults = {"2.png": DataError("it is gone by now"), "3.png": cv2.error("wider than a JPEG")}

    def read(path):
        if path.name in faults:
            raise faults[path.name]
        return read_image(path)

    monkeypatch.setattr(module, "read_image", read)
    (photos / "0.png.jpg").mkdir()  # where the picture of 0.png would be
    shutil.copy(photos / "1.png", photos / "0.png.jpg" / "1.png")
    result = run(tiny_run, photos, out, batch_size=2)
    assert (result.images, result.skipped) == (7, 3)
    assert lines_in(out) == 7
    reasons = [one["reason"] for one in skipped_in(out)]
    assert all(reason.startswith("cannot draw the picture of") for reason in reasons)


def test_a_full_disk_in_the_middle_is_said_and_the_run_gone_on_with(
    tiny_run, photos, tmp_path, monkeypatch
):
    out, written = tmp_path / "out", []

    def full(path, data):
        written.append(path)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write_atomically(path, data)

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(FileSystemError, match="No space left") as error:
        run(tiny_run, photos, out, batch_size=1)
    assert "--resume" in error.value.hint
    monkeypatch.undo()
    result = run(tiny_run, photos, out, resume=True)
    assert (result.images + result.already_done, len(by_file(out))) == (6, 6)


@pytest.mark.e2e
def test_the_command_says_what_it_skipped_and_ends_with_1(tiny_run, photos, tmp_path):
    done = warm.run("predict", tiny_run[1], photos, "--format", "jsonl", "--json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)["result"]
    assert (result["images"], result["skipped"]) == (6, 2)
    assert "skipped: cannot read the image" in done.stderr
    assert "zero_bytes.jpg" in done.stderr
    assert "Traceback" not in done.stderr
    paths = "\n".join(map(str, sorted(photos.glob("?.png"))))
    command = [sys.executable, "-m", "fldet", "predict", str(tiny_run[1]), "-", "--out", "o", "-q"]
    piped = subprocess.run(command, cwd=tmp_path, input=paths, capture_output=True, text=True)
    assert (piped.returncode, piped.stdout) == (0, "o\n"), piped.stderr


@pytest.mark.e2e
@pytest.mark.slow
def test_two_processes_share_the_images(tiny_run, photos, tmp_path):
    (photos / "zero_bytes.jpg").unlink()
    (photos / "text_not_image.jpg").unlink()
    options = ("--format", "coco", "--score-thr", LOW, "--device", "cpu")
    options += ("--gpus", 2, "--json")
    done = warm.run("predict", tiny_run[1], photos, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["result"]
    assert (result["images"], result["skipped"]) == (6, 0)
    out = tmp_path / "predictions"
    assert [len(list(read_lines(path))) for path in sorted(out.glob("*of-2.jsonl"))][:2] == [3, 3]
    assert len(by_file(out)) == 6
    assert len(json.loads((out / "results.json").read_text())) == result["boxes"]


@pytest.mark.e2e
@pytest.mark.slow
def test_killed_and_resumed_nothing_is_lost_or_twice(tiny_run, tiny_coco, tmp_path):
    photos = tmp_path / "many"
    photos.mkdir()
    for index in range(400):
        os.link(tiny_coco / "val2017" / f"{index % 6}.png", photos / f"{index:04d}.png")
    command = ["predict", tiny_run[1], photos, "--batch-size", "1", "--format", "jsonl"]
    process = warm.Started(
        (*command, "--out", tmp_path / "out"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    lines = tmp_path / "out" / "predictions.jsonl"
    until = time.monotonic() + 120
    while time.monotonic() < until and not (lines.exists() and lines.stat().st_size > 2000):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(list(read_lines(lines)))
    assert 0 < before < 400
    result = run(tiny_run, photos, tmp_path / "out", score_thr=0.3, formats=(), resume=True)
    assert (result.already_done, result.images) == (before, 400 - before)
    assert len(by_file(tmp_path / "out")) == 400


def test_thresholds_of_classes_are_used_named_and_kept(tiny_run, photos, tmp_path, caplog):
    by_class = {"circle": 0.9999, "square": LOW}
    path, out = tmp_path / "thresholds.json", tmp_path / "out"
    path.write_text(json.dumps({"scores": by_class}))
    options = {"score_thr": None, "formats": (), "batch_size": 1}
    with caplog.at_level("INFO", "fldet"):
        run(tiny_run, photos, out, thresholds=path, **options)
    assert "scores from: circle 1.000, square 0.050" in caplog.text
    assert {name for line in by_file(out).values() for name in line["names"]} == {"square"}
    assert json.loads((out / "predict.json").read_text())["score_thr"] == by_class
    assert run(tiny_run, photos, out, thresholds=path, resume=True, **options).images == 0
    with pytest.raises(UsageError, match="another score_thr"):
        run(tiny_run, photos, out, resume=True, **options)
    with pytest.raises(UsageError, match="--score-thr and --thresholds"):
        run(tiny_run, photos, tmp_path / "other", thresholds=path)


def test_the_network_does_not_wait_for_pictures(tiny_run, photos, tmp_path, monkeypatch):
    looked, waited = [], []
    second = threading.Event()
    detect, draw = Detector.detect, _Run._draw

    def detect_and_tell(self, images, *options):
        looked.append(len(images))
        if len(looked) == 2:
            second.set()
        return detect(self, images, *options)

    def draw_late(self, *image):
        waited.append(second.wait(20))
        return draw(self, *image)

    monkeypatch.setattr(Detector, "images_at_once", lambda *_: 2)
    monkeypatch.setattr(Detector, "detect", detect_and_tell)
    monkeypatch.setattr(_Run, "_draw", draw_late)
    result = predict(tiny_run[1], str(photos), tmp_path / "found", device="cpu")
    assert len(looked) > 2
    assert waited == [True] * result.images
    assert len(list((tmp_path / "found" / "pictures").rglob("*.jpg"))) == result.images


def test_what_was_found_before_an_error_is_written(tiny_run, photos, tmp_path, monkeypatch):
    detect, count = Detector.detect, itertools.count()

    def fail_at_second(self, *images):
        if next(count):
            raise CheckpointError("no more")
        return detect(self, *images)

    monkeypatch.setattr(Detector, "images_at_once", lambda *_: 2)
    monkeypatch.setattr(Detector, "detect", fail_at_second)
    out = tmp_path / "found"
    with pytest.raises(CheckpointError, match="no more"):
        predict(tiny_run[1], str(photos), out, device="cpu")
    lines = (out / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == len(list((out / "pictures").rglob("*.jpg"))) > 0
