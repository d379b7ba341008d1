"""Which runs a table needs, and what is said about them; no run is done here."""

import dataclasses
import json

import pytest

from fldet.errors import DataError, UsageError
from fldet.paper import find_table, read_tables
from fldet.paper.asked import ask_for
from fldet.paper.page import markdown
from fldet.paper.plan import ALPHAS, RunOptions, plan, tables_of
from fldet.paper.report import make_report
from fldet.paper.statements import Measured
from fldet.paper.tiers import find_tier
from fldet.runs.run import Record, check_digest, read_record

LAPTOP = find_tier("laptop")
FOR_OTHERS = ("table2", "classes")  # tables that the tier cannot run


def plan_of(work_dir, *names, tier=LAPTOP, seeds=(0,), rows=(), search_alpha=False, **options):
    chosen = {"seeds": seeds, "rows": rows, "search_alpha": search_alpha}
    runs = plan(tables_of(names, tier), tier, work_dir, **chosen, options=RunOptions(**options))
    ask_for(runs, work_dir / tier.name)
    return runs


def finish(run, ap, seconds=60.0, per_class=None, **changes):
    """Leaves what a run that came to an end would."""
    record = Record("done", run.digest, run.cfg_options, tuple(s.name for s in run.steps))
    machines = ({"cores": "2"},)
    record = dataclasses.replace(
        record, seconds={"train": seconds}, machines=machines, images=run.images
    )
    if run.steps[0].name == "timing":
        run.folder.mkdir(parents=True)
        (run.folder / "benchmark.json").write_text(json.dumps({"result": {"median_ms": ap}}))
    else:
        if run.steps[-1].name == "timing":
            run.folder.mkdir(parents=True)
            timed = {"median_ms": 20.0, "gflop": 1.5, "parameters": 2_500_000}
            (run.folder / "benchmark.json").write_text(json.dumps({"result": timed}))
        (run.folder / "test").mkdir(parents=True)
        summary = {"AP": ap / 100, "AP50": 0.5, "AP_S": None}
        figures = {"summary": summary, "num_images": 9, "per_class": per_class or {}}
        content = {"result": {"figures": figures}}
        (run.folder / "test" / "result.json").write_text(json.dumps(content))
    dataclasses.replace(record, **changes).write(run.folder)


def test_rows_of_equal_configs_share_their_runs(tmp_path):
    runs = plan_of(tmp_path, seeds=(0, 1))
    rows = sum(len(table.rows) for table in read_tables() if table.name not in FOR_OTHERS)
    assert len(runs) == len({run.folder for run in runs}) < 2 * rows
    shared = next(run for run in runs if run.name == "fl_gamma_2/seed_0")
    assert shared.rows == ("table1b 2/.25", "table1c 3x3", "table1d FL", "table3 FL")
    labels = [label for run in runs for label in run.rows]
    assert len(labels) == 2 * rows
    # whatever table is asked for, and whatever all are told
    (alone,) = plan_of(tmp_path, "table1c", rows=["3x3"], cfg=("train_cfg.max_iters=7",))
    assert alone.folder == shared.folder
    assert alone.digest != shared.digest


def test_rows_are_chosen_by_either_name(tmp_path):
    runs = plan_of(tmp_path, "table1b", "table1d", rows=["2/.25", "ohem_128_0.5"], seeds=(3,))
    assert [run.name for run in runs] == ["fl_gamma_2/seed_3", "ohem_128_0.5/seed_3"]
    with pytest.raises(UsageError, match=r"no row '2/.3' in table1b\n.*2/.25"):
        plan_of(tmp_path, "table1b", rows=["2/.3"])


