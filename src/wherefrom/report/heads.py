"""Sections on heads: where each looks, which roles they have, which could go."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.figures import HeadMaps
from wherefrom.figures.contents import contents_of
from wherefrom.figures.style import legend_above, panels
from wherefrom.figures.use import CONTENT_TITLES
from wherefrom.heads import COPY, NEEDS, SMALL, Matching, head_table, need, own_change
from wherefrom.heads.maps import MAP, layers_of
from wherefrom.report.contents import both_contents
from wherefrom.report.material import Material, first_step, last_step
from wherefrom.report.numbers import Line, NumberTable, number_table
from wherefrom.report.position import chosen_steps
from wherefrom.report.section import Picture, Section, picture
from wherefrom.report.words import MISSING, count, interval, number, p_value
from wherefrom.roles import ROLE_MEASURES, ROLES, distinct, roles_of, unspecialised
from wherefrom.statistics import holm
from wherefrom.store import RunDirectory

ALPHA = 0.05
MOST_HEADS = 12
MOST_ROWS = 16
SHUFFLED_MAP = f"{MAP}_shuffled"
LOSSES = [f"ablation_loss_change{ending}" for ending in ("", "_low", "_high")]
HELD_AGAINST = ("natural", "scrambled")


# ---- where each head looks


def gallery(material: Material) -> Section:
    """Offset maps of some heads of one natural run, at several steps, with the roles found."""
    _, run = material.examples.get("natural", (None, None))
    layers = layers_of(run) if run is not None else []
    if run is None or not layers:
        missing = "No finished run of the natural arm has recorded where its heads look."
        return Section("head-maps", missing=material.nothing_finished or missing)
    chosen, total = _most_changed(run, layers)
    heads = _head_maps(run, chosen)
    steps = list(heads[0].maps)
    figure = Figure()
    figures.head_gallery(heads, figure)
    which = f"the {len(heads)} of {total} heads whose maps changed most" if total > len(heads) else "all heads"
    caption = (
        f"Attention by relative place, run {run.name}, {which}. The middle of a map is the patch itself; a cell to its "
        f"right is a patch that lies so many columns to the right. Below: the clearest role and its score, if any."
        + f" “Shuffled”: step {steps[-1]} on images whose patches are shuffled."
        * (heads[0].shuffled is not None)
    )
    alt = f"Small maps of {count(len(heads), 'head')} at {count(len(steps), 'step')}, red where a head looks more."
    return Section("head-maps", (picture(figure, "head-maps", caption, alt),), _matching_numbers(material))


def _head_maps(run: RunDirectory, chosen: list[tuple[int, int]]) -> list[HeadMaps]:
    """Maps of these heads at some steps, and at the last one on content-shuffled images where they were recorded."""
    last = run.array_steps(MAP)[-1]
    beside = last in run.array_steps(SHUFFLED_MAP)
    steps = chosen_steps(run.array_steps(MAP), 3 if beside else 4)
    notes, shuffled_notes = _role_notes(run), _role_notes(run, "shuffled")
    return [
        HeadMaps(
            f"layer {layer}, head {head}",
            {step: run.array(MAP, step, layer)[head] for step in steps},
            {step: notes.get((step, layer, head), "") for step in steps},
            run.array(SHUFFLED_MAP, last, layer)[head] if beside else None,
            shuffled_notes.get((last, layer, head), ""),
        )
        for layer, head in chosen
    ]


def _most_changed(run: RunDirectory, layers: list[int]) -> tuple[list[tuple[int, int]], int]:
    """At most `MOST_HEADS` (layer, head), those that went farthest from their own first map; and how many there are."""
    change = {
        (layer, head): float(curve[-1])
        for layer in layers
        for head, curve in enumerate(np.nan_to_num(own_change(run, layer)[1]))
    }
    return sorted(sorted(change, key=change.__getitem__, reverse=True)[:MOST_HEADS]), len(change)


def _role_notes(run: RunDirectory, content: str = "natural") -> dict[tuple[int, int, int], str]:
    """The role most above its threshold of each (step, layer, head) that has one, with its score."""
    roles = distinct(roles_of(run.measurements(ROLE_MEASURES), content))
    roles = roles[roles["has"]].assign(beyond=lambda own: own["score"] - own["threshold"]).sort_values("beyond")
    keys = zip(roles["step"].astype(int), roles["layer"].astype(int), roles["head"].astype(int), strict=True)
    texts = (f"{role}\n{number(score)}" for role, score in zip(roles["role"], roles["score"], strict=True))
    return dict(zip(keys, texts, strict=True))  # the clearest comes last and stays


def _matching_numbers(material: Material) -> NumberTable | None:
    """How unlike the heads of two seeds are, matched one to one."""
    found = material.matching
    if not found:
        return None
    rows = []
    for arm, layers in found.items():
        ends = {f"{arm}, layer {layer}": both["end"] for layer, both in layers.items()}
        rows += list(ends.items()) if arm == "natural" and len(ends) <= 6 else []
        rows.append((f"{arm}, all layers before training", _mean([both["start"] for both in layers.values()])))
        rows.append((f"{arm}, all layers after training", _mean(list(ends.values()))))
    columns = ("matched", "matched, dealt out anew", "not matched", "p")
    note = (
        "How unlike the maps of two heads of different seeds are (Jensen–Shannon, 10⁻³ nats; 0: the same): heads of "
        "two seeds matched one to one as well as possible; the same after the heads of all seeds were dealt out anew; "
        "and any two heads. A small p says that every seed comes to the same set of kinds of heads."
    )
    kinds = " ".join(_kinds_sentence(arm, [both["end"] for both in layers.values()]) for arm, layers in found.items())
    return NumberTable(columns, tuple((name, _matching_cells(one)) for name, one in rows), (kinds, note))


def _kinds_sentence(arm: str, layers: list[Matching]) -> str:
    """In how many layers the same kinds come back, Holm-adjusted over layers."""
    adjusted = holm([one.p for one in layers])
    tested = int(np.count_nonzero(~np.isnan(adjusted)))
    if not tested:
        return f"{arm.capitalize()} arm: nothing to deal out anew."
    sure = int(np.count_nonzero(adjusted <= ALPHA))
    return (
        f"{arm.capitalize()} arm, {count(layers[0].n, 'seed')}: the same kinds of heads come back in {sure} of "
        f"{count(tested, 'layer')} (p ≤ .05, corrected for {count(tested, 'layer')})."
    )


def _mean(found: list[Matching]) -> Matching:
    """Over layers; p belongs to single layers."""
    parts = [[getattr(one, name) for one in found] for name in ("matched", "chance", "regrouped")]
    matched, chance, regrouped = (float(np.mean(values)) for values in parts)
    return Matching(matched, chance, regrouped, np.nan, found[0].n)


def _matching_cells(one: Matching) -> tuple[str, ...]:
    return (*(number(1000 * value) for value in (one.matched, one.regrouped, one.chance)), p_value(one.p))


# ---- which roles they have


def roles(material: Material) -> Section:
    """Share of heads with each role by layer: natural before and after training, scrambled after; on both contents."""
    table = both_contents(material, list(ROLE_MEASURES), split="probe")
    if table.empty:
        missing = "The roles of heads were not recorded in any finished run."
        return Section("roles", missing=material.nothing_finished or missing)
    shown = {content: _shown_roles(roles_of(table, content)) for content in contents_of(table)}
    if not any(shown.values()):
        return Section("roles", missing="No run of the natural or the scrambled arm has recorded roles of heads.")
    caption = "Percent of the heads of a layer that have each role, mean over seeds. A head may have several."
    alt = "Tables of percentages, a row for each role and a column for each layer, darker where more heads have it."
    drawn = picture(_roles_figure(shown), "roles", caption, alt)
    return Section("roles", (drawn,), _role_numbers(shown))


def _shown_roles(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of each panel by its title."""
    return {
        f"{arm}, {when} training": own
        for arm in HELD_AGAINST
        for when, part in (("before", first_step(found)), ("after", last_step(found)))
        if len(own := part[part["arm"] == arm]) and (arm, when) != ("scrambled", "before")
    }


