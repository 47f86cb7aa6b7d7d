"""What attention does on images as they are, beside what is left of it when their contents are shuffled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wherefrom.content import CONTENTS, of_content
from wherefrom.figures.attention import _alignment_panel
from wherefrom.figures.gradients import RELATION_SERIES
from wherefrom.figures.stacked import stacked_bars
from wherefrom.figures.style import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    legend_above,
    limit_to_lines,
    note,
    panels,
    styled,
)
from wherefrom.figures.tables import Series, first_and_last, layers_of, over_runs, select
from wherefrom.figures.use import CONTENT_TITLES

DISTANCES, ITSELF = ("edge", "between", "far"), ("self", "prefix")
"""Relations of two different patches; and what is attended to most, on another scale."""
LOOKS = RELATION_SERIES | {
    "self": Series("the patch itself", INK),
    "prefix": Series("class and register tokens", PURPLE),
}
CONTROL = {"linewidth": 1.0, "linestyle": (0, (2, 1.5))}

POSITIONAL_PARTS = {
    "offset": ("offset of the two patches", BLUE),
    "key": ("position looked at", ORANGE),
    "pair": ("pair of positions", SKY),
}
"""Label and colour of what the mean scores are made of."""

POSITIONAL_SHARES = tuple(f"positional_{part}_share" for part in POSITIONAL_PARTS)


def contents_of(table: pd.DataFrame) -> list[str]:
    """The contents of which the table has a value."""
    known = table[table["value"].notna()]
    return [content for content in CONTENTS if len(of_content(known, content))]


@styled
def attention_by_content(
    table: pd.DataFrame, tokens: int, figure: Figure | None = None, *, relations: Sequence[str] = DISTANCES
) -> np.ndarray:
    """log(tokens × mean attention) over steps: a row of panels a layer, a column a content, a line a relation.

    0 is attention that does not care; each 0.69 above it is twice as much. The scrambled control is thin and broken.
    Bands that are wider than what the lines span are cut off.

    Args:
        table: measurements with `attn` by relation; heads are averaged, bands are 95 % intervals over runs.
        tokens: number of tokens of the model, `PatchGrid.num_tokens`.
        figure: an empty figure to draw in; None makes one.
        relations: which to draw.

    Returns:
        Axes `layer content`; panels of one layer share their y axis.

    Raises:
        ValueError: if the table has no such row.
    """
    select(table, "attn", split="probe")  # says what is missing
    contents = contents_of(table[table["measure"] == "attn"])
    parts = {content: log_attention(table, tokens, content) for content in contents}
    layers = layers_of(parts[contents[0]])
    axes = _layers_and_contents(layers, contents, figure)
    for row, layer in zip(axes, layers, strict=True):
        for ax, (content, rows) in zip(row, parts.items(), strict=True):
            _attention_panel(ax, rows[rows["layer"] == layer], relations)
            ax.set_title(f"layer {layer}, {CONTENT_TITLES[content]}")
        limit_to_lines(row)
        row[0].set_ylabel("log(N × attention)\n(nats)")
    _finish(axes, "training step")
    return axes


def log_attention(table: pd.DataFrame, tokens: int, content: str = "natural") -> pd.DataFrame:
    """Rows of `attn` by relation on the model's grid, their value log(tokens × value); what is 0 has no logarithm."""
    rows = select(table, "attn", content, split="probe")
    rows = rows[rows["relation"].notna() & (rows["value"] > 0) & (rows["grid"].isna() | (rows["grid"] == "model"))]
    return rows.assign(value=np.log(tokens * rows["value"]))


def _layers_and_contents(layers: list[int], contents: list[str], figure: Figure | None) -> np.ndarray:
    height, width = (2.4 if len(layers) <= 4 else 1.7), (9 if len(contents) > 1 else 5)
    return panels(len(layers), len(contents), height, figure, width=width, share=("all", "row"), legend=True)


def _finish(axes: np.ndarray, below: str) -> None:
    for ax in axes[-1]:
        ax.set_xlabel(below)
    legend_above(axes[0, 0].figure, axes)