def test_timings_are_of_the_papers_models_but_for_the_full_tier(tmp_path):
    run = plan_of(tmp_path, "table1e", rows=["R101-600"], timing=("--images", "5"))[0]
    (step,) = run.steps
    assert step.arguments[1].endswith("configs/paper/table1e/r101_600px.py")
    assert step.arguments[2:] == ("--shape", "600x800", "--images", "5", "--json")
    full = plan_of(tmp_path, "table1e", tier=find_tier("full"), rows=["R101-600"])[0]
    assert [step.name for step in full.steps] == ["train", "test", "timing"]
    assert [step.trained for step in full.steps] == [False, True, True]
    # the row is one of Table 1d too, which needs no timing
    both = plan_of(tmp_path, "table1d", "table1e", tier=find_tier("full"))
    shared = next(run for run in both if "table1e R101-600" in run.rows)
    assert len(shared.rows) == 2
    assert [step.name for step in shared.steps] == ["train", "test", "timing"]


def test_the_full_tier_reports_both_quantities_of_table_1e(tmp_path):
    full = find_tier("full")
    for run in plan_of(tmp_path, "table1e", tier=full, gpus=8):
        assert run.images == 16
        finish(run, 31)
        (run.folder / "benchmark.json").write_text(json.dumps({"result": {"median_ms": 70}}))
    report = make_report([find_table("table1e")], full, tmp_path)
    assert [(table.key, table.quantity) for table in report.tables] == [
        ("table1e", "AP"),
        ("table1e_ms", "ms"),
    ]
    assert [table.rows[0].mean for table in report.tables] == [31, 70]
    assert {one.statement.quantity for one in report.verdicts} == {"ms"}
    assert report.images == 16


def test_a_table_has_the_seeds_that_its_own_rows_were_run_with(tmp_path):
    for run in plan_of(tmp_path, "table1b", seeds=(0, 1, 2)):
        finish(run, 50 + run.seed)
    for run in plan_of(tmp_path, "table3", seeds=(0, 1)):
        if not run.folder.exists():
            finish(run, 60)
    tables = tables_of(["table1a", "table1b", "table3"], LAPTOP)
    report = make_report(tables, LAPTOP, tmp_path)
    assert [table.rows[1].asked for table in report.tables] == [(), (0, 1, 2), (0, 1)]
    assert {row.ours.missing for row in report.tables[2].rows} == {0}
    assert report.tables[2].rows[1].mean == 50.5  # the focal loss, without the third seed
    page = markdown(report, {})
    assert "    fldet paper run table1b --seeds 0 1 2 --tier laptop\n" in page
    assert "    fldet paper run table3 --seeds 0 1 --tier laptop\n" in page


def test_runs_with_other_numbers_of_images_are_not_compared(tmp_path):
    (run,) = plan_of(tmp_path, "table3", rows=["FL"])
    finish(run, 30)
    (wider,) = plan_of(tmp_path, "table3", rows=["FL"], gpus=4)
    with pytest.raises(UsageError, match="begun with 8 images a step, not 32"):
        check_digest(wider, read_record(run.folder))
    (other,) = plan_of(tmp_path, "table3", rows=["FL"], seeds=(1,), gpus=4)
    finish(other, 30)
    with pytest.raises(DataError, match="different numbers of images a step: "):
        make_report([find_table("table3")], LAPTOP, tmp_path)


def test_some_tables_are_for_some_tiers(tmp_path):
    for name, message in {
        "table2": r"table2 is not for the tier laptop: it varies backbone and .*\n.*--tier full",
        "classes": r"classes is not for the tier laptop: it has weights of .*\n.*--tier photos",
    }.items():
        with pytest.raises(UsageError, match=message):
            plan_of(tmp_path, name)
        assert name not in [table.name for table in tables_of((), LAPTOP)]
    assert len(plan_of(tmp_path, "table2", tier=find_tier("full"))) == 2
    photos = dataclasses.replace(LAPTOP, name="photos")
    assert {run.rows for run in plan_of(tmp_path, "classes", tier=photos)} == {
        (f"classes {row.name}",) for row in find_table("classes").rows
    }
    own = dataclasses.replace(find_tier("full"), name="mine")  # an empty file is the paper's own
    assert "table2" in [table.name for table in tables_of((), own)]


