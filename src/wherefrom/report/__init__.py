"""One self-contained HTML page about a study. Reads run directories, never torch."""

from wherefrom.report.drawing import Drawing
from wherefrom.report.material import Material
from wherefrom.report.page import write_page, write_report

__all__ = ["Drawing", "Material", "write_page", "write_report"]
