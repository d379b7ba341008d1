"""The index of the paper's rows agrees with the specification and with the configs."""

import json
import re
from collections import Counter

import pytest

from fldet.config.diff import diff_configs
from fldet.config.load import CONFIGS, load_config
from fldet.errors import DataError, UsageError
from fldet.paper import compare, find_table, read_tables

ROOT = CONFIGS.parent
*TABLES, SYSTEMS = read_tables()
ROWS = [(table, row) for table in TABLES for row in table.rows]
every_row = pytest.mark.parametrize(
    ("table", "row"), ROWS, ids=[f"{table.name} {row.name}" for table, row in ROWS]
)
OURS = ("controls", "balance", "classes")  # tables that the paper does not have
FIGURES = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")


# --- the specification, read by another way than the index was written ---


def cells(text):
    """(label, figures) of ``label a/b/c · label a/b/c``; stars mark the best."""
    for part in text.replace("**", "").split("·"):
        *label, figures = part.split()
        yield " ".join(label), [float(value) for value in figures.rstrip(".").split("/")]


def list_of_rows(text, table, start):
    line = re.search(rf"^\*\*{table}\*\*.*\n(.*)$", text, re.MULTILINE).group(1)
    assert line.startswith(start)
    return dict(cells(re.split(r"\. (?=\()|\. (?=alpha searched)|\. (?=Scales)", line)[0]))


def rows_of_1d(text):
    head, _, ohem, ratio = re.search(r"^\*\*1d\*\*.*\n((\|.*\n){4})", text, re.M)[1].splitlines()
    columns = [name.strip() for name in head.strip("| ").split("|")]
    expected = {}
    for line in (ohem, ratio):
        name, *values = [value.strip(" *") for value in line.strip("|").split("|")]
        for column, value in zip(columns, values, strict=True):
            if value not in ("", "-"):
                key = "FL" if column == "FL" else f"{name} {column}"
                expected[key] = [float(v) for v in value.replace("*", "").split("/")]
    return expected


def rows_of_1e(text):
    expected = {}
    for line in re.search(r"^\*\*1e\*\*.*\n(?:\|.*\n){2}((\|.*\n){5})", text, re.M)[1].splitlines():
        scale, r50, ms50, r101, ms101 = [value.strip() for value in line.strip("|").split("|")]
        for depth, values, ms in (("R50", r50, ms50), ("R101", r101, ms101)):
            numbers = [float(v) for v in re.split(r"[/,]", values)]
            expected[f"{depth}-{scale}"] = [*numbers, float(ms)]
    return expected


def rows_of_2(text):
    line = re.search(r"^\*\*2\*\* test-dev: (.*?)\. Scale", text, re.M)[1]
    return {
        name: [float(v) for v in re.split(r"/", f"{main}/{sizes}")]
        for name, main, sizes in re.findall(r"(\S+) ([\d./]+), (?:S/M/L )?([\d./]+)", line)
    }


def rows_of_3(text):
    line = re.search(r"^\*\*3\*\* \(appendix, R50-600\): (.*); alpha", text, re.M)[1]
    return dict(cells(line))


