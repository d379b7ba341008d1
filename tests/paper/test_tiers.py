"""A tier replaces what it states in every row, and nothing else."""

import re

import pytest

from fldet.config.check import validate
from fldet.config.diff import diff_configs, dotted, leaves
from fldet.config.load import load_config
from fldet.errors import ConfigError, UsageError
from fldet.paper import find_table
from fldet.paper.tiers import find_tier

TABLES = ("table1a", "table1b", "table1c", "table1d", "table3", "controls", "balance")


def stated(tier):
    """The keys that a tier sets, as dotted paths; lists and what has ``_delete_`` are set whole."""
    names = {}
    exec(tier.text, names)
    paths = set()
    for path, _ in leaves({k: v for k, v in names.items() if not k.startswith("__")}):
        end = [i for i, step in enumerate(path) if isinstance(step, int) or step == "_delete_"]
        paths.add(dotted(path[: end[0]] if end else path))
    return paths


def is_stated(key, paths):
    return any(key == path or key.startswith(f"{path}.") for path in paths)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        *(("laptop", table) for table in TABLES),
        *(("gpu", "table1d"), ("gpu", "controls")),
        *(("photos", "table1b"), ("photos", "table1d"), ("photos", "classes")),
    ],
)
def test_a_row_differs_from_the_papers_in_what_the_tier_states_and_from_its_neighbours_as_there(
    name, table, tmp_path
):
    tier, rows = find_tier(name), find_table(table).rows
    paths = stated(tier)
    assert not is_stated("model.bbox_head.loss_cls.gamma", paths)
    configs = [load_config(row.config) for row in rows]
    in_tier = [load_config(tier.write(row.config, tmp_path)) for row in rows]
    validate(in_tier[0])
    for paper, ours in zip(configs, in_tier, strict=True):
        keys = [one.key for one in diff_configs(paper, ours)]
        assert keys
        assert [key for key in keys if not is_stated(key, paths)] == []
        there, here = diff_configs(configs[0], paper), diff_configs(in_tier[0], ours)
        assert here == [one for one in there if not is_stated(one.key, paths)]
        if table not in ("controls", "balance"):  # some of them are of another depth
            assert here == there


def test_the_full_tier_is_the_paper(tmp_path):
    tier, row = find_tier("full"), find_table("table1d").rows[0]
    assert tier.is_paper
    assert (
        diff_configs(load_config(row.config), load_config(tier.write(row.config, tmp_path))) == []
    )


def test_one_learning_rate_and_schedule_for_all_rows(tmp_path):
    tier = find_tier("laptop")
    found = {
        str((cfg.optim_wrapper, cfg.param_scheduler, cfg.train_cfg))
        for table in TABLES
        for row in find_table(table).rows
        for cfg in [load_config(tier.write(row.config, tmp_path))]
    }
    assert len(found) == 1


def test_alpha_is_set_on_top(tmp_path):
    row = find_table("table1b").rows[5]
    with_alpha = find_tier("laptop").write(row.config, tmp_path, alpha=0.5)
    assert with_alpha.name == "fl_gamma_2-alpha-0.5.py"
    (change,) = diff_configs(load_config(tmp_path / row.config.name), load_config(with_alpha))
    assert (change.key, change.a, change.b) == ("model.bbox_head.loss_cls.alpha", 0.25, 0.5)


def test_a_file_is_a_tier_and_its_header_says_the_minutes(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text('"""Mine.\n\nMinutes: 0.5 a run.\n"""\ntrain_cfg = dict(max_iters=3)\n')
    tier = find_tier(str(file))
    assert (tier.name, tier.minutes, tier.is_paper) == ("mine", 0.5, False)


def test_errors_name_the_tier(tmp_path):
    with pytest.raises(UsageError, match=r"no tier 'lapotp'\n.*did you mean laptop"):
        find_tier("lapotp")
    file = tmp_path / "based.py"
    file.write_text("_base_ = 'other.py'\n")
    with pytest.raises(ConfigError, match=re.escape(f"{file} has a _base_")):
        find_tier(str(file))