def test_systems_are_small_versions_or_the_papers_and_have_their_costs(tmp_path):
    systems = find_table("systems")
    runs = plan_of(tmp_path, "systems", seeds=(0, 1))
    assert len(runs) == 2 * len(systems.rows)
    assert {run.config.stem for run in runs} == {row.small.stem for row in systems.rows}
    assert all([step.name for step in run.steps] == ["train", "test", "timing"] for run in runs)
    for run in runs:
        finish(run, 30 + 10 * ("RetinaNet" in run.rows[0]) + run.seed)
    report = make_report([systems], LAPTOP, tmp_path)
    row = report.tables[0].rows[0]
    assert (row.name, row.mean) == ("RetinaNet", pytest.approx(40.5))
    assert row.figures["parameters"] == (None, 2.5)
    assert row.figures["ms"] == (198, 20)
    assert report.verdicts[0].judgement == "holds"
    page = markdown(report, {})
    assert "| million parameters: here | GFLOP: here | ms per image: paper | ms per image: " in page
    with pytest.raises(
        UsageError, match=r"systems .* tier gpu: it has versions of the paper's size"
    ):
        plan_of(tmp_path, "systems", tier=find_tier("gpu"))
    whole = plan_of(tmp_path, "systems", tier=find_tier("full"))
    assert {run.config.stem for run in whole} == {row.config.stem for row in systems.rows}


def test_the_search_runs_every_alpha_of_table_1a(tmp_path):
    runs = plan_of(tmp_path, "table1b", search_alpha=True)
    assert len(runs) == 7 * len(ALPHAS)
    names = {run.folder.parent.name for run in runs}
    # gamma 0 with another alpha is a row of Table 1a
    assert {"ce_alpha_0.999", "fl_gamma_2", "fl_gamma_2-alpha-0.5"} <= names
    assert "fl_gamma_2-alpha-0.25" not in names


def test_a_step_whose_file_is_gone_is_done_again(tmp_path):
    run = plan_of(tmp_path, "table3", rows=["FL"])[0]
    assert run.next_step(Record()).name == "train"
    finish(run, 30)
    record = read_record(run.folder)
    assert run.next_step(record) is None
    (run.folder / "test" / "result.json").unlink()
    assert run.next_step(record).name == "test"


def test_report_of_a_table(tmp_path):
    runs = plan_of(tmp_path, "table1b", "controls", seeds=(0, 1, 2))
    for run in runs:
        if run.rows[0].endswith("2/.25"):
            finish(run, 50 + run.seed)
        elif run.rows[0].endswith("0/.75"):
            finish(run, 40 + run.seed)
        elif run.rows[0].endswith("CE without prior"):
            finish(run, 0, state="diverged", reason="the loss of iteration 3 is not finite")
        elif run.rows[0].endswith("5/.25") and run.seed == 0:
            finish(run, 0, state="failed", reason="no room")
    report = make_report([find_table("table1b"), find_table("controls")], LAPTOP, tmp_path)
    rows = {row.name: row for row in report.tables[0].rows}
    best = rows["2/.25"]
    assert (best.mean, best.std) == (pytest.approx(51), pytest.approx(1))
    assert (best.paper, best.delta, best.seeds) == (34.0, pytest.approx(17), (0, 1, 2))
    assert rows["5/.25"].ours.missing == 3
    assert report.tables[0].agreement.tau == 1
    assert report.tables[0].agreement.rows == 2
    verdicts = {one.statement.says: one.judgement for one in report.verdicts}
    assert verdicts["The focal loss (gamma 2) beats balanced cross entropy (gamma 0)"] == "holds"
    assert verdicts["gamma 2 is the best"] == "not decided"
    caveat = "3 of 3 seeds diverged; the tier clips gradients"
    assert [one.why for one in report.verdicts if one.statement.check == "diverges"] == [caveat]
    assert verdicts["Cross entropy without the prior diverges"] == "holds"
    assert report.seconds == 10 * 60
    page = markdown(report, {"table1b": "b.png"})
    assert "| 2/.25 | 34.0 | 51.0 | 1.00 (50.0 to 52.0) | 3 | +17.0 | 0.0 | 0.0 |" in page
    assert "| CE without prior | diverged (3) |" in page
    assert "| table1a .50: not run; table1b 2/.25: 51.0 |" in page
    assert page.count("beside it") == 1  # of the controls only
    assert "| 2/.25 | 52.5 | 50.0 |" in page  # AP50
    assert "| 5/.25 | 32.2 | no result (3) | - | 0 | - | 1.8 | - |" in page
    assert "![table1b](b.png)" in page
    assert str(tmp_path) not in page


