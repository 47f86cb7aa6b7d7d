"""The section that holds attention on natural images beside attention on content-shuffled ones."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.content import CONTENTS
from wherefrom.figures.contents import DISTANCES, ITSELF, POSITIONAL_SHARES, contents_of, log_attention
from wherefrom.figures.use import CONTENT_TITLES
from wherefrom.report.material import Material, by_arm, first_step, last_step
from wherefrom.report.numbers import Line, NumberTable, number_table
from wherefrom.report.section import Picture, Section, picture

COMPARED = ("natural", "scrambled")
JUDGED = {"edge": "Edge neighbours", "far": "Far pairs"}


def both_contents(material: Material, measure, **where) -> pd.DataFrame:
    """Rows of the arms on natural and on content-shuffled probe images, natural ones first."""
    parts = [material.arms(measure, content=content, **where) for content in CONTENTS]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def contents(material: Material) -> Section:
    """Attention by relation over training on both contents; what the mean scores are made of."""
    table = both_contents(material, "attn", split="probe")
    table = table[table["arm"].isin(COMPARED) & table["relation"].isin([*DISTANCES, *ITSELF])]
    if material.grid is None or table.loc[table["arm"] == "natural", "value"].isna().all():
        missing = "No finished run of the natural arm has recorded its attention by relation."
        return Section("contents", missing=material.nothing_finished or missing)
    tokens = material.grid.num_tokens
    drawn = [_attention_picture(table, tokens, some) for some in (DISTANCES, ITSELF) if _known(table, some)]
    return Section("contents", (*drawn, *_parts_picture(material)), _numbers(table, tokens))


def _known(table: pd.DataFrame, relations: tuple[str, ...]) -> bool:
    return bool(table.loc[table["relation"].isin(relations), "value"].notna().any())


def _attention_picture(table: pd.DataFrame, tokens: int, relations: tuple[str, ...]) -> Picture:
    figure = Figure()
    figures.attention_by_content(table, tokens, figure, relations=relations)
    caption = (
        f"Logarithm of attention against that of a head that looks everywhere alike (N = {tokens} tokens), mean over "
        "heads. Bands are 95 % intervals over seeds, cut off where few seeds leave them wide."
        + " Thin broken lines are the scrambled control."
        * bool((table["arm"] == "scrambled").any())
    )
    if relations == ITSELF:
        caption = "The same, of a patch’s attention to itself, and to class and register tokens where there are any."
    alt = "Line charts over training steps by relation of two patches, a row a layer; natural left, shuffled right."
    return picture(figure, f"contents-{relations[0]}", caption, alt)


def _parts_picture(material: Material) -> list[Picture]:
    table = last_step(both_contents(material, POSITIONAL_SHARES, split="probe"))
    table = table[table["arm"] == "natural"]
    if not contents_of(table):
        return []
    figure = Figure()
    figures.positional_parts(table, figure)
    caption = (
        "What explains the part of the scores that is the same in all images: the offset of the two patches, the "
        "position looked at alone, or the pair of positions. Natural arm, last step, mean over heads and seeds; heads "
        "whose scores hardly agree between two halves of the images are left out."
    )
    return [picture(figure, "positional-parts", caption, "Stacked bars of three shares, one bar for each layer.")]


def _numbers(table: pd.DataFrame, tokens: int) -> NumberTable:
    lines = []
    for content in contents_of(table):
        for relation, name in JUDGED.items():
            lines += _growth_lines(growth(table, tokens, relation, content), f"{name}, {CONTENT_TITLES[content]}")
    notes = (
        "Growth of the logarithm of attention from the first step to the last, mean over layers and heads where no "
        "layer is named: 0.69 is twice as much attention, −0.69 half as much. Claims are judged by shuffled contents.",
    )
    return number_table(lines, *notes)


def _growth_lines(rows: pd.DataFrame, name: str) -> list[Line]:
    if rows.empty:
        return []
    layers = rows.groupby("layer") if rows["layer"].nunique() > 1 else []
    return [
        Line(name, "nats", by_arm(rows), "growth"),
        *(Line(f"the same in layer {layer}", "nats", by_arm(own), "growth") for layer, own in layers),
    ]


def growth(table: pd.DataFrame, tokens: int, relation: str, content: str) -> pd.DataFrame:
    """log attention at the last step − at the first, by `run arm layer head`; `value` in nats."""
    rows = log_attention(table, tokens, content)
    rows = rows[rows["relation"] == relation]
    keys = ["run", "arm", "layer", "head"]
    first, last = (own.set_index(keys)["value"] for own in (first_step(rows), last_step(rows)))
    return (last - first).dropna().rename("value").reset_index()
