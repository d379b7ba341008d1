"""The runs that tables need: one for each row and seed, each in a folder of its own.

Rows whose configs are equal share their runs: the focal loss with gamma 2 is a row of four tables.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from fldet.config.load import find_config, load_config
from fldet.errors import DataError, UsageError, nearest
from fldet.paper.asked import asked_for
from fldet.paper.rows import Row, Table, find_table, read_tables
from fldet.paper.tiers import Tier, find_tier
from fldet.runs.outcome import RESULT
from fldet.runs.run import BENCHMARK, TIMING, Run, Step, digest, read_record

ALPHAS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)  # of Table 1a

_SEARCHED = "table1b"
_TIMED = "table1e"
_SYSTEMS = "systems"


@dataclass(frozen=True)
class RunOptions:
    """What all runs are told."""

    train: tuple[str, ...] = ()  # further arguments of ``fldet train``
    test: tuple[str, ...] = ()  # further arguments of ``fldet test``
    timing: tuple[str, ...] = ()  # further arguments of ``fldet benchmark``
    cfg: tuple[str, ...] = ()  # overrides of all configs
    gpus: int | None = 1  # processes of each training; None where it is not known


def tables_of(names: Sequence[str], tier: Tier) -> list[Table]:
    """Returns the tables of these names; all that the tier can run if there are none.

    Raises:
        UsageError: an unknown table, or one that the tier cannot run.
    """
    if not names:
        return [table for table in read_tables() if not _why_not(table, tier)]
    tables = [find_table(name) for name in names]
    for table in tables:
        if why := _why_not(table, tier):
            raise UsageError(
                f"{table.name} is not for the tier {tier.name}: it {why}",
                expected=f"another table, or --tier {' or '.join(table.tiers)}",
            )
    return tables


def _why_not(table: Table, tier: Tier) -> str:
    """Returns why a tier cannot run a table, "" if it can."""
    name = "full" if tier.is_paper else tier.name
    return table.why if table.tiers and name not in table.tiers else ""


def config_of(row: Row, tier: Tier) -> Path:
    """Returns the file that a row is in a tier, relative to the repository."""
    return row.small if row.small and not tier.is_paper else row.config


def plan(
    tables: Sequence[Table],
    tier: Tier,
    work_dir: Path,
    *,
    seeds: Sequence[int],
    rows: Sequence[str] = (),
    search_alpha: bool = False,
    options: RunOptions | None = None,
) -> list[Run]:
    """Returns the runs of tables, seed by seed, after writing their configs.

    ``rows`` are names in the paper or of configs; none means all. ``search_alpha`` runs the rows of
    Table 1b with every alpha of Table 1a as well. ``work_dir`` is the folder of all tiers.

    Raises:
        UsageError: a row that none of the tables has.
    """
    chosen = _chosen_rows(tables, rows)
    folder = work_dir / tier.name
    options = options or RunOptions()
    first = _first_of_equals(tier)
    runs: dict[Path, Run] = {}
    for seed in seeds:
        for table, row in chosen:
            alphas = ALPHAS if search_alpha and table.name == _SEARCHED else ()
            for alpha in (None, *alphas):
                run = _run(table, row, alpha, seed, tier, folder, first, options)
                known = runs.get(run.folder)
                if known:  # a row of another table, which may want more steps
                    names = dict.fromkeys((*known.rows, *run.rows))
                    steps = dict.fromkeys((*known.steps, *run.steps))
                    run = dataclasses.replace(known, rows=tuple(names), steps=tuple(steps))
                runs[run.folder] = run
    return list(runs.values())


def _chosen_rows(tables: Sequence[Table], names: Sequence[str]) -> list[tuple[Table, Row]]:
    pairs = [(table, row) for table in tables for row in table.rows]
    if not names:
        return pairs
    known = {name for _, row in pairs for name in (row.name, row.config.stem)}
    for name in names:
        if name not in known:
            raise UsageError(
                f"no row {name!r} in {', '.join(table.name for table in tables)}",
                expected=nearest(name, known) or f"one of: {'; '.join(r.name for _, r in pairs)}",
                hint="fldet paper list",
            )
    return [(t, row) for t, row in pairs if {row.name, row.config.stem} & set(names)]


def _run(
    table: Table,
    row: Row,
    alpha: float | None,
    seed: int,
    tier: Tier,
    folder: Path,
    first: dict[str, Path],
    options: RunOptions,
) -> Run:
    label = f"{table.name} {row.name}" + ("" if alpha is None else f" with alpha {alpha:g}")
    if table.name == _TIMED and not tier.is_paper:
        return _timing(row, label, seed, folder, options)
    source = config_of(row, tier)
    config = tier.write(source, folder / "configs", alpha=alpha)
    if equal := first.get(_resolve(tier, source, alpha).digest):
        config = tier.write(equal, folder / "configs")
    work_dir = folder / config.stem / f"seed_{seed}"
    steps = _training(config, work_dir, seed, options)
    if table.name in (_TIMED, _SYSTEMS):
        steps.append(_benchmark(config, True, (), options))
    resolved = _resolve(tier, source, alpha, options.cfg)
    return Run(
        rows=(label,),
        seed=seed,
        config=config,
        folder=work_dir,
        digest=resolved.digest,
        steps=tuple(steps),
        cfg_options=options.cfg,
        images=options.gpus and options.gpus * resolved.batch_size,
    )


def _training(config: Path, work_dir: Path, seed: int, options: RunOptions) -> list[Step]:
    cfg = ("--cfg-options", *options.cfg) if options.cfg else ()
    place = ("--work-dir", str(work_dir), "--seed", str(seed), "--resume")
    return [
        Step("train", ("train", str(config), *place, *options.train, *cfg)),
        Step(
            "test",
            ("test", str(config), *options.test, "--work-dir", str(work_dir / "test"), *cfg),
            trained=True,
            makes=str(RESULT),
        ),
    ]


def _timing(row: Row, label: str, seed: int, folder: Path, options: RunOptions) -> Run:
    """Returns the run of a row of Table 1e in a tier that replaces depth and scale.

    The row's own model with random weights is timed, on an image of the usual 4:3.
    """
    config = find_config(f"fldet::{row.config.relative_to('configs').as_posix()}")
    cfg = load_config(config)
    side = min(cfg.val_dataloader.dataset.pipeline[1].scale)
    step = _benchmark(config, False, ("--shape", f"{side}x{round(side * 4 / 3)}"), options)
    work_dir = folder / row.config.stem / f"seed_{seed}"
    digest = _resolve(find_tier("full"), row.config).digest
    return Run((label,), seed, config, work_dir, digest, (step,))


def _benchmark(config: Path, trained: bool, shape: tuple[str, ...], options: RunOptions) -> Step:
    cfg = ("--cfg-options", *options.cfg) if options.cfg and trained else ()
    arguments = ("benchmark", str(config), *shape, *options.timing, "--json", *cfg)
    return Step(TIMING, arguments, trained=trained, makes=BENCHMARK, prints=True)


def _first_of_equals(tier: Tier) -> dict[str, Path]:
    """Returns which row's config stands for all that are equal, by their digest.

    It is the first in the paper's order, whatever tables are asked for now, and whatever overrides
    all of them have.
    """
    first: dict[str, Path] = {}
    for table in tables_of((), tier):
        for row in table.rows:
            if table.name != _TIMED or tier.is_paper:
                source = config_of(row, tier)
                first.setdefault(_resolve(tier, source).digest, source)
    return first


@dataclass(frozen=True)
class _Resolved:
    """What matters of a resolved config: a digest of all of it, and the images of one process."""

    digest: str
    batch_size: int


@cache
def _resolve(
    tier: Tier, row: Path, alpha: float | None = None, cfg_options: tuple[str, ...] = ()
) -> _Resolved:
    with TemporaryDirectory() as folder:
        cfg = load_config(tier.write(row, Path(folder), alpha=alpha), cfg_options)
    return _Resolved(digest(cfg), cfg.train_dataloader.batch_size)


def runs_in(work_dir: Path, tier: Tier) -> dict[str, dict[str, list[Run]]]:
    """Returns the runs that were asked for, done or not, by table and by row.

    A row of the search for alpha is ``ROW with alpha ALPHA``.

    Raises:
        DataError: they were begun with different overrides or numbers of images a step.
    """
    folder = work_dir / tier.name
    asked = asked_for(folder)
    names = set().union(*asked.values())
    trained = [r for name in names if (r := read_record(folder / name)).images is not None]
    options = {record.cfg_options for record in trained}
    for what, values in (
        ("--cfg-options", options),
        ("numbers of images a step", {record.images for record in trained}),
    ):
        if len(values) > 1:
            raise DataError(
                f"the runs in {folder} have different {what}: {', '.join(map(str, values))}",
                expected="the same for all rows that are compared",
                hint="remove those of one kind, and give each kind a --work-dir of its own",
            )
    planned = plan(
        tables_of((), tier),
        tier,
        work_dir,
        seeds=sorted({int(name.rpartition("seed_")[2]) for name in names}),
        search_alpha=any("-alpha-" in name for name in names),
        options=RunOptions(cfg=next(iter(options), ()), gpus=None),
    )
    found: dict[str, dict[str, list[Run]]] = {}
    for run in planned:
        for table, row in (label.split(" ", 1) for label in run.rows):
            if run.name in asked.get(table, ()):
                found.setdefault(table, {}).setdefault(row, []).append(run)
    return found
