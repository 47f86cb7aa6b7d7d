"""Sections on attention: distance of each head, alignment of queries and keys."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.content import of_content
from wherefrom.figures.contents import contents_of
from wherefrom.figures.style import legend_above, panels
from wherefrom.figures.use import CONTENT_TITLES
from wherefrom.report.contents import both_contents
from wherefrom.report.material import ARMS, Material, by_arm, first_step, last_step
from wherefrom.report.numbers import Line, NumberTable, number_table
from wherefrom.report.section import Section, picture
from wherefrom.report.words import listed, number


def distance(material: Material) -> Section:
    """Attention distance of each head in each layer, on both contents."""
    table = both_contents(material, "attention_distance", split="probe")
    arms = [arm for arm in ARMS if table.loc[table["arm"] == arm, "value"].notna().any()]
    if not arms:
        return Section("distance", missing=material.nothing_finished or "No attention distance was recorded.")
    uniform = material.grid.mean_distance if material.grid else None
    caption = "Attention distance by layer, after Fig. 7 (right) of Dosovitskiy et al. 2020."
    alt = f"Dots by layer, heads before and after training, a panel for each arm ({listed(arms)}) and content."
    drawn = picture(_distance_figure(table, arms, uniform), "distance", caption, alt)
    return Section("distance", (drawn,), _distance_numbers(table, uniform))


def _distance_figure(table: pd.DataFrame, arms: list[str], uniform: float | None) -> Figure:
    figure = Figure()
    width, shown = (9 if len(arms) > 1 else 5), contents_of(table)
    axes = panels(len(shown), len(arms), 2.8, figure, width=width, share=("none", "all"), legend=True)
    for row, content in zip(axes, shown, strict=True):
        for ax, arm in zip(row, arms, strict=True):
            own, title = table[table["arm"] == arm], f"{arm} arm, {CONTENT_TITLES[content]}"
            figures.attention_distance(own, uniform, ax, content=content, title=title, legend=False)
            ax.set_ylabel(ax.get_ylabel() if ax is row[0] else "")
            ax.set_xlabel(ax.get_xlabel() if content == shown[-1] else "")
    legend_above(figure, axes)
    return figure


def _distance_numbers(table: pd.DataFrame, uniform: float | None) -> NumberTable:
    both, table = table, of_content(table)
    first, last, shuffled = first_step(table), last_step(table), last_step(of_content(both, "shuffled"))
    single = last.groupby(["run", "arm"])["value"].agg(["min", "max"]).reset_index()
    lines = [
        Line("Mean over heads before training", "patches", by_arm(first)),
        Line("Mean over heads after training", "patches", by_arm(last)),
        *([Line("the same, contents shuffled", "patches", by_arm(shuffled))] if len(shuffled) else []),
        Line("Head that looks nearest, after training", "patches", by_arm(single.assign(value=single["min"]))),
        Line("Head that looks farthest, after training", "patches", by_arm(single.assign(value=single["max"]))),
    ]
    return number_table(lines, *([f"Uniform attention gives {number(uniform)} patches."] if uniform else []))


def alignment(material: Material) -> Section:
    """Cosine of query and key over distance, on both contents."""
    table = both_contents(material, "qk_alignment", split="probe")
    by_distance = table[table["distance"].notna() & table["value"].notna()]
    if by_distance.empty:
        return Section("alignment", missing=material.nothing_finished or "No q–k alignment by distance was recorded.")
    figure = Figure()
    figures.alignment_by_content(by_distance, figure)
    caption = (
        "Cosine of query and key by distance, mean over heads. Bands are 95 % intervals over seeds of the natural arm, "
        "cut off where few seeds leave them wide."
    )
    alt = "Line charts of cosine over distance, a row for each layer, a column for each content, a colour for each arm."
    return Section("alignment", (picture(figure, "alignment", caption, alt),), _alignment_numbers(table))


def _alignment_numbers(table: pd.DataFrame) -> NumberTable:
    lines = [line for content in contents_of(table) for line in _gap_lines(of_content(table, content), content)]
    return number_table(lines, *(["Mean over layers and heads where no layer is named."] if lines else []))


def _gap_lines(table: pd.DataFrame, content: str) -> list[Line]:
    """Edge − far before and after training, and after it layer by layer."""
    keys = ["run", "arm", "grid", "step", "layer", "head"]
    rows = table[table["relation"].isin(["edge", "far"]) & table["value"].notna()]
    wide = rows.set_index([*keys, "relation"])["value"].unstack()
    if not {"edge", "far"} <= set(wide.columns):
        return []
    gap = (wide["edge"] - wide["far"]).rename("value").reset_index()
    last, of = last_step(gap), "" if content == "natural" else f", {CONTENT_TITLES[content]}"
    layers = [] if last["layer"].nunique() < 2 else last.groupby("layer")
    return [
        Line(f"Edge neighbours − far pairs{of}, before training", "cosine", by_arm(first_step(gap)), "gap"),
        Line(f"Edge neighbours − far pairs{of}, after training", "cosine", by_arm(last), "gap"),
        *(Line(f"the same in layer {layer}", "cosine", by_arm(own), "gap") for layer, own in layers),
    ]
