"""One self-contained HTML page about a study. Reads run directories, never torch."""

from wherefrom.report.page import write_report

__all__ = ["write_report"]
