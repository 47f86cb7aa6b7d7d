"""The section on the premise: whether the models use their positions, and by how much."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.figures.style import legend_above, panels
from wherefrom.figures.use import LOGIT_SHARES, LOGIT_TERMS
from wherefrom.report.material import Material, by_arm, first_step, last_step
from wherefrom.report.numbers import Line, NumberTable, number_table
from wherefrom.report.section import Picture, Section, picture

COMPARED = ("natural", "scrambled")
USE = ("position_use", "position_use_accuracy")
LOSSES_ALT = (
    "Line charts, a colour for each arm: loss that shuffled patches add over training, accuracy that they cost."
)
ACCURACIES = ("accuracy", "position_use_accuracy")


def use(material: Material) -> Section:
    """What the models lose on images whose patches are shuffled, and what the first scores are made of."""
    table = material.arms(["accuracy", *USE])
    pictures = [*_losses(table, _names(material)), *_terms(material)]
    if not pictures:
        missing = "Whether the models use their positions was not recorded."
        return Section("use", missing=material.nothing_finished or missing)
    return Section("use", tuple(pictures), _numbers(material, table))


def _names(material: Material) -> dict[str, str]:
    """What arms are called that are trained on other data than the rest."""
    return {arm: f"{arm} ({data.rstrip('/').split('/')[-1]})" for arm, data in material.other_data.items()}


def _losses(table: pd.DataFrame, names: dict[str, str]) -> list[Picture]:
    """Position use over training, accuracy with and without positions; what was not recorded is left out."""
    drawn = []
    if _known(table, "position_use", "probe"):
        drawn.append((figures.position_use_over_steps, "what shuffling the patches costs, probe images"))
    if all(_known(table, name, "test") for name in ACCURACIES):
        drawn.append((figures.accuracy_without_positions, "held-out images, at the end"))
    if not drawn:
        return []
    figure = Figure()
    axes = panels(1, len(drawn), 3.0, figure, width=9 if len(drawn) > 1 else 5, legend=True)[0]
    for ax, (draw, title) in zip(axes, drawn, strict=True):
        draw(table, ax, names=names, title=title, legend=False)
    legend_above(figure, axes)
    return [picture(figure, "use", _losses_caption(names), LOSSES_ALT)]


def _losses_caption(names: dict[str, str]) -> str:
    others = "".join(f" The arm “{name}” is trained on other data than the rest." for name in names.values())
    return (
        "Loss on images whose patches are shuffled minus the loss on the same images as they are (left); test accuracy "
        f"on both (right). Four permutations an image.{others}"
    )


def _known(table: pd.DataFrame, measure: str, split: str) -> bool:
    return bool(table.loc[(table["measure"] == measure) & (table["split"] == split), "value"].notna().any())


def _terms(material: Material) -> list[Picture]:
    """What the scores of layer 0 are made of, on both contents."""
    table = pd.concat([material.arms(LOGIT_SHARES, content=content) for content in ("natural", "shuffled")])
    table = table[table["arm"].isin(COMPARED)]
    if table["value"].isna().all():
        return []
    figure = Figure()
    figures.logit_shares(table, figure)
    caption = (
        "What makes layer 0’s scores differ along a row: the contents or the positions of the patch that looks (first "
        "word) and of the patch looked at (second). What natural images have in common at a position counts as "
        "position; with shuffled contents positions alone are left. Mean over heads and seeds; a share below 0 hangs "
        "below the line."
    )
    return [picture(figure, "logits", caption, "Stacked bars of five shares, at the first and at the last step.")]


def _numbers(material: Material, table: pd.DataFrame) -> NumberTable:
    names = _names(material)
    used = last_step(table[(table["split"] == "test") & table["measure"].isin(USE)])
    used = used if len(used) else last_step(table[(table["split"] == "probe") & table["measure"].isin(USE)])
    lines = [
        Line("Position use at the end", "nats", _by_arm(used[used["measure"] == USE[0]], names)),
        Line("Accuracy lost with it", "share", _by_arm(used[used["measure"] == USE[1]], names)),
        *_term_lines(material),
        *_stream_lines(material, names),
    ]
    return number_table(
        lines,
        "Position use: loss on images with shuffled patches minus loss; 0 for a model that uses no positions.",
        "Shares of layer 0’s scores: natural images. Position in the stream: R² of row and column, read from what is "
        "known of a patch on content-shuffled images; 0 or less where nothing of it is there.",
    )


def _by_arm(rows: pd.DataFrame, names: dict[str, str]) -> dict[str, pd.DataFrame]:
    return {names.get(label, label): own for label, own in by_arm(rows).items()}


def _term_lines(material: Material) -> list[Line]:
    table = material.arms(LOGIT_SHARES)
    table = table[table["arm"].isin(COMPARED) & table["value"].notna()]
    lines = []
    for term, (label, _) in LOGIT_TERMS.items():
        rows = table[table["measure"] == f"logit_share_{term}"]
        lines += [Line(f"{label}, first step", "share", by_arm(first_step(rows)), "scores")] if len(rows) else []
        lines += [Line(f"{label}, last step", "share", by_arm(last_step(rows)), "scores")] if len(rows) else []
    return lines


def _stream_lines(material: Material, names: dict[str, str]) -> list[Line]:
    rows = last_step(material.arms("position_in_stream", content="shuffled"))
    depth = rows["layer"].max() if len(rows) else 0
    return [
        Line(
            f"Position in the stream {'after the last layer' if layer == depth else f'before layer {layer}'}",
            "R²",
            _by_arm(own, names),
        )
        for layer, own in rows.groupby("layer")
    ]