def test_report_of_the_ap_of_each_class(tmp_path):
    photos = dataclasses.replace(LAPTOP, name="photos")
    rare, common = "mask_weared_incorrect", "a|b"
    for run in plan_of(tmp_path, "table1b", seeds=(0, 1, 2), tier=photos):
        if {"table1b 0/.75", "table1b 2/.25"} & {*run.rows}:
            above = 0.1 * ("2/.25" in run.rows[0]) + 0.01 * run.seed
            finish(run, 50, per_class={rare: 0.2 + above, common: None})
    for run in plan_of(tmp_path, "classes", seeds=(0, 1), tier=photos):
        if "CE, class weights" not in run.rows[0]:
            finish(run, 50, per_class={rare: 0.35 + 0.01 * run.seed, common: 0.7})
    report = make_report([find_table("classes")], photos, tmp_path)
    (table,) = report.tables
    assert [*table.per_class][:2] == ["table1b 0/.75", "CE, class weights"]
    assert table.per_class["table1b 2/.25"][rare].values == pytest.approx((30, 31))  # two seeds
    assert table.per_class["table1b 2/.25"][common].missing == 2
    assert table.per_class["CE, class weights"][rare].missing == 2
    assert table.measured("AP")["table1b 0/.75"].values == (50, 50)
    assert table.measured("AP of no class") == dict.fromkeys(table.per_class, Measured())
    found = {
        one.statement.says.removeprefix("On the rarest class "): one for one in report.verdicts
    }
    assert found["the focal loss is above balanced cross entropy"].judgement == "holds"
    assert found["a remedy is above the focal loss alone"].why == (
        "FL, class weights: 35.5 (35.0 to 36.0) against table1b 2/.25: 30.5 (30.0 to 31.0)"
    )
    assert found["a remedy is above balanced cross entropy alone"].judgement == "not decided"
    page = markdown(report, {})
    assert f"| row | {rare} | a\\|b |" in page
    assert "| table1b 2/.25 | 30.5 (30.0 to 31.0) | no result (2) |" in page
    assert 'What is "not in the paper" is asked here.' in page
    assert make_report([find_table("classes")], LAPTOP, tmp_path).tables[0].per_class == {}


def test_the_best_balance_of_each_loss_is_compared(tmp_path):
    of = {"CE x16": 60, "0/.75": 50, "FL x4": 58, "2/.25": 62, "OHEM by positives": 61.5}
    for run in plan_of(tmp_path, "table1b", "table1d", "balance", seeds=(0, 1)):
        names = [label.split(" ", 1)[1] for label in run.rows]
        finish(run, next((of[name] for name in names if name in of), 40) + run.seed)
    report = make_report([find_table("balance")], LAPTOP, tmp_path)
    ce, ohem = report.verdicts
    assert (ce.judgement, ohem.judgement) == ("holds", "not decided")
    assert ce.why == "table1b 2/.25: 62.5 (62.0 to 63.0) against CE x16: 60.5 (60.0 to 61.0)"
    assert "against OHEM by positives: 62.0" in ohem.why
    page = markdown(report, {})
    assert "| OHEM x4 | 40.5 | 0.71 (40.0 to 41.0) | 2 | 21.5 | table1d OHEM 128/.5: 40.5 |" in page


