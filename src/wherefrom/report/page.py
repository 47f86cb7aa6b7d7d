"""The page itself: everything in one file, nothing loaded from anywhere."""

from __future__ import annotations

from pathlib import Path

import jinja2

from wherefrom import __version__
from wherefrom.report import (
    attention,
    gradients,
    heads,
    methods,
    position,
    routes,
    settings,
    training,
    unscrambling,
    verdicts,
)
from wherefrom.report.material import Material
from wherefrom.store import StudyDirectory
from wherefrom.store.files import write_bytes

SECTIONS = (
    training.images,
    position.tiles,
    position.layouts,
    position.over_training,
    unscrambling.put_together,
    routes.ledger,
    routes.cuts,
    attention.distance,
    gradients.relations,
    attention.alignment,
    heads.gallery,
    heads.divergence,
    heads.roles,
    heads.pruning,
    settings.head_counts,
    training.curves,
)


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
    return write_page(Material(study), path)


def write_page(material: Material, path: Path) -> Path:
    """Write the page that is made of `material`."""
    write_bytes(path, render(material).encode())
    return path


def render(material: Material) -> str:
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
        verdicts=verdicts.rows(material),
        sections=[*(section(material) for section in SECTIONS), *settings.sections(material)],
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
