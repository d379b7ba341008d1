"""Times as files: JSON, and pictures with the same JSON beside them."""

from pathlib import Path

from fldet.benchmark.pictures import plot_stages, plot_table
from fldet.benchmark.results import EngineTable, SpeedResult, SpeedsSideBySide, SpeedTable
from fldet.files import write_atomically
from fldet.results import to_json


def write_speed(
    result: SpeedResult | SpeedTable | SpeedsSideBySide | EngineTable,
    name: str,
    *,
    out: Path | None = None,
    out_dir: Path | None = None,
) -> list[Path]:
    """Writes a result as JSON to ``out``, and pictures with JSON beside into ``out_dir``.

    A result without stages, or a table in which every cell failed, has no picture. ``name`` is that
    of the model, for the pictures and their names.
    """
    is_step = isinstance(result, SpeedResult) and result.training
    stem = out_dir / f"speed_{name}{'_train' * is_step}" if out_dir else None
    beside = stem.with_name(f"{stem.name}.json") if stem else None
    content = to_json(result.command, result)
    written = [write_atomically(path, content) for path in (out, beside) if path]
    if stem and isinstance(result, SpeedTable):
        if any(cell.result for cell in result.cells):
            written += plot_table(result, stem)
    elif stem and isinstance(result, SpeedResult) and result.stages_ms:
        written += plot_stages(result, stem, title=name)
    return written
