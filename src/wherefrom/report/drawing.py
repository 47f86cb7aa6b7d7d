"""The sections of a page, drawn by two processes: a second one takes them from the front, this one from the back.

Each section is a function of the study alone, and the same wherever it is drawn.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from wherefrom.process import Helper
from wherefrom.report import (
    attention,
    contents,
    divergence,
    gradients,
    heads,
    position,
    routes,
    scores,
    settings,
    training,
    unscrambling,
)
from wherefrom.report import use as premise
from wherefrom.report.material import Material
from wherefrom.report.section import Section
from wherefrom.store import StudyDirectory

SECTIONS: tuple[Callable[[Material], Section], ...] = (
    premise.use,
    training.images,
    position.tiles,
    position.layouts,
    position.over_training,
    unscrambling.put_together,
    routes.ledger,
    routes.cuts,
    contents.contents,
    attention.distance,
    gradients.relations,
    scores.account,
    attention.alignment,
    heads.gallery,
    divergence.divergence,
    heads.roles,
    heads.pruning,
    settings.head_counts,
    training.curves,
)
MANY = 200
"""Runs from which on one process draws alone: each holds the table of all runs, which is some GB for 1,000."""


def sections(study: StudyDirectory) -> list[Callable[[Material], Section]]:
    """What draws each section of the page, in its order."""
    others = [name for name in study.varied() if name != settings.HEADS]
    return [*SECTIONS, *(partial(settings.section, name=name) for name in others)]


class Drawing:
    """All sections of the page of a study whose runs have ended. The second process is for speed alone.

    Args:
        study: the study.
        second: the second process, where it was started already. At the end of the scope it is gone.
    """

    def __init__(self, study: StudyDirectory, second: Helper | None = None):
        self._study = study
        self._sections = sections(study)
        self._left = deque(range(len(self._sections)))
        self._drawn: dict[int, Section] = {}
        self._second = second or Helper("wherefrom.report.second")
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Drawing:
        if len(self._study.run_keys()) < MANY and self._second.start():
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        with self._second:
            pass
        if self._thread.ident:
            self._thread.join()

    def finish(self, material: Material) -> list[Section]:
        """The sections in their order; `material` is that of the same study."""
        self._draw(material)
        if self._thread.ident:
            self._thread.join()
        self._draw(material)  # what the second process could not
        return [self._drawn[place] for place in range(len(self._sections))]

    def _draw(self, material: Material) -> None:
        while (place := _next(self._left.pop)) is not None:
            self._drawn[place] = self._sections[place](material)

    def _ask(self) -> None:
        """Have sections drawn from the front until none is left, or no answer comes."""
        while (place := _next(self._left.popleft)) is not None:
            try:
                self._drawn[place] = self._second.ask((self._study.path, place))
            except EOFError:
                self._left.appendleft(place)
                return


def _next(take: Callable[[], int]) -> int | None:
    try:
        return take()
    except IndexError:
        return None
