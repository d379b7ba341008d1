"""A folder in which the names that the docs use are tiny things: their lines can be run there."""

import json
import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
from doc_lines import QUICK

from fldet.data.folds.files import Folds, list_of_fold, write_folds
from fldet.devices import has_bfloat16
from fldet.evaluation.out_of_fold import write_out_of_fold

FEW_STEPS = (
    "model.backbone.init_cfg=None train_cfg.max_iters=2 train_cfg.val_interval=2 "
    "train_dataloader.batch_size=2 train_dataloader.num_workers=0"
)

# Replaced in a line before it is run: (pattern, by what). Slow settings, and placeholders that are
# not the name of anything in the sandbox.
SHORT = (
    (r"^(fldet train my_config.py.*)", rf"\1 --cfg-options {FEW_STEPS}"),
    (r"^(fldet paper run .*)", r"\1 --dry-run"),
    (r"^(fldet benchmark .*)", r"\1 --images 2"),
    (r"^(fldet benchmark table)(?!.*--depths)(.*)", r"\1 --depths 18 --scales 64\2"),
    (r"--depths 50 101 --scales 400 500 600 700 800", "--depths 18 --scales 64"),
    (r"--shape \d+x\d+", "--shape 64x96"),
    (r"--tier TIER", "--tier laptop"),
    (r"FOLDER/data.yaml", "yolo/data.yaml"),
    (r"predict model.onnx", "predict best.pth"),
    (r"FOLDER/annotations/train.json", "FOLDER/annotations/instances_train2017.json"),
    (r"--images PICTURES", "--images FOLDER/train2017"),
    (r"--int8\b", "--int8 --max-ap-drop 100"),  # on six images, of a model that has learnt little
)

if not has_bfloat16(torch.device("cpu")):  # emulated, it takes minutes
    SHORT = (*SHORT, (r" --amp\b", ""))


class Sandbox:
    """A folder in which the names that the docs use are tiny things.

    ``configs/...`` of a command that trains, tests or measures is the tiny config under that name.

    Args:
        folder: where; made.
        coco: a tiny data set in the COCO 2017 layout.
        config: text of a tiny config for it.
        run: work dir of a tiny training, None if no line needs one.
    """

    def __init__(self, folder: Path, coco: Path, config: str, run: Path | None) -> None:
        self.folder = folder
        self.config = config
        self.run = run
        folder.mkdir()
        for name in ("FOLDER", "FOLDER_OF_BCCD", "FOLDER_OF_YOUR_DATA", "PATH"):
            (folder / name).symlink_to(coco)
        self._write_images()
        self._write_out_of_fold(coco)
        self._link("images", coco / "val2017")
        for split in ("train", "val"):
            truth = coco / "annotations" / f"instances_{split}2017.json"
            self._link(f"annotations/{split}.json", truth)
            self._link(f"data/shapes/annotations/instances_{split}2017.json", truth)
        for name in ("data/shapes/val2017", "data/val2017", "data/images"):
            self._link(name, folder / "photos")
        for name in ("CONFIG.py", "OTHER.py", "tiny.py", "my_config.py"):
            (folder / name).write_text(config)
        for name in (
            "mine",
            "retinanet_r18_shapes",
            "r50_fpn_1x",
            "r101_600px",
            "fl_gamma_2",
            "ce",
        ):
            self.add_run(f"work_dirs/{name}")
            for stem in ("r50_fpn_1x", name):
                (folder / "work_dirs" / name / f"{stem}.py").write_text(config)
        for name in ("CHECKPOINT", "WORK_DIR"):
            self.add_run(name)
        if run:
            shutil.copy(run / "iter_4.pth", folder / "best.pth")

    def _link(self, name: str, target: Path) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    def _write_images(self) -> None:
        """Noise: on even areas a hardly trained model scores alike, and NMS may choose either."""
        rng = np.random.default_rng(1)
        (self.folder / "photos").mkdir()
        for name in ("photo.jpg", "a.jpg", "photos/1.jpg", "photos/2.jpg"):
            image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            cv2.imwrite(str(self.folder / name), image)
        codec = cv2.VideoWriter_fourcc(*"mp4v")
        film = cv2.VideoWriter(str(self.folder / "film.mp4"), codec, 10, (64, 64))
        for _ in range(30):
            film.write(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        film.release()

    def _write_out_of_fold(self, coco: Path) -> None:
        """What a cross-validation leaves, whose models have found everything, and thresholds."""
        content = json.loads((coco / "annotations" / "instances_val2017.json").read_text())
        for place, one in enumerate(content["images"]):
            path = str(coco.resolve() / "val2017" / one["file_name"])
            one |= {"fold": 1 + place % 2, "file_name": path}
        keys = ("image_id", "category_id", "bbox")
        found = [
            {**{key: one[key] for key in keys}, "score": 0.5} for one in content["annotations"]
        ]
        folder, number = self.folder / "FOLDS_DIR", len(content["images"])
        write_folds(Folds(2, 0, False, "", number, number), folder)
        for fold in (1, 2):
            list_of_fold(folder, fold).write_text("[]")
        write_out_of_fold(folder, content, found)
        (self.folder / "results.json").write_text(json.dumps(found))
        scores = {one["name"]: 0.3 for one in content["categories"]}
        (self.folder / "thresholds.json").write_text(json.dumps({"scores": scores}))

    def add_run(self, name: str) -> None:
        folder = self.folder / name
        if self.run:
            shutil.copytree(self.run, folder)
        else:
            folder.mkdir(parents=True)

    def arguments(self, line: str) -> list[str]:
        """Returns the words after ``fldet`` of a line as it is run here."""
        for pattern, by in SHORT:
            line = re.sub(pattern, by, line)
        words = shlex.split(line)[1:]
        return words if (words[0],) in QUICK - {("data",)} else [self.tiny(word) for word in words]

    def tiny(self, word: str) -> str:
        """Returns a config under the name of a large one, other words as they are."""
        if not re.match(r"configs/.*\.py$", word):
            return word
        path = self.folder / "tiny" / word
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.config)
        return f"tiny/{word}"

    def clear(self, words: list[str]) -> None:
        """Removes what an earlier line wrote, where this one would write: lines are examples."""
        if "--resume" in words:
            return
        if words[0] == "train" and "--replay" not in words:
            shutil.rmtree(self.folder / "work_dirs" / Path(words[1]).stem, ignore_errors=True)
        if words[0] == "init":
            (self.folder / words[words.index("--out") + 1]).unlink(missing_ok=True)
        if words[0] == "predict":
            out = words[words.index("--out") + 1] if "--out" in words else "predictions"
            shutil.rmtree(self.folder / out, ignore_errors=True)
