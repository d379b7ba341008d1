"""The runs that a table needs: one for each row and seed, each in a folder of its own.

``WORK_DIR/TIER/ROW/seed_N/`` holds what ``fldet train`` and ``fldet test`` leave, ``log.txt`` with
what they said, and ``run.json`` with how far the run is. Rows whose configs are equal share their
runs: the focal loss with gamma 2 is a row of four tables.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from mmengine.config import Config

from fldet.config.load import find_config, load_config, to_plain
from fldet.errors import DataError, UsageError, nearest
from fldet.files import write_atomically
from fldet.paper.rows import RESULT, Row, Table, find_table, read_outcome, read_tables
from fldet.paper.tiers import Tier, find_tier
from fldet.results import to_jsonable

__all__ = [
    "ALPHAS",
    "Record",
    "Run",
    "Step",
    "ask_for",
    "asked_for",
    "check_digest",
    "digest_of",
    "plan",
    "read_record",
    "result_of",
    "runs_in",
    "tables_of",
]

ALPHAS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)  # of Table 1a

BENCHMARK = "benchmark.json"
LOG = "log.txt"
ASKED = "asked.json"

_SEARCHED = "table1b"
_TIMED = "table1e"
_MAIN = "table2"

State = Literal["waiting", "done", "diverged", "failed"]


@dataclass(frozen=True)
class Step:
    """One command of a run.

    Attributes:
        name: ``train``, ``test`` or ``timing``.
        arguments: of ``fldet``; for ``test`` and ``timing`` the checkpoint follows the config
            where ``trained``.
        trained: whether the command needs the last checkpoint of the run's folder.
        makes: what the command leaves in the run's folder, "" where that is not one file.
        prints: the command prints that file on stdout.
    """

    name: str
    arguments: tuple[str, ...]
    trained: bool = False
    makes: str = ""
    prints: bool = False


@dataclass(frozen=True)
class Run:
    """A row with one seed.

    Attributes:
        rows: what it is a row of, as ``table1b 2/.25``; several where configs are equal.
        seed: of all random numbers.
        config: the file.
        folder: the work dir.
        digest: of the resolved config; another one means another experiment.
        steps: the commands, in order.
        cfg_options: overrides of the config.
        images: in a step of the training, by all processes; None for a timing, or where unknown.
    """

    rows: tuple[str, ...]
    seed: int
    config: Path
    folder: Path
    digest: str
    steps: tuple[Step, ...]
    cfg_options: tuple[str, ...] = ()
    images: int | None = None

    @property
    def is_timing(self) -> bool:
        """Whether nothing is trained: a row of Table 1e in a tier that replaces depth and scale."""
        return all(step.name == "timing" for step in self.steps)

    @property
    def name(self) -> str:
        """The row's and the seed's part of the folder, ``fl_gamma_2/seed_0``."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def log(self) -> Path:
        """What the commands said."""
        return self.folder / LOG

    def next_step(self, record: "Record") -> Step | None:
        """Returns the first step that is not done, or whose file is gone; None if all are."""
        for step in self.steps:
            if step.name not in record.steps or not (self.folder / step.makes).exists():
                return step
        return None


@dataclass(frozen=True)
class Record:
    """What ``run.json`` says about a run.

    Attributes:
        state: ``waiting`` until it has ended in one of the other ways.
        digest: of the config that it was begun with.
        cfg_options: the overrides among it.
        steps: names of the commands that are done.
        seconds: wall time by step, over all attempts, without pauses of the runner, to within some
            seconds where one was killed.
        reason: of a run that failed or diverged, one line.
        machines: processor, versions, device, processes and threads of all attempts, each once.
        images: in a step of the training, None for a timing.
    """

    state: State = "waiting"
    digest: str = ""
    cfg_options: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    reason: str = ""
    machines: tuple[dict[str, str], ...] = ()
    images: int | None = None

    def write(self, folder: Path) -> None:
        """Writes it into the folder of its run."""
        write_atomically(folder / "run.json", json.dumps(to_jsonable(self), indent=1))


