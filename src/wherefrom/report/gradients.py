"""The section on what the gradient asks for: advantage and pressure by relation."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.report.material import Material, by_arm
from wherefrom.report.numbers import Line, number_table
from wherefrom.report.section import Picture, Section, picture

COMPARED = ("natural", "scrambled")
DRAWN = {
    "advantage": "how much loss would be saved by moving attention there",
    "pressure": "how hard the loss pushes the score up or down (advantage × attention)",
}
CONTRASTS = (("edge", "between"), ("between", "far"))


def relations(material: Material) -> Section:
    """Advantage and pressure on training batches."""
    table = material.arms([*DRAWN, "learning_rate"], split="train")
    table = table[table["arm"].isin(COMPARED)]
    drawn = [measure for measure in DRAWN if table.loc[table["measure"] == measure, "value"].notna().any()]
    if not drawn:
        missing = "No advantage or pressure was recorded on training batches of the natural or the scrambled arm."
        return Section("gradients", missing=material.nothing_finished or missing)
    lines = [line for measure in drawn for contrast in CONTRASTS for line in _lines(table, measure, *contrast)]
    note = "Averaged over training with the learning rate as weight, and over layers and heads where no layer is named."
    return Section("gradients", tuple(_picture(table, measure) for measure in drawn), number_table(lines, note))


def _picture(table: pd.DataFrame, measure: str) -> Picture:
    figure = Figure()
    rows = table[table["measure"] == measure]
    against = "between" if rows.loc[rows["relation"] == "between", "value"].notna().any() else None
    figures.gradients_by_relation(rows, measure, figure, against=against)
    minus = " minus that of pairs between (neither neighbours nor far)" if against else ""
    caption = (
        f"{measure.capitalize()} on training batches: {DRAWN[measure]}{minus}. Mean over heads; bands are 95 % "
        f"intervals over seeds."
    )
    alt = f"Line charts of {measure} over training steps by relation, a row for each layer, a column for each arm."
    return picture(figure, measure, caption, alt)


def _lines(table: pd.DataFrame, measure: str, near: str, far: str) -> list[Line]:
    """The contrast over all layers, then layer by layer for advantage, which the claims are judged by."""
    gap = weighted_gap(table, measure, near, far)
    name = f"{measure.capitalize()}, {near} − {far}"
    layers = gap.groupby("layer") if measure == "advantage" and gap["layer"].nunique() > 1 else []
    return [
        Line(name, "nats", by_arm(gap), measure),
        *(Line(f"the same in layer {layer}", "nats", by_arm(own), measure) for layer, own in layers),
    ]


def weighted_gap(table: pd.DataFrame, measure: str, near: str, far: str) -> pd.DataFrame:
    """Σ_steps rate · (near − far) / Σ_steps rate, by `run arm layer head`.

    Steps at which either relation is null are left out; without learning rates all steps count alike.
    """
    keys = ["run", "arm", "layer", "head"]
    rows = table[(table["measure"] == measure) & table["relation"].isin([near, far]) & table["value"].notna()]
    wide = rows.set_index([*keys, "step", "relation"])["value"].unstack("relation")
    if not {near, far} <= set(wide.columns):
        return pd.DataFrame(columns=[*keys, "value"])
    gap = (wide[near] - wide[far]).rename("gap").dropna().reset_index()
    rates = table[table["measure"] == "learning_rate"].set_index(["run", "step"])["value"]
    places = pd.MultiIndex.from_frame(gap[["run", "step"]])
    gap["rate"] = rates.reindex(places).to_numpy() if len(rates) else 1.0
    gap["weighted"] = gap["gap"] * gap["rate"]
    sums = gap.groupby(keys)[["weighted", "rate"]].sum()
    return (sums["weighted"] / sums["rate"]).rename("value").reset_index()
