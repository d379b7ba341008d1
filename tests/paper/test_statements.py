import pytest

from fldet.paper import find_table
from fldet.paper.statements import OURS, Measured, Statement, judge, read_statements

STATEMENTS = read_statements()
DIVERGED = Measured(diverged=2)


def test_every_statement_is_about_rows_that_there_are():
    for one in STATEMENTS:
        rows = find_table(one.table).rows
        names = {row.name for row in rows} | {label for row in rows for label in row.beside}
        assert {*one.a, *one.b} <= names, one.says


@pytest.mark.parametrize(
    "statement", [one for one in STATEMENTS if one.where != OURS], ids=lambda one: one.says
)
def test_every_statement_is_so_in_the_paper(statement):
    """With the paper's figures as two equal seeds; of the controls it says that they diverge."""
    rows = {
        row.name: Measured((row.paper[statement.quantity],) * 2) if row.paper else DIVERGED
        for row in find_table(statement.table).rows
    }
    if statement.table == "controls":
        rows["CE with prior"] = Measured((30.2, 30.2))
    assert judge(statement, rows).judgement == "holds"


A, B, C = Measured((30, 31)), Measured((32, 33)), Measured((30.5, 32.5))


@pytest.mark.parametrize(
    ("check", "a", "b", "judgement"),
    [
        ("above", [B], [A], "holds"),
        ("above", [A], [B], "does not hold"),
        ("above", [C], [A], "not decided"),
        ("above", [A, B], [A], "holds"),  # the best of a counts
        ("above", [B], [A, C], "not decided"),  # against the best of b
        ("every above", [A, B], [A], "not decided"),
        ("every above", [B, B], [A], "holds"),
        ("every above", [B, DIVERGED], [A], "does not hold"),
        ("every above", [B, Measured((30, 36))], [A], "not decided"),  # one seed of the second
        ("above", [B], [A, Measured((20, 34))], "not decided"),  # though its mean is low
        ("above", [B, DIVERGED], [A], "holds"),
        ("above", [DIVERGED], [A], "does not hold"),
        ("above", [A], [DIVERGED], "holds"),
        ("above", [DIVERGED], [DIVERGED], "not decided"),
        ("not above", [C], [A], "not contradicted"),
        ("not above", [A], [B], "holds"),
        ("not above", [B], [A], "does not hold"),
        ("not above", [DIVERGED], [A], "holds"),
        ("above", [Measured((40,))], [A], "not decided"),  # one seed
        ("above", [Measured()], [A], "not decided"),  # not run
        ("above", [Measured((40, 41), diverged=1)], [A], "not decided"),
        ("above", [Measured((40, 41), missing=1)], [A], "not decided"),
        ("diverges", [Measured(diverged=1)], [], "not decided"),  # one seed
        ("diverges", [Measured(diverged=2, missing=1)], [], "not decided"),
        ("diverges", [DIVERGED], [], "holds"),
        ("diverges", [A], [], "does not hold"),
        ("diverges", [Measured((40,), diverged=1)], [], "not decided"),
        ("fails", [DIVERGED], [A], "holds"),
        ("fails", [Measured((3, 14))], [A], "holds"),
        ("fails", [Measured((3, 16))], [A], "not decided"),
        ("fails", [Measured((16, 17))], [A], "does not hold"),
        ("fails", [Measured((16,), diverged=1)], [A], "not decided"),
        ("fails", [Measured((3,), diverged=1)], [A], "holds"),
        ("fails", [A], [DIVERGED], "not decided"),
    ],
)
def test_judgement(check, a, b, judgement):
    rows = {f"a{i}": row for i, row in enumerate(a)} | {f"b{i}": row for i, row in enumerate(b)}
    names = [tuple(name for name in rows if name[0] == side) for side in "ab"]
    verdict = judge(Statement("table1b", "it is so", "Sec. 1", check, *names), rows)
    assert verdict.judgement == judgement
    assert verdict.why
