"""The page itself: everything in one file, nothing loaded from anywhere."""

from __future__ import annotations

from pathlib import Path

import jinja2

from wherefrom import __version__
from wherefrom.report import methods, verdicts
from wherefrom.report.drawing import Drawing
from wherefrom.report.material import Material
from wherefrom.report.section import Section
from wherefrom.store import StudyDirectory
from wherefrom.store.files import write_bytes


def write_report(study_path: str | Path, out: str | Path | None = None) -> Path:
    """Write one self-contained HTML page about a study; it opens offline and in any browser.

    Args:
        study_path: a study directory; what is not there yet is said to be missing.
        out: file to write; None writes `report.html` into the study.

    Returns:
        The file written. The same study gives the same bytes.

    Raises:
        ValueError: if there is no study, or `out` is a folder.
    """
    study = StudyDirectory.open(study_path)
    path = Path(out) if out is not None else study.report_path
    if path.is_dir():
        raise ValueError(f"expected a file name for the report; found the folder {path}; add a name, as report.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    with Drawing(study) as drawing:
        return write_page(Material(study), path, drawing)


def write_page(material: Material, path: Path, drawing: Drawing) -> Path:
    """Write the page that is made of `material`, with the sections of `drawing`."""
    write_bytes(path, render(material, drawing.finish(material)).encode())
    return path


def render(material: Material, sections: list[Section]) -> str:
    """The page as text."""
    loader = jinja2.PackageLoader("wherefrom.report", "templates")
    templates = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_unbroken,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("report.html").render(
        data=str(material.settings["train"].get("data", "")),
        depth=material.settings["train"].get("model", {}).get("depth"),
        num_heads=material.num_heads,
        grid=material.grid,
        num_runs=len(material.study.run_keys()),
        num_finished=len(material.finished),
        premise=verdicts.opening(material),
        verdicts=verdicts.rows(material),
        sections=sections,
        runs=methods.run_rows(material),
        settings=methods.settings(material),
        environment=methods.environment(material),
        command=methods.command(material),
        measures=methods.measures(material),
        version=__version__,
    )


def _unbroken(value):
    """No line ends between a number and its percent sign."""
    return value.replace(" %", "\N{NO-BREAK SPACE}%") if isinstance(value, str) else value
