"""Predictions of a tiny model in a folder: made, and read back."""

import json
import os

from fldet.inference.folder import read_lines
from fldet.inference.predict import predict

LOW = 0.05


def run(tiny_run, photos, out, **options):
    options = {"score_thr": LOW, "device": "cpu", **options}
    return predict(tiny_run[1], str(photos), out, **options)


def by_file(out):
    lines = [line for path in out.glob("predictions*.jsonl") for line in read_lines(path)]
    found = {os.path.basename(line["file"]): line for line in lines}
    assert len(found) == len(lines), "an image has two lines"
    return found


def skipped_in(out):
    return [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]


def lines_in(folder):
    return len(list(read_lines(folder / "predictions.jsonl")))
