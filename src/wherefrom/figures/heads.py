"""Heads: where each looks, when they come apart, which roles they have, head counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from wherefrom.catalogue import MEASURES
from wherefrom.figures.steps import over_steps
from wherefrom.figures.style import (
    COSINE_COLOURS,
    FAINT,
    INK,
    new_figure,
    one_panel,
    styled,
)
from wherefrom.onset import Onset
from wherefrom.roles import ROLES

# ---- where each head looks


@dataclass(frozen=True)
class HeadMaps:
    """One head over training.

    Args:
        title: above its maps.
        maps: the offset map of attention by step, `dy dx`.
        notes: a word or two below each map, by step.
        shuffled: its map at the last step on content-shuffled images; None draws none.
        shuffled_note: below that.
    """

    title: str
    maps: Mapping[int, np.ndarray]
    notes: Mapping[int, str]
    shuffled: np.ndarray | None = None
    shuffled_note: str = ""

    @property
    def panels(self) -> list[tuple[str, np.ndarray, str]]:
        """(title, map, note) of each of its maps."""
        found = [(f"step {step}", one, self.notes.get(step, "")) for step, one in self.maps.items()]
        return found if self.shuffled is None else [*found, (SHUFFLED, self.shuffled, self.shuffled_note)]


SHUFFLED = "shuffled"

HEADS_A_ROW = 3
BLOCK, GAP, WORDS, BELOW, BAR = 2.78, 0.2, 0.8, 0.36, 0.62
"""Inches: width of the maps of one head; between heads; height of the words above and below maps; of those below; of
the colour bar."""


@styled
def head_gallery(heads: Sequence[HeadMaps], figure: Figure | None = None) -> np.ndarray:
    """Offset maps: the middle of a map is the patch itself, each other cell a place as it lies to that patch.

    Colour is attention against that of a head that looks everywhere alike, log₂ of the ratio; red is more. All maps of
    the figure share their colours.

    Args:
        heads: what to draw, one block of maps a head.
        figure: an empty figure to draw in; None makes one.

    Returns:
        The axes, `head step`; where heads have a map on content-shuffled images, it is the last of their row.

    Raises:
        ValueError: if there is no head, or heads have different steps.

    References:
        Walmer et al. 2023, Teaching Matters (aligned aggregated attention maps).
    """
    titles = [[title for title, *_ in head.panels] for head in heads]
    if not heads or not heads[0].maps or any(own != titles[0] for own in titles):
        raise ValueError("expected heads with a map at the same steps each; found none, or different steps")
    figure = figure if figure is not None else new_figure()
    ratios = [[against_even(one) for _, one, _ in head.panels] for head in heads]
    limit = max(0.1, float(np.nanpercentile(np.abs(ratios), 99)))
    places = _places(figure, len(heads), len(titles[0]), ratios[0][0].shape)
    axes = [
        _head_block(figure, head, own, limit, place) for head, own, place in zip(heads, ratios, places, strict=True)
    ]
    _even_bar(figure, axes[0][0], limit)
    return np.array(axes)


def _places(figure: Figure, heads: int, steps: int, shape: tuple[int, ...]) -> np.ndarray:
    """Size the figure; (left, bottom, width, height) of each map as shares of it, `head step 4`.

    By hand: a layout engine takes seconds for so many small axes.
    """
    columns = min(HEADS_A_ROW, heads)
    wide = min(1.2, BLOCK / steps) if columns < HEADS_A_ROW else BLOCK / steps
    high = wide * shape[0] / shape[1]
    size = np.array([max(4.6, columns * (steps * wide + GAP)), -(-heads // columns) * (high + WORDS) + BAR])
    figure.set_size_inches(*size)
    head, step = np.mgrid[:heads, :steps]
    left = head % columns * (steps * wide + GAP) + step * wide + GAP / 2
    bottom = size[1] - (head // columns + 1) * (high + WORDS) + BELOW
    whole = np.broadcast_to(wide - 0.04, left.shape), np.broadcast_to(high - 0.04, left.shape)
    return np.stack([left, bottom, *whole], -1) / np.tile(size, 2)


def against_even(offset_map: np.ndarray) -> np.ndarray:
    """log₂(R / mean of R over offsets); a place that is never looked at is NaN."""
    values = np.asarray(offset_map, dtype=float)
    with np.errstate(divide="ignore"):
        ratio = np.log2(values / values.mean())
    return np.where(np.isfinite(ratio), ratio, np.nan)


def _head_block(
    figure: Figure, head: HeadMaps, ratios: Sequence[np.ndarray], limit: float, places: np.ndarray
) -> list[Axes]:
    axes = [figure.add_axes(tuple(place)) for place in places.tolist()]
    for ax, ratio, (title, _, words) in zip(axes, ratios, head.panels, strict=True):
        drawn = ax.imshow(ratio, cmap=COSINE_COLOURS, vmin=-limit, vmax=limit, interpolation="none", aspect="auto")
        drawn.set_gid(f"{head.title}-{title}".replace(" ", "-").replace(",", ""))  # equal maps would share an id
        ax.set_facecolor("#9a9a9a")
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set(visible=True, color="#dddddd")
        ax.set_title(title, fontsize=7.5, loc="center", pad=2, style="italic" if title == SHUFFLED else "normal")
        ax.set_xlabel(words, fontsize=7.5, labelpad=2)
    axes[0].text(0, 1, head.title, fontsize=9, transform=axes[0].transAxes + _above(figure), ha="left", va="bottom")
    return axes


def _above(figure: Figure) -> ScaledTranslation:
    """Up by the height of the line that names the steps."""
    return ScaledTranslation(0, 0.19, figure.dpi_scale_trans)


def _even_bar(figure: Figure, ax: Axes, limit: float) -> None:
    """How many times as much as even attention, on the scale of the maps."""
    high = figure.get_size_inches()[1]
    place = figure.add_axes((0.28, 0.42 / high, 0.44, 0.12 / high))
    bar = figure.colorbar(ax.images[0], cax=place, orientation="horizontal")
    powers = np.linspace(-limit, limit, 5)
    bar.set_ticks(powers.tolist(), labels=[f"× {2.0**power:.3g}" for power in powers])
    bar.set_label("attention against even attention")
    bar.outline.set_visible(False)
    for collection in bar.ax.collections:
        collection.set_rasterized(True)


# ---- when heads come apart


@styled
def divergence_over_steps(
    table: pd.DataFrame,
    measure: str = "head_divergence_attn",
    ax: Axes | None = None,
    *,
    content: str = "natural",
    onsets: Mapping[int, Onset] | None = None,
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """How unlike the heads of a layer are, mean over layers: a thin line a run, a thick one the mean of an arm.

    Args:
        table: measurements of a study or of one run.
        measure: `row_divergence`, `head_divergence_attn` or `head_divergence_pressure`.
        ax: where to draw; None makes a figure.
        content: of the probe images, `natural` or `shuffled`.
        onsets: `onset` of each natural run by seed, marked at the foot with its interval.
        title: above the panel.
        legend: name the arms in the panel.

    Raises:
        ValueError: if the table has no such row.
    """
    ax = over_steps(table, measure, one_panel(ax), content=content, title=title, legend=False)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
    known = [one for one in (onsets or {}).values() if not np.isnan(one.step)]
    for place, one in enumerate(known):
        height = 0.03 + 0.03 * place
        label = "onset in a natural run, with its interval" if place == 0 else None
        ax.plot([one.low, one.high], [height] * 2, color=INK, linewidth=1.2, transform=ax.get_xaxis_transform())
        ax.plot(one.step, height, "^", color=INK, markersize=5, transform=ax.get_xaxis_transform(), label=label)
    low, high = ax.get_ylim()
    ax.set_ylim(low - (0.03 * len(known) + 0.03 * bool(known)) * (high - low), high)  # onsets stand below the lines
    ax.set_ylabel(MEASURES[measure].unit)
    if legend:
        ax.legend()
    return ax


# ---- which roles they have


def _on_blue(share: float) -> str:
    return "white" if share > 70 else INK if share else FAINT


@styled
def roles_by_layer(roles: pd.DataFrame, ax: Axes | None = None, *, title: str | None = None) -> Axes:
    """Share of the heads of a layer that have each role, in percent, mean over runs; a head may have several.

    Args:
        roles: `roles_of(table)` at one step of each run, of one arm.
        ax: where to draw; None makes a figure.
        title: above the panel.

    Raises:
        ValueError: if there is no row.
    """
    if roles.empty:
        raise ValueError("expected the roles of at least one head; found none: were they recorded?")
    names = [name for name in ROLES if name in set(roles["role"])]
    shares = roles.groupby(["run", "role", "layer"])["has"].mean().groupby(level=["role", "layer"]).mean()
    shares = 100 * shares.unstack("layer").reindex(names)
    ax = one_panel(ax, 0.9 + 0.45 * shares.shape[1], 0.6 + 0.24 * len(names))
    cells = shares.to_numpy(dtype=float)
    drawn = ax.imshow(cells, cmap="Blues", vmin=0, vmax=130, aspect="auto", interpolation="none")
    drawn.set_gid(f"roles-{title or ''}".translate(str.maketrans(", \n", "---")))  # equal panels would share an id
    for (row, column), share in np.ndenumerate(cells):
        ax.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=7.5, color=_on_blue(share))
    ax.set_xticks(range(shares.shape[1]), [str(layer) for layer in shares.columns])
    ax.set_yticks(range(len(names)), names)
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="layer", title=title or "")
    return ax
