"""The second process of `drawing`: it is asked for the section at a place of the page of a study."""

from __future__ import annotations

import gc
from functools import lru_cache
from pathlib import Path

from wherefrom.process import answer
from wherefrom.report.drawing import sections
from wherefrom.report.material import Material
from wherefrom.report.section import Section
from wherefrom.store import StudyDirectory


def section(asked: tuple[Path, int]) -> Section:
    path, place = asked
    material = _material(path)
    return sections(material.study)[place](material)


@lru_cache(maxsize=1)
def _material(path: Path) -> Material:
    return Material(StudyDirectory.open(path))


if __name__ == "__main__":
    gc.freeze()  # what is loaded by now stays
    answer(section)
