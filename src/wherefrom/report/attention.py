"""Sections on attention: distance of each head, alignment of queries and keys."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.figures.style import legend_above, panels
from wherefrom.report.material import ARMS, Material, by_arm, first_step, last_step
from wherefrom.report.numbers import Line, NumberTable, number_table
from wherefrom.report.section import Section, picture
from wherefrom.report.words import listed, number


def distance(material: Material) -> Section:
    """Attention distance of each head in each layer."""
    table = material.arms("attention_distance", split="probe")
    arms = [arm for arm in ARMS if table.loc[table["arm"] == arm, "value"].notna().any()]
    if not arms:
        return Section("distance", missing=material.nothing_finished or "No attention distance was recorded.")
    uniform = material.grid.mean_distance if material.grid else None
    caption = "Attention distance by layer, after Fig. 7 (right) of Dosovitskiy et al. 2020."
    alt = f"Dots by layer, heads before and after training, one panel for each arm: {listed(arms)}."
    drawn = picture(_distance_figure(table, arms, uniform), "distance", caption, alt)
    return Section("distance", (drawn,), _distance_numbers(table, uniform))


def _distance_figure(table: pd.DataFrame, arms: list[str], uniform: float | None) -> Figure:
    figure = Figure()
    width = 9 if len(arms) > 1 else 5
    axes = panels(1, len(arms), 3.0, figure, width=width, share=("none", "row"), legend=True)[0]
    for ax, arm in zip(axes, arms, strict=True):
        figures.attention_distance(table[table["arm"] == arm], uniform, ax, title=arm, legend=False)
        if ax is not axes[0]:
            ax.set_ylabel("")
    legend_above(figure, axes)
    return figure


def _distance_numbers(table: pd.DataFrame, uniform: float | None) -> NumberTable:
    first, last = first_step(table), last_step(table)
    single = last.groupby(["run", "arm"])["value"].agg(["min", "max"]).reset_index()
    lines = [
        Line("Mean over heads before training", "patches", by_arm(first)),
        Line("Mean over heads after training", "patches", by_arm(last)),
        Line("Head that looks nearest, after training", "patches", by_arm(single.assign(value=single["min"]))),
        Line("Head that looks farthest, after training", "patches", by_arm(single.assign(value=single["max"]))),
    ]
    return number_table(lines, *([f"Uniform attention gives {number(uniform)} patches."] if uniform else []))


def alignment(material: Material) -> Section:
    """Cosine of query and key over distance."""
    table = material.arms("qk_alignment", split="probe")
    by_distance = table[table["distance"].notna() & table["value"].notna()]
    if by_distance.empty:
        return Section("alignment", missing=material.nothing_finished or "No q–k alignment by distance was recorded.")
    figure = Figure()
    figures.alignment_by_distance(by_distance, figure)
    caption = "Cosine of query and key by distance, mean over heads; bands are 95 % intervals over seeds."
    alt = "Line charts of cosine over distance, one panel for each layer, a colour for each arm."
    return Section("alignment", (picture(figure, "alignment", caption, alt),), _alignment_numbers(table))


def _alignment_numbers(table: pd.DataFrame) -> NumberTable:
    keys = ["run", "arm", "grid", "step", "layer", "head"]
    rows = table[table["relation"].isin(["edge", "far"]) & table["value"].notna()]
    wide = rows.set_index([*keys, "relation"])["value"].unstack()
    if not {"edge", "far"} <= set(wide.columns):
        return number_table([])
    gap = (wide["edge"] - wide["far"]).rename("value").reset_index()
    last = last_step(gap)
    lines = [
        Line("Edge neighbours − far pairs, before training", "cosine", by_arm(first_step(gap))),
        Line("Edge neighbours − far pairs, after training", "cosine", by_arm(last)),
    ]
    layers = [] if last["layer"].nunique() < 2 else last.groupby("layer")
    lines += [Line(f"the same in layer {layer}", "cosine", by_arm(own)) for layer, own in layers]
    return number_table(lines, "Mean over layers and heads where no layer is named.")