def _roles_figure(shown: dict[str, dict[str, pd.DataFrame]]) -> Figure:
    """A row of panels for each content."""
    figure, columns = Figure(), max(map(len, shown.values()))
    axes = panels(len(shown), columns, 3.6, figure, width=min(9, 1.2 + 2.7 * columns))
    for row, (content, own) in zip(axes, shown.items(), strict=True):
        for ax, (title, rows) in zip(row, own.items(), strict=True):
            figures.roles_by_layer(rows, ax, title=f"{title},\n{CONTENT_TITLES[content]}")
            ax.tick_params(labelleft=ax is row[0])
            ax.set_xlabel("layer" if content == list(shown)[-1] else "")
    return figure


def _role_numbers(shown: dict[str, dict[str, pd.DataFrame]]) -> NumberTable:
    columns = dict(shown["natural"])
    columns |= {
        f"{title}, {CONTENT_TITLES['shuffled']}": own
        for title, own in shown.get("shuffled", {}).items()
        if "before" not in title
    }
    special = {
        title: unspecialised(own).assign(value=lambda heads: 100.0 * ~heads["unspecialised"])
        for title, own in columns.items()
    }
    lines = [Line("Heads with a role other than global", "%", special), *_role_lines(columns)]
    return number_table(lines, "Shares of all heads of a run; the interval is over seeds.")


