"""A section of the page, and how a figure becomes part of it."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from wherefrom.report.numbers import NumberTable
from wherefrom.report.prose import PROSE, Prose

PIXELS_AN_INCH = 96


@dataclass(frozen=True)
class Picture:
    """One figure of the page."""

    svg: Markup
    caption: str
    width: int
    """In pixels; the page never shows it larger."""


@dataclass(frozen=True)
class Section:
    """Figures and numbers of one question; its words are `PROSE[anchor]`."""

    anchor: str
    pictures: tuple[Picture, ...] = ()
    numbers: NumberTable | None = None
    missing: str | None = None
    """Why there is nothing to show."""

    @property
    def prose(self) -> Prose:
        return PROSE[self.anchor]


def picture(figure: Figure, name: str, caption: str, alt: str) -> Picture:
    """`figure` as SVG that can stand inside a page beside others.

    Args:
        figure: any figure.
        name: unique on the page; stands before every id in the SVG.
        caption: under the figure.
        alt: what the figure shows, for whoever cannot see it.
    """
    width, _ = figure.get_size_inches()
    return Picture(Markup(inline_svg(figure, name, alt)), caption, round(width * PIXELS_AN_INCH))


def inline_svg(figure: Figure, name: str, alt: str) -> str:
    """The same figure gives the same text: no date, ids from a fixed salt."""
    buffer = io.StringIO()
    # text as paths: the same picture on every machine, whatever fonts it has
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "wherefrom", "path.simplify": True}):
        FigureCanvasSVG(figure)
        if layout := figure.get_layout_engine():
            layout.execute(figure)  # here, for `savefig` would draw the whole figure once more to do it
            figure.set_layout_engine(None)
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=metadata)  # pyrefly: ignore
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"\n\s*", "\n", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", text)
    viewbox = re.search(r'viewBox="[^"]*"', text)
    assert viewbox is not None
    opening = f'<svg role="img" aria-label="{escape(alt)}" {viewbox[0]}>'
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)
