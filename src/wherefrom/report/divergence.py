"""The section on when the heads of a layer come apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.content import of_content
from wherefrom.figures.contents import contents_of
from wherefrom.figures.style import Share, legend_above, panels
from wherefrom.figures.use import CONTENT_TITLES
from wherefrom.heads import onsets_by_seed
from wherefrom.onset import Onset
from wherefrom.report.contents import both_contents
from wherefrom.report.material import Material, by_arm, first_step, last_step
from wherefrom.report.numbers import Line, NumberTable, number_table
from wherefrom.report.section import Picture, Section, picture
from wherefrom.report.words import count

DIVERGENCES = {
    "row_divergence": ("in which patches they look at", "nats"),
    "head_divergence_attn": ("in how far and which way they look", "nats"),
    "head_divergence_pressure": ("in what their gradients ask for", "1 − correlation"),
}
COMPARED = ("natural", "scrambled")


def divergence(material: Material) -> Section:
    """Divergence of attention and of gradients over steps, onsets marked."""
    table = both_contents(material, list(DIVERGENCES), split="probe")
    table = table[table["value"].notna() & table["arm"].isin(COMPARED)]
    found = [measure for measure in DIVERGENCES if len(of_content(table[table["measure"] == measure]))]
    if not found:
        missing = "A layer with one head has no other head to differ from, or no divergence was recorded."
        return Section("divergence", missing=material.nothing_finished or missing)
    of_rows = [("row_divergence", content) for content in contents_of(table[table["measure"] == "row_divergence"])]
    others = [(measure, "natural") for measure in found if measure != "row_divergence"]
    drawn = tuple(_picture(table, shown) for shown in (of_rows, others) if shown)
    return Section("divergence", drawn, _numbers(table))


def _picture(table: pd.DataFrame, shown: list[tuple[str, str]]) -> Picture:
    """A panel for each measure and content."""
    figure, width = Figure(), 9 if len(shown) > 1 else 5
    share: tuple[Share, Share] = ("none", "row" if shown[0][0] == "row_divergence" else "none")
    axes = panels(1, len(shown), 3.1, figure, width=width, share=share, legend=True)[0]
    for ax, (measure, content) in zip(axes, shown, strict=True):
        what = CONTENT_TITLES[content] if measure == "row_divergence" else f"heads differ {DIVERGENCES[measure][0]}"
        found = onsets_by_seed(_natural(table, measure, content))
        figures.divergence_over_steps(table, measure, ax, content=content, onsets=found, title=what, legend=False)
        ax.set_ylabel(ax.get_ylabel() if ax is axes[0] or share[1] == "none" else "")
    legend_above(figure, axes)
    alt = "Line charts over training steps, a thin line for each run, a thick one for the mean of each arm."
    return picture(figure, f"divergence-{shown[0][0]}", _caption(shown), alt)


def _caption(shown: list[tuple[str, str]]) -> str:
    which = " in which patches they look at, query by query" if shown[0][0] == "row_divergence" else ""
    onsets = "Triangles: onset in a natural run, 95 % interval."
    return f"Divergence of the heads of a layer{which}, mean over layers. {onsets}"


def _natural(table: pd.DataFrame, measure: str, content: str) -> pd.DataFrame:
    """Rows of a measure in the natural arm."""
    return of_content(table[(table["measure"] == measure) & (table["arm"] == "natural")], content)


def _numbers(table: pd.DataFrame) -> NumberTable:
    lines, notes = [], []
    for measure, (what, unit) in DIVERGENCES.items():
        own = table[table["measure"] == measure]
        contents = contents_of(own)
        for content in contents:
            rows, of = of_content(own, content), f", {CONTENT_TITLES[content]}" * (len(contents) > 1)
            lines.append(Line(f"Heads differ {what}{of}, before training", unit, by_arm(first_step(rows)), measure))
            lines.append(Line("the same after training", unit, by_arm(last_step(rows)), measure))
            notes.append(_onset_sentence(f"{what}{of}", onsets_by_seed(_natural(table, measure, content))))
    return number_table(lines, *notes)


def _onset_sentence(what: str, found: dict[int, Onset]) -> str:
    sure = [one for one in found.values() if not np.isnan(one.step)]
    when = ", ".join(f"step {one.step:.0f} [{one.low:.0f}, {one.high:.0f}]" for one in sure)
    return (
        f"Heads began to differ {what} in {len(sure)} of {count(len(found), 'natural run')}{': ' * bool(sure)}{when}."
    )