def read_record(folder: Path) -> Record:
    """Returns what is known about the run in a folder; a new record if it was never begun.

    Raises:
        DataError: the file is none of ours.
    """
    path = folder / "run.json"
    if not path.is_file():
        return Record()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: tuple(content[name]) for name in ("steps", "cfg_options", "machines")}
        return Record(**{**content, **lists})
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} is no record of fldet paper run: {error!r}",
            hint=f"run the row anew: rm -r {folder}",
        ) from error


def ask_for(runs: Sequence[Run], folder: Path) -> None:
    """Adds runs to the list of those that were asked for, and for which tables.

    A run that several tables share counts for those that it was asked for only, so that all rows
    of a table have the same seeds.

    Args:
        runs: from ``plan``.
        folder: of the tier.

    Raises:
        DataError: as ``asked_for``.
    """
    asked = asked_for(folder)
    for run in runs:
        for label in run.rows:
            asked.setdefault(label.split()[0], set()).add(run.name)
    content = {table: sorted(names) for table, names in sorted(asked.items())}
    write_atomically(folder / ASKED, json.dumps(content, indent=1))


def asked_for(folder: Path) -> dict[str, set[str]]:
    """Returns the names of the runs that were asked for by table.

    Raises:
        DataError: the list cannot be read.
    """
    path = folder / ASKED
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {table: set(names) for table, names in content.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no list of fldet paper run: {error!r}", hint=f"remove {path}, and run again"
        ) from error


def tables_of(names: Sequence[str], tier: Tier) -> list[Table]:
    """Returns the tables of these names; all that the tier can run if there are none.

    Raises:
        UsageError: an unknown table, or one that the tier cannot run.
    """
    if names:
        tables = [find_table(name) for name in names]
    else:
        tables = [table for table in read_tables() if table.name != _MAIN or tier.is_paper]
    for table in tables:
        if table.name == _MAIN and not tier.is_paper:
            raise UsageError(
                f"{_MAIN} varies backbone and schedule, which the tier {tier.name} replaces",
                expected="another table, or --tier full",
            )
    return tables


def plan(
    tables: Sequence[Table],
    tier: Tier,
    work_dir: Path,
    *,
    seeds: Sequence[int],
    rows: Sequence[str] = (),
    search_alpha: bool = False,
    train_options: Sequence[str] = (),
    test_options: Sequence[str] = (),
    timing_options: Sequence[str] = (),
    cfg_options: Sequence[str] = (),
    gpus: int | None = 1,
) -> list[Run]:
    """Returns the runs of tables, seed by seed, after writing their configs.

    Args:
        tables: from ``tables_of``.
        tier: what replaces the data, size and schedule.
        work_dir: folder of all tiers.
        seeds: each row is run with each of them.
        rows: only these, by the paper's names or the names of their configs.
        search_alpha: run the rows of Table 1b with every alpha of Table 1a as well.
        train_options: further arguments of ``fldet train``.
        test_options: further arguments of ``fldet test``.
        timing_options: further arguments of ``fldet benchmark``.
        cfg_options: overrides of all configs.
        gpus: processes of each training; None where it is not known.

    Raises:
        UsageError: a row that none of the tables has.
    """
    chosen = _chosen_rows(tables, rows)
    folder = work_dir / tier.name
    options = _Options(
        tuple(train_options), tuple(test_options), tuple(timing_options), tuple(cfg_options), gpus
    )
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


@dataclass(frozen=True)
class _Options:
    train: tuple[str, ...]
    test: tuple[str, ...]
    timing: tuple[str, ...]
    cfg: tuple[str, ...]
    gpus: int | None