def _attention_panel(ax: Axes, rows: pd.DataFrame, relations: Sequence[str]) -> None:
    """The control below, then all other arms with their bands."""
    is_control, keys = rows["arm"] == "scrambled", ["relation", "step"]
    control, main = over_runs(rows[is_control], keys), over_runs(rows[~is_control], keys)
    for relation, line in _lines_of(control, relations):
        ax.plot(line.index, line["mean"], color=LOOKS[relation].colour, alpha=0.6, **CONTROL)  # pyrefly: ignore
    for relation, line in _lines_of(main, relations):
        series = LOOKS[relation]
        ax.fill_between(line.index, line["low"], line["high"], color=series.colour, alpha=0.15, linewidth=0)
        ax.plot(line.index, line["mean"], color=series.colour, linewidth=1.8, label=series.label)
    if len(control):
        ax.plot([], [], color=FAINT, label="scrambled control", **CONTROL)  # pyrefly: ignore
    ax.axhline(0, color=INK, linewidth=0.8, zorder=1)


def _lines_of(summary: pd.DataFrame, relations: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Those of the relations that there is any pair of."""
    found = set(summary.index.get_level_values("relation"))
    for relation in relations:
        if relation in found:
            yield relation, summary.xs(relation, level="relation")  # pyrefly: ignore


@styled
def alignment_by_content(table: pd.DataFrame, figure: Figure | None = None) -> np.ndarray:
    """Cosine of query and key over distance: a row of panels a layer, a column a content; dotted first, full last step.

    Args:
        table: measurements with `qk_alignment` by distance; heads are averaged. The natural arm has a band, its 95 %
            interval over runs, cut off where it is wider than what the lines span.
        figure: an empty figure to draw in; None makes one.

    Returns:
        Axes `layer content`; panels of one layer share their y axis.

    Raises:
        ValueError: if the table has no such row.
    """
    select(table, "qk_alignment")  # says what is missing
    contents = contents_of(table[(table["measure"] == "qk_alignment") & table["distance"].notna()])
    if not contents:
        raise ValueError("expected rows of qk_alignment by distance; found them by relation only")
    parts = {content: select(table, "qk_alignment", content) for content in contents}
    parts = {content: rows[rows["distance"].notna()] for content, rows in parts.items()}
    layers = layers_of(parts[contents[0]])
    axes = _layers_and_contents(layers, contents, figure)
    for row, layer in zip(axes, layers, strict=True):
        for ax, (content, rows) in zip(row, parts.items(), strict=True):
            title = f"layer {layer}, {CONTENT_TITLES[content]}"
            _alignment_panel(ax, rows[rows["layer"] == layer], title, bands=("natural",))
            ax.set_xlabel("")
        limit_to_lines(row)
        row[0].set_ylabel("cosine of q and k")
    _finish(axes, "distance (patches)")
    return axes


@styled
def positional_parts(table: pd.DataFrame, figure: Figure | None = None) -> np.ndarray:
    """What the scores' mean over images is made of, at the last step: a panel a content, a stacked bar a layer.

    Args:
        table: measurements with `positional_*_share`; the mean over heads and runs is drawn, where there is a value.
        figure: an empty figure to draw in; None makes one.

    Returns:
        The axes, one a content.

    Raises:
        ValueError: if the table has no value of these.
    """
    contents = contents_of(table[table["measure"].isin(POSITIONAL_SHARES)])
    if not contents:
        raise ValueError("expected values of positional_offset_share, positional_key_share, positional_pair_share")
    axes = panels(1, len(contents), 2.5, figure, width=7 if len(contents) > 1 else 4, share=("all", "row"),
                  legend=True)[0]  # fmt: skip
    layers = layers_of(table[table["measure"].isin(POSITIONAL_SHARES)])
    for ax, content in zip(axes, contents, strict=True):
        _parts_panel(ax, pd.concat([select(table, name, content) for name in POSITIONAL_SHARES]), layers)
        ax.set(title=CONTENT_TITLES[content], xlabel="layer", xticks=layers)
    axes[0].set_ylabel("share of the mean scores’\nvariance")
    legend_above(axes[0].figure, axes)
    return axes


def _parts_panel(ax: Axes, rows: pd.DataFrame, layers: list[int]) -> None:
    means = over_runs(first_and_last(rows)[1], ["measure", "layer"])["mean"]
    shares = {
        part: means.reindex([(f"positional_{part}_share", layer) for layer in layers]).to_numpy()
        for part in POSITIONAL_PARTS
    }
    stacked_bars(ax, np.array(layers), shares, POSITIONAL_PARTS, 0.6)
    if rows.empty:
        note(ax, "no layer’s scores depend on positions")