def _role_lines(columns: dict[str, pd.DataFrame]) -> list[Line]:
    """A line for each role that any head has."""
    lines = []
    for role in ROLES:
        own = {title: rows[rows["role"] == role] for title, rows in columns.items()}
        if any(rows["has"].any() for rows in own.values()):
            shares = {title: rows.assign(value=100.0 * rows["has"]) for title, rows in own.items()}
            lines.append(Line(role, "%", shares))
    return lines


# ---- which could go


def pruning(material: Material) -> Section:
    """What is lost without each head, and which heads are copies."""
    table = material.arms(LOSSES)
    _, run = material.examples.get("natural", (None, None))
    losses = table[(table["measure"] == LOSSES[0]) & table["value"].notna()]
    if run is None or losses[losses["arm"] == "natural"].empty:
        missing = "No finished run of the natural arm has recorded what is lost without each of its heads."
        return Section("pruning", missing=material.nothing_finished or missing)
    heads = head_table(run)
    return Section(
        "pruning", (_pruning_picture(table[table["arm"] == "natural"], run),), _pruning_numbers(heads, table, run)
    )


def _pruning_picture(table: pd.DataFrame, run: RunDirectory) -> Picture:
    pairs = _pairs(run, int(table["step"].max()))
    figure = Figure()
    axes = panels(1, 2 if len(pairs) else 1, 3.4, figure, width=9 if len(pairs) else 5, legend=True)[0]
    figures.ablation_by_layer(table, axes[0], run=run.name, small=SMALL, title="what each head is worth", legend=False)
    if len(pairs):
        title = f"any two heads of a layer, {run.name}"
        figures.copies_by_layer(pairs, axes[1], copy=COPY, title=title, legend=False)
    legend_above(figure, axes)
    caption = (
        "Natural arm, last step. Left: change of the loss on the held-out probe images when a head’s output is "
        "replaced by its mean over images. Right: a dot for each two heads of one layer."
    )
    alt = "Left, dots with intervals by layer; right, a scatter of likeness of what heads write over where they look."
    return picture(figure, "pruning", caption, alt)


def _pairs(run: RunDirectory, step: int) -> pd.DataFrame:
    """Both likenesses of each two heads of a layer; pairs that have none are left out."""
    rows = []
    for name, at, layer in run.array_keys():
        if name == "contribution_similarity" and at == step:
            written, looks = run.array(name, step, layer), run.array("attn_similarity", step, layer)
            places = np.triu_indices(len(written), 1)
            rows += [(layer, *both) for both in zip(looks[places], written[places], strict=True)]
    return pd.DataFrame(rows, columns=["layer", "attn", "contribution"]).dropna()


def _pruning_numbers(heads: pd.DataFrame, table: pd.DataFrame, run: RunDirectory) -> NumberTable:
    """The heads one by one (those with the least loss first where they are many), and shares over seeds."""
    many = len(heads) > MOST_ROWS
    shown = heads.nsmallest(MOST_ROWS, "loss_change") if many else heads
    which = f"the {len(shown)} of {len(heads)} heads that cost least" if many else "each head"
    rows = tuple((f"layer {row.layer}, head {row.head}", _head_cells(row)) for row in shown.itertuples())
    notes = (
        f"The table: {which} of run {run.name}; needed: the interval of the loss change lies above 0; idle: it "
        f"ends at or below {SMALL:g} nats; not sure: it includes 0, and these images cannot tell. Heads are taken "
        "out one at a time: of two copies each may be idle, and one is needed.",
        *(_need_sentence(table, arm) for arm in HELD_AGAINST if (table["arm"] == arm).any()),
    )
    return NumberTable(
        ("role", "loss change (nats)", "needed?", "most like", "writes the same", "looks the same"), rows, notes
    )


def _head_cells(row) -> tuple[str, ...]:
    closest = MISSING if pd.isna(row.closest) else f"head {row.closest}"
    change = f"{number(row.loss_change)} {interval([row.low, row.high])}".strip()
    return (
        row.roles or MISSING,
        change,
        row.need,
        closest + " (copy)" * row.copy,
        number(row.contribution_similarity),
        number(row.attn_similarity),
    )


def _need_sentence(table: pd.DataFrame, arm: str) -> str:
    own = table[table["arm"] == arm].pivot_table(index=["run", "layer", "head"], columns="measure", values="value")
    shares = need(own[LOSSES[1]], own[LOSSES[2]]).groupby(level="run").value_counts(normalize=True).unstack()
    shares = 100 * shares.reindex(columns=list(NEEDS)).fillna(0)
    parts = (f"{number(share, 0)} % {name}" for name, share in shares.mean().items())
    return f"{arm.capitalize()} arm, mean over {count(len(shares), 'seed')}: {', '.join(parts)}."
