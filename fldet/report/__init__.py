"""One page of a run."""

from fldet.report.write import WrittenReport, write_report

__all__ = ["WrittenReport", "write_report"]