def _chosen_rows(tables: Sequence[Table], names: Sequence[str]) -> list[tuple[Table, Row]]:
    pairs = [(table, row) for table in tables for row in table.rows]
    if not names:
        return pairs
    known = {name for _, row in pairs for name in (row.name, row.config.stem)}
    for name in names:
        if name not in known:
            raise UsageError(
                f"no row {name!r} in {', '.join(table.name for table in tables)}",
                expected=nearest(name, known) or f"one of: {', '.join(r.name for _, r in pairs)}",
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
    first: dict[str, str],
    options: _Options,
) -> Run:
    label = f"{table.name} {row.name}" + ("" if alpha is None else f" with alpha {alpha:g}")
    if table.name == _TIMED and not tier.is_paper:
        return _timing(row, label, seed, folder, options)
    config = tier.write(row.config, folder / "configs", alpha=alpha)
    name = first.get(_resolve(tier, row.config, alpha).digest, config.stem)
    if name != config.stem:
        config = tier.write(_config_of(name), folder / "configs")
    work_dir = folder / name / f"seed_{seed}"
    steps = _training(config, work_dir, seed, options)
    if table.name == _TIMED:
        steps.append(_benchmark(config, True, (), options))
    resolved = _resolve(tier, row.config, alpha, options.cfg)
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


def _training(config: Path, work_dir: Path, seed: int, options: _Options) -> list[Step]:
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


def _timing(row: Row, label: str, seed: int, folder: Path, options: _Options) -> Run:
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


def _benchmark(config: Path, trained: bool, shape: tuple[str, ...], options: _Options) -> Step:
    cfg = ("--cfg-options", *options.cfg) if options.cfg and trained else ()
    arguments = ("benchmark", str(config), *shape, *options.timing, "--json", *cfg)
    return Step("timing", arguments, trained=trained, makes=BENCHMARK, prints=True)


def _first_of_equals(tier: Tier) -> dict[str, str]:
    """Returns which row's name the runs of a config have, by the digest of the config.

    It is the first in the paper's order, whatever tables are asked for now, and whatever overrides
    all of them have.
    """
    first: dict[str, str] = {}
    for table in tables_of((), tier):
        for row in table.rows:
            if table.name != _TIMED or tier.is_paper:
                first.setdefault(_resolve(tier, row.config).digest, row.config.stem)
    return first


def _config_of(stem: str) -> Path:
    rows = (row.config for table in read_tables() for row in table.rows)
    return next(config for config in rows if config.stem == stem)


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
    return _Resolved(_digest(cfg), cfg.train_dataloader.batch_size)


def digest_of(run: Run) -> str:
    """Returns the digest of a run's config as its files are now.

    Raises:
        ConfigError: it cannot be loaded.
    """
    return _digest(load_config(run.config, run.cfg_options))


def _digest(cfg: Config) -> str:
    text = json.dumps(to_plain(cfg), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
        cfg_options=next(iter(options), ()),
        gpus=None,
    )
    found: dict[str, dict[str, list[Run]]] = {}
    for run in planned:
        for table, row in (label.split(" ", 1) for label in run.rows):
            if run.name in asked.get(table, ()):
                found.setdefault(table, {}).setdefault(row, []).append(run)
    return found


def check_digest(run: Run, record: Record) -> None:
    """Checks that a run was begun with its config as it is now, and as many images a step.

    Raises:
        UsageError: it was not.
    """
    hint = f"choose another --work-dir, or remove it: rm -r {run.folder}"
    if record.digest not in ("", run.digest):
        raise UsageError(
            f"{run.folder} was begun with another config than {run.config} is now",
            expected="the same row, tier and --cfg-options",
            hint=hint,
        )
    if record.digest and run.images and record.images != run.images:
        raise UsageError(
            f"{run.folder} was begun with {record.images} images a step, not {run.images}",
            expected="the same --gpus",
            hint=hint,
        )


def result_of(run: Run) -> dict[str, Any]:
    """Returns what was measured: the test's figures in percent, and ``ms`` of a timing.

    Raises:
        DataError: a file cannot be read.
    """
    found: dict[str, Any] = {}
    if (run.folder / RESULT).is_file():
        found |= read_outcome(run.folder / RESULT).figures
    path = run.folder / BENCHMARK
    if path.is_file():
        try:
            found["ms"] = float(json.loads(path.read_text())["result"]["median_ms"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no output of fldet benchmark: {error!r}") from error
    return found
