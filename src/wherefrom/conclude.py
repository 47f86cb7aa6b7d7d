"""What is concluded of the finished runs of a study: verdicts and the page."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from wherefrom.claims import Verdict, judge
from wherefrom.heads import matching_as_dict
from wherefrom.process import Helper
from wherefrom.report import Drawing, Material, write_page
from wherefrom.store import StudyDirectory


def conclude(study: StudyDirectory, second: Helper) -> list[Verdict]:
    """Judge the claims from the finished runs and write verdicts and report, which `second` helps to draw."""
    with _frozen(), Drawing(study, second) as drawing:
        material = Material(study)
        verdicts = judge(
            material.everything,
            num_heads=study.num_heads,
            num_tokens=material.grid.num_tokens if material.grid else None,
            beside={"C4": {"seed_matching": matching_as_dict(material.matching)}},
        )
        study.write_verdicts([verdict.to_dict() for verdict in verdicts])
        write_page(material, study.report_path, drawing)
    return verdicts


@contextlib.contextmanager
def _frozen() -> Iterator[None]:
    """Rows and figures are many objects; the search for garbage among them leaves out what was there before."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