EXPECTED = {
    "table1a": (lambda text: list_of_rows(text, "1a", ".10"), 7),
    "table1b": (lambda text: list_of_rows(text, "1b", "0/.75"), 7),
    "table1c": (lambda text: list_of_rows(text, "1c", "1x1"), 7),
    "table1d": (rows_of_1d, 10),
    "table1e": (rows_of_1e, 10),
    "table2": (rows_of_2, 2),
    "table3": (rows_of_3, 4),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_index_agrees_with_the_specification_cell_by_cell(name, specification):
    read, count = EXPECTED[name]
    expected = read(specification)
    found = {row.name: list(row.paper.values()) for row in find_table(name).rows}
    assert len(expected) == count
    assert found == expected
    names = [*FIGURES, "ms"]
    for row in find_table(name).rows:
        assert list(row.paper) == names[: len(row.paper)]


def test_the_paper_has_47_rows_and_there_are_controls_besides():
    counts = {table.name: len(table.rows) for table in TABLES}
    controls, *_ = (counts.pop(name) for name in OURS)
    assert counts == {name: count for name, (_, count) in EXPECTED.items()}
    assert sum(counts.values()) == 47
    assert controls >= 4


def test_the_systems_have_a_small_version_each_and_retinanets_figures_are_those_of_table_2():
    assert SYSTEMS.name == "systems"
    assert len({row.small for row in SYSTEMS.rows}) == len(SYSTEMS.rows) >= 5
    for row in SYSTEMS.rows:
        assert (ROOT / row.config).is_file()
        assert (ROOT / row.small).is_file()
        assert set(FIGURES) <= row.paper.keys()
    of_table2 = next(
        row for row in find_table("table2").rows if row.config == SYSTEMS.rows[0].config
    )
    assert of_table2.paper == {name: SYSTEMS.rows[0].paper[name] for name in FIGURES}


# --- the configs ---


def test_every_config_below_paper_is_a_row_and_every_row_has_its_config():
    files = {
        path.relative_to(ROOT)
        for path in (CONFIGS / "paper").rglob("*.py")
        if "_base_" not in path.parts
    }
    assert files == {row.config for _, row in ROWS}


@every_row
def test_header_states_the_row_and_the_file_is_short(table, row):
    text = (ROOT / row.config).read_text()
    assert len(text.splitlines()) <= 20
    header = " ".join(text.split('"""')[1].split())
    assert "Hardware:" in header
    assert f"fldet train {row.config} --gpus 8" in header
    if row.paper:
        ap, ap50, ap75 = (row.paper[name] for name in FIGURES[:3])
        assert f"{ap:.1f} AP / {ap50:.1f} AP50 / {ap75:.1f} AP75 ({table.split})" in header
        number = table.name.removeprefix("table")
        assert f"Reproduces: Table {number}, " in header


def settings(row):
    """What a row varies, read from its resolved config."""
    cfg = load_config(ROOT / row.config)
    head = cfg.model.bbox_head
    loss = head.loss_cls
    scale = cfg.val_dataloader.dataset.pipeline[1].scale
    kind = {"ResNet": "R", "ResNeXt": "X"}[cfg.model.backbone.type]
    return {
        "model": f"{kind}{cfg.model.backbone.depth}-{min(scale)}",
        "cap": max(scale),
        "loss": loss.type.removeprefix("fldet."),
        "alpha": loss.get("alpha"),
        "gamma": loss.get("gamma", 0),
        "beta": loss.get("beta"),
        "anchors": f"{head.anchor_generator.num_scales}x{len(head.anchor_generator.ratios)}",
        "miner": cfg.model.train_cfg.get("miner"),
        "prior": head.prior_prob,
        "iterations": cfg.train_cfg.max_iters,
        "schedule": [step.get("milestones") for step in cfg.param_scheduler],
        "lr": cfg.optim_wrapper.optimizer.lr,
    }


PLAIN = {
    "model": "R50-600",
    "cap": 1000,
    "loss": "FocalLoss",
    "alpha": 0.25,
    "gamma": 2.0,
    "beta": None,
    "anchors": "3x3",
    "miner": None,
    "prior": 0.01,
    "iterations": 90_000,
    "schedule": [None, [60_000, 80_000]],
    "lr": 0.01,
}
CE = {"loss": "CrossEntropyLoss", "gamma": 0}
CAPS = {400: 667, 500: 833, 600: 1000, 700: 1167, 800: 1333}


def changes(table, row):
    """What the name of a row says about its settings."""
    name = row.name
    if table.name == "table1a":
        return {**CE, "alpha": float(name)}
    if table.name == "table1b":
        gamma, alpha = map(float, name.split("/"))
        return {**CE, "alpha": alpha} if gamma == 0 else {"gamma": gamma, "alpha": alpha}
    if table.name == "table1c":
        return {"anchors": name}
    if table.name == "table1d" and name == "FL":
        return {"model": "R101-600"}
    if table.name == "table1d":
        number, threshold = name.split()[-1].split("/")
        miner = {
            "type": "fldet.OHEM",
            "num_examples": int(number),
            "iou_threshold": float(threshold),
            "per": "image",
            "nms_on": "anchors",
            "class_agnostic": True,
            "score": "cls",
            "divisor": "selected",
            **({"neg_pos_ratio": 3} if "1:3" in name else {}),
        }
        return {**CE, "alpha": None, "model": "R101-600", "miner": miner}
    if table.name == "table1e":
        return {"model": name, "cap": CAPS[int(name.split("-")[1])]}
    if table.name == "table2":
        kind = name.replace("-32x8d", "")
        long = {"iterations": 135_000, "schedule": [None, [90_000, 120_000]]}
        return {"model": kind, "cap": 1333, **long}
    star = re.fullmatch(r"FL\* gamma (\d) beta (\d)", name)
    if star:
        return {"loss": "FocalLossStar", "gamma": float(star[1]), "beta": float(star[2])}
    return {**CE, "alpha": 0.75} if name == "CE" else {}


@every_row
def test_config_differs_from_the_papers_model_in_what_the_row_says_and_nothing_else(table, row):
    if table.name == "controls":
        assert settings(row) != {**PLAIN}
    elif table.name not in OURS:
        assert settings(row) == {**PLAIN, **changes(table, row)}


# How many boxes the classes of the tier photos have in training, and alpha of what a row is beside.
BOXES, ALPHA = (103, 2443, 560), {"CE": 0.75, "FL": 0.25}


def remedies(row):
    """What a row of the tables balance and classes sets, worked out from its name."""
    name, _, remedy = row.name.partition(", ")
    head = "model.bbox_head"
    if factor := re.fullmatch(r"(\w+) x(\d+)", name):
        return {f"{head}.loss_bbox.loss_weight": float(factor[2])}
    if name == "OHEM by positives":
        return {"model.train_cfg.miner.divisor": "positives"}
    if remedy == "class-balanced sampling":
        return {"oversample": 0.3}
    rarity = [number**-0.5 for number in BOXES]
    mean = sum(b * r for b, r in zip(BOXES, rarity, strict=True)) / sum(BOXES)
    weights = [one / mean for one in rarity]
    odds = [weight * ALPHA[name] / (1 - ALPHA[name]) for weight in weights]
    key, values = {
        "class weights": ("class_weight", weights),
        "alpha per class": ("alpha", [one / (1 + one) for one in odds]),
    }[remedy]
    return {
        f"{head}.num_classes": 3,
        f"{head}.loss_cls.{key}": pytest.approx(values, abs=5e-4),
    }


@pytest.mark.parametrize(
    "row",
    [row for table, row in ROWS if table.name in OURS[1:]],
    ids=lambda row: row.name,
)
def test_a_row_of_ours_is_that_of_the_paper_beside_it_but_for_one_thing(row):
    (beside,) = row.beside
    table, name = beside.split(" ", 1)
    other = next(one for one in find_table(table).rows if one.name == name)
    found = diff_configs(load_config(other.config), load_config(row.config))
    assert {one.key: one.b for one in found} == remedies(row)


def test_the_classes_have_so_many_boxes(coco_mini):
    file = coco_mini.with_name("masks") / "annotations" / "instances_train2017.json"
    if not file.is_file():
        pytest.skip(f"no {file}")
    content = json.loads(file.read_text())
    of_class = Counter(one["category_id"] for one in content["annotations"])
    assert tuple(of_class[one["id"]] for one in content["categories"]) == BOXES


# --- results ---


def write_result(work_dirs, row, ap):
    file = work_dirs / row.config.stem / "test" / "result.json"
    file.parent.mkdir(parents=True)
    summary = {"AP": ap, "AP50": 0.525, "AP75": 0.365, "AP_S": None, "AP_M": 0.4, "AR1": 0.3}
    file.write_text(json.dumps({"result": {"figures": {"summary": summary, "num_images": 82}}}))
    return file


def test_a_result_in_a_work_dir_stands_beside_the_papers(tmp_path):
    table = find_table("table1b")
    file = write_result(tmp_path, table.rows[5], 0.337)
    compared = compare(table, tmp_path)
    ours = compared[5].ours
    assert ours.file == file
    assert ours.num_images == 82
    assert ours.figures["AP"] == pytest.approx(33.7)
    assert ours.figures["AP_S"] is None
    assert "AR1" not in ours.figures
    assert compared[5].delta == pytest.approx(-0.3)
    assert [row.ours for row in compared if row != compared[5]] == [None] * 6


def test_a_result_that_cannot_be_read_is_named(tmp_path):
    table = find_table("table3")
    file = write_result(tmp_path, table.rows[0], 0.3)
    file.write_text("{}")
    with pytest.raises(DataError, match=re.escape(str(file))):
        compare(table, tmp_path)


def test_an_unknown_table_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"no 'tabel1b'\n.*did you mean table1b"):
        find_table("tabel1b")
