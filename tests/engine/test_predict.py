import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from fldet.engine import predict as module
from fldet.engine.detector import Detector
from fldet.engine.predict import Place, predict, read_lines
from fldet.errors import DataError, UsageError

LOW = 0.05


@pytest.fixture
def photos(tiny_coco, bad_inputs, tmp_path):
    """Six images, one of them in a folder below, and two broken files."""
    folder = tmp_path / "photos"
    shutil.copytree(tiny_coco / "val2017", folder)
    (folder / "sub").mkdir()
    shutil.move(folder / "5.png", folder / "sub" / "5.png")
    for name in ("zero_bytes.jpg", "text_not_image.jpg"):
        shutil.copy(bad_inputs / "images" / name, folder)
    return folder


def run(tiny_run, photos, out, **options):
    options = {"score_thr": LOW, "device": "cpu", **options}
    return predict(tiny_run[1], str(photos), out, **options)


def by_file(out):
    lines = [line for path in out.glob("predictions*.jsonl") for line in read_lines(path)]
    found = {os.path.basename(line["file"]): line for line in lines}
    assert len(found) == len(lines), "an image has two lines"
    return found


def test_lines_pictures_coco_and_names_of_what_is_broken(tiny_run, photos, tmp_path):
    out = tmp_path / "out"
    result = run(tiny_run, photos, out, formats=("pictures", "coco"), batch_size=2)
    assert (result.images, result.skipped, result.already_done) == (6, 2, 0)
    lines = by_file(out)
    detector = Detector.load(tiny_run[1], device="cpu")
    for name, line in lines.items():
        (found,) = detector.predict(line["file"], score_thr=LOW)
        assert (line["width"], line["height"]) == (64, 64)
        np.testing.assert_allclose(np.reshape(line["boxes"], (-1, 4)), found.boxes, atol=1e-3)
        assert line["labels"] == found.labels.tolist(), name
        assert line["names"] == list(found.names)
    assert result.boxes == sum(len(line["boxes"]) for line in lines.values()) > 0
    skipped = [line["file"] for line in read_lines(out / "skipped.jsonl")]
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


def test_a_folder_of_predictions_is_not_overwritten_but_gone_on_with(tiny_run, photos, tmp_path):
    out = tmp_path / "out"
    run(tiny_run, photos, out, formats=("jsonl",))
    before = by_file(out)
    with pytest.raises(UsageError, match="already holds predictions") as error:
        run(tiny_run, photos, out)
    assert "--resume" in error.value.hint
    with open(out / "predictions.jsonl", "rb+") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 10)  # as after a crash: half a line
    result = run(tiny_run, photos, out, formats=("jsonl",), resume=True)
    assert (result.images, result.already_done, result.skipped) == (1, 5, 2)
    after = by_file(out)
    assert after.keys() == before.keys()
    for name, line in after.items():
        np.testing.assert_allclose(line["scores"], before[name]["scores"], atol=1e-5)


def test_another_number_of_processes_goes_on_as_well(tiny_run, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(module, "_place", lambda launcher, device: (Place(1, 2), device))
    for name in ("_wait", "_total"):
        monkeypatch.setattr(module, name, lambda counts, *_: counts)
    monkeypatch.setattr(module, "_groups", lambda place: nullcontext())
    assert run(tiny_run, photos, out) is None
    assert len(by_file(out)) == 3
    monkeypatch.undo()
    result = run(tiny_run, photos, out, formats=("jsonl",), resume=True)
    assert (result.images, result.already_done) == (3, 3)
    assert len(by_file(out)) == 6
    assert len(result.files) == 3  # the lines of two runs, and what was skipped


@pytest.mark.parametrize("other", [{"score_thr": 0.1}], ids=["threshold"])
def test_going_on_with_other_options_is_refused(tiny_run, photos, tmp_path, other):
    out = tmp_path / "out"
    run(tiny_run, photos, out, formats=())
    with pytest.raises(UsageError, match="another score_thr"):
        run(tiny_run, photos, out, resume=True, **other)


def test_frames_of_a_video_have_their_number(tiny_run, tmp_path):
    import cv2

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


def test_each_process_that_torchrun_would_not_end_refuses_by_itself(
    tiny_run, photos, tmp_path, monkeypatch
):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predict.json").touch()
    monkeypatch.setattr(module, "_place", lambda launcher, device: (Place(1, 2), device))
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with pytest.raises(UsageError, match="already holds predictions"):
        run(tiny_run, photos, tmp_path / "out")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    monkeypatch.setattr(module.Detector, "load", lambda *_: 1 / 0)
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


def fldet(*arguments, **options):
    command = [sys.executable, "-m", "fldet", "predict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.mark.e2e
def test_the_command_says_what_it_skipped_and_ends_with_1(tiny_run, photos, tmp_path):
    done = fldet(tiny_run[1], photos, "--format", "jsonl", "--json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)["result"]
    assert (result["images"], result["skipped"]) == (6, 2)
    assert "skipped: cannot read the image" in done.stderr
    assert "zero_bytes.jpg" in done.stderr
    assert "Traceback" not in done.stderr
    paths = "\n".join(map(str, sorted(photos.glob("?.png"))))
    piped = fldet(tiny_run[1], "-", "--out", "o", "-q", cwd=tmp_path, input=paths)
    assert (piped.returncode, piped.stdout) == (0, "o\n"), piped.stderr


@pytest.mark.e2e
@pytest.mark.slow
def test_two_processes_share_the_images(tiny_run, photos, tmp_path):
    (photos / "zero_bytes.jpg").unlink()
    (photos / "text_not_image.jpg").unlink()
    options = ("--format", "coco", "--score-thr", LOW, "--device", "cpu")
    done = fldet(tiny_run[1], photos, *options, "--gpus", 2, "--json", cwd=tmp_path)
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
    command = [sys.executable, "-m", "fldet", "predict", tiny_run[1], photos, "--batch-size", "1"]
    command = [*map(str, command), "--format", "jsonl", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
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
