"""``fldet report`` as a function."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fldet.files import write_atomically
from fldet.report.content import Report, report_of
from fldet.report.page import render
from fldet.report.record import read_run


@dataclass(frozen=True)
class WrittenReport:
    """A page that was written.

    Attributes:
        page: the file.
        content: what it shows; ``facts`` of the run, figures, curves, images, and ``gaps``.
    """

    page: Path
    content: Report


def write_report(
    work_dir: Path,
    *,
    config: str | None = None,
    out: Path | None = None,
    images: int = 60,
    score_thr: float = 0.3,
    thresholds: Path | None = None,
    overrides: Sequence[str] = (),
) -> WrittenReport:
    """Writes one HTML page of a run: figures, curves, mistakes, and images to filter.

    Args:
        work_dir: of ``fldet train``, with the folder ``test`` of ``fldet test`` in it; or that of
            a test alone.
        config: that of the run is compared with it; by default fldet's own of the same name.
        out: the page; None is ``report.html`` in ``work_dir``.
        images: in the gallery: the worst, and as many at random.
        score_thr: lowest score of confusions; the gallery's first.
        thresholds: of ``fldet analyze thresholds``, to be shown; by default ``thresholds.json`` in
            ``work_dir`` or in its folder ``thresholds``, if it is there.
        overrides: of the config of the test, as ``load_config`` takes them: ``data_root=FOLDER``.

    Raises:
        DataError: there is no such folder, or it has neither a training nor a test.
        ConfigError: ``config`` cannot be loaded.
    """
    record = read_run(work_dir, base=config, overrides=overrides)
    content = report_of(
        record, work_dir, num_images=images, score_thr=score_thr, thresholds=thresholds
    )
    page = write_atomically(out or work_dir / "report.html", render(content))
    return WrittenReport(page, content)