def test_a_row_beside_others_has_the_seeds_of_any_of_them(tmp_path):
    for run in plan_of(tmp_path, "table1b", rows=["2/.25"], seeds=(0, 1, 2)):
        finish(run, 50 + run.seed)
    for run in plan_of(tmp_path, "balance", rows=["FL x4"], seeds=(0, 1)):
        finish(run, 60)
    (table,) = make_report([find_table("balance")], LAPTOP, tmp_path).tables
    assert table.measured("AP")["table1b 2/.25"].values == (50, 51)
    beside = {row.name: row.beside.get("table1b 2/.25") for row in table.rows}
    assert (beside["FL x4"].values, beside["FL x16"].values) == ((50, 51), ())


def test_report_of_timings_and_of_a_search(tmp_path):
    for run in plan_of(tmp_path, "table1e"):
        finish(run, 1000 if "R101" in run.rows[0] else 500)
    for run in plan_of(tmp_path, "table1b", rows=["2/.25"], search_alpha=True):
        finish(run, 55 if "0.75" in run.name else 50)
    report = make_report(tables_of(["table1b", "table1e"], LAPTOP), LAPTOP, tmp_path)
    assert [row.mean for row in report.tables[1].rows] == [500] * 5 + [1000] * 5
    assert report.tables[1].quantity == "ms"
    searched = report.search[5]
    assert (searched.row, searched.best) == ("2/.25", "0.75")
    page = markdown(report, {})
    assert "## The search for alpha" in page
    assert (
        "\n    fldet paper run table1b --rows 2/.25 --seeds 0 --search-alpha --tier laptop\n"
        in page
    )
    assert "timed on different machines" not in page


def test_a_search_compares_equal_seeds(tmp_path):
    for run in plan_of(tmp_path, "table1b", rows=["2/.25"], search_alpha=True):
        finish(run, 55 if "0.75" in run.name else 50)
    for run in plan_of(tmp_path, "table1b", rows=["2/.25"], seeds=(1, 2)):
        finish(run, 70)
    report = make_report(tables_of(["table1b"], LAPTOP), LAPTOP, tmp_path)
    searched = report.search[5]
    assert (searched.asked, searched.best) == ((0,), "0.75")
    assert searched.alphas["0.25"].values == (50,)


def test_the_page_says_how_the_runs_are_made_and_on_what(tmp_path):
    options = ("data_root=my data",)
    for run in plan_of(tmp_path, "table3", gpus=2, cfg=options):
        finish(run, 30, machines=({"processes": "2"},))
    for run in plan_of(tmp_path, "table3", rows=["FL"], seeds=(1,), gpus=2, cfg=options):
        finish(run, 30, machines=({"processes": "2"},))
    for run in plan_of(tmp_path, "table1e"):
        finish(run, 100, machines=({"threads": "1" if "600" in run.rows[0] else "2"},))
    page = markdown(make_report(tables_of(["table1e", "table3"], LAPTOP), LAPTOP, tmp_path), {})
    common = "--tier laptop --gpus 2 --cfg-options 'data_root=my data'\n"
    assert f"    fldet paper run table3 --rows FL --seeds 0 1 {common}" in page
    others = "CE 'FL* gamma 2 beta 1' 'FL* gamma 4 beta 0'"
    assert f"    fldet paper run table3 --rows {others} --seeds 0 {common}" in page
    assert "timed on different machines" in page


def test_runs_of_another_config_are_not_compared(tmp_path):
    (run,) = plan_of(tmp_path, "table3", rows=["FL"])
    finish(run, 30, digest="another")
    with pytest.raises(UsageError, match="begun with another config"):
        make_report([find_table("table3")], LAPTOP, tmp_path)
    (other,) = plan_of(tmp_path, "table3", rows=["FL"], seeds=(1,), cfg=("val_cfg=None",))
    finish(other, 30)
    with pytest.raises(DataError, match="different --cfg-options"):
        make_report([find_table("table3")], LAPTOP, tmp_path)


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DataError, match=r"run.json is no record"):
        read_record(tmp_path)
