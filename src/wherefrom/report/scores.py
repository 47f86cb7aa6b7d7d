"""The section on whose gradient moved attention: the account of the scores at edge neighbours and at far pairs."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.figures.scores import PARTS, score_parts
from wherefrom.figures.style import legend_above, panels
from wherefrom.report.material import Material, last_step
from wherefrom.report.numbers import Line, NumberTable, number_table
from wherefrom.report.section import Picture, Section, picture
from wherefrom.report.words import number

SHOWN = {
    "log_attn_edge": "log attention at edge",
    "log_attn_far": "log attention at far",
    "qk_alignment": "alignment, edge − far",
}
"""What the account is kept of, and how its columns are called."""

DRAWN = ("log_attn_edge", "log_attn_far")

NO_ACCOUNT = (
    "No run kept the account of the scores, which credits the gradient of edge pairs, of far pairs and of all other "
    "pairs with its part in attention; the setting record.alignment_ledger keeps it."
)


def account(material: Material) -> Section:
    """What the gradient of each kind of pairs added to attention, in the natural arm."""
    table = material.arms([f"ledger_{name}{rest}" for name in SHOWN for rest in ("", "_change", "_residual")])
    table = table[(table["arm"] == "natural") & table["value"].notna()]
    if not {f"ledger_{name}{rest}" for name in DRAWN for rest in ("", "_change")} <= set(table["measure"]):
        return Section("scores", missing=material.nothing_finished or NO_ACCOUNT)
    return Section("scores", (_picture(table),), _numbers(table))


def _picture(table: pd.DataFrame) -> Picture:
    figure = Figure()
    axes = panels(2, 2, 3.0, figure, legend=True)
    for (left, right), name, title in zip(axes, DRAWN, ("edge neighbours", "far pairs"), strict=True):
        figures.scores_over_steps(table, name, left, title=f"{title}: added so far, mean of layers", legend=False)
        figures.scores_by_layer(table, name, right, title=f"{title}: added by the end, by layer", legend=False)
        right.set_ylabel("")
    legend_above(figure, axes)
    caption = (
        "The account of attention at edge neighbours (top) and at far pairs (bottom), natural arm: what the gradient "
        "of which pairs, on the weights that make queries and keys, added to the logarithm of mean attention there."
    )
    alt = (
        "Left, stacked areas over training steps, one for each part of the pairs; right, bars by layer and part; top "
        "for edge neighbours, bottom for far pairs."
    )
    return picture(figure, "scores", caption, alt)


def _numbers(table: pd.DataFrame) -> NumberTable:
    last = last_step(table)
    found = {name: rows for name in SHOWN if len(rows := _rows(last, f"ledger_{name}_change"))}
    parts = {name: score_parts(_rows(last, f"ledger_{name}")) for name in found}
    lines = [Line("Whole change", "", {SHOWN[name]: rows for name, rows in found.items()}, "change")]
    for part, (label, _) in PARTS.items():
        own = {SHOWN[name]: rows[rows["part"] == part] for name, rows in parts.items()}
        if any(len(rows) for rows in own.values()):
            lines.append(Line(f"{label[0].upper()}{label[1:]}", "", own, "change"))
    missed = {SHOWN[name]: _rows(last, f"ledger_{name}_residual") for name in found}
    lines.append(Line("Missed by the account", "share of the way travelled", missed))
    worst = max(rows["value"].max() for rows in missed.values())
    return number_table(
        lines,
        "Natural arm, means over layers; attention in nats, alignment as a cosine.",
        f"In the worst layer the account misses {number(worst)} of the way that its measure travelled, up and down.",
    )


def _rows(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    return rows[rows["measure"] == measure]
