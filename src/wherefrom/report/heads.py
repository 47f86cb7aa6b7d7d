"""Sections on heads: where each looks, when they come apart, which roles they have, which could go."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.figures.style import legend_above, panels
from wherefrom.heads import COPY, NEEDS, SMALL, Matching, head_table, need, onsets_by_seed, own_change
from wherefrom.heads.maps import MAP, layers_of
from wherefrom.onset import Onset
from wherefrom.report.material import Material, by_arm, first_step, last_step
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
DIVERGENCES = {
    "head_divergence_attn": ("in where they look", "nats"),
    "head_divergence_pressure": ("in what their gradients ask for", "1 − correlation"),
}
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
    steps = chosen_steps(run.array_steps(MAP))
    notes = _role_notes(run)
    heads = [
        figures.HeadMaps(
            f"layer {layer}, head {head}",
            {step: run.array(MAP, step, layer)[head] for step in steps},
            {step: notes.get((step, layer, head), "") for step in steps},
        )
        for layer, head in chosen
    ]
    figure = Figure()
    figures.head_gallery(heads, figure)
    which = f"the {len(heads)} of {total} heads whose maps changed most" if total > len(heads) else "all heads"
    caption = (
        f"Attention by relative place, run {run.name}, {which}. The middle of a map is the patch itself; a cell to its "
        f"right is a patch that lies so many columns to the right. Below: the clearest role and its score, if any."
    )
    alt = f"Small maps of {count(len(heads), 'head')} at {count(len(steps), 'step')}, red where a head looks more."
    return Section("head-maps", (picture(figure, "head-maps", caption, alt),), _matching_numbers(material))


def _most_changed(run: RunDirectory, layers: list[int]) -> tuple[list[tuple[int, int]], int]:
    """At most `MOST_HEADS` (layer, head), those that went farthest from their own first map; and how many there are."""
    change = {
        (layer, head): float(curve[-1])
        for layer in layers
        for head, curve in enumerate(np.nan_to_num(own_change(run, layer)[1]))
    }
    return sorted(sorted(change, key=change.__getitem__, reverse=True)[:MOST_HEADS]), len(change)


def _role_notes(run: RunDirectory) -> dict[tuple[int, int, int], str]:
    """The role most above its threshold of each (step, layer, head) that has one, with its score."""
    roles = distinct(roles_of(run.measurements(ROLE_MEASURES)))
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


# ---- when heads come apart


def divergence(material: Material) -> Section:
    """Divergence of attention and of gradients over steps, onsets marked."""
    table = material.arms(list(DIVERGENCES), split="probe")
    table = table[table["value"].notna() & table["arm"].isin(HELD_AGAINST)]
    found = [measure for measure in DIVERGENCES if measure in set(table["measure"])]
    if not found:
        missing = "A layer with one head has no other head to differ from, or no divergence was recorded."
        return Section("divergence", missing=material.nothing_finished or missing)
    natural = table[table["arm"] == "natural"]
    onsets = {measure: onsets_by_seed(natural[natural["measure"] == measure]) for measure in found}
    figure = Figure()
    axes = panels(1, len(found), 3.1, figure, width=9 if len(found) > 1 else 5, legend=True)[0]
    for ax, measure in zip(axes, found, strict=True):
        title = f"heads differ {DIVERGENCES[measure][0]}"
        figures.divergence_over_steps(table, measure, ax, onsets=onsets[measure], title=title, legend=False)
    legend_above(figure, axes)
    caption = "Divergence of the heads of a layer, mean over layers. Triangles: onset in a natural run, 95 % interval."
    alt = "Line charts over training steps, a thin line for each run, a thick one for the mean of each arm."
    return Section("divergence", (picture(figure, "divergence", caption, alt),), _divergence_numbers(table, onsets))


def _divergence_numbers(table: pd.DataFrame, onsets: dict[str, dict[int, Onset]]) -> NumberTable:
    lines, notes = [], []
    for measure, own in onsets.items():
        rows, (what, unit) = table[table["measure"] == measure], DIVERGENCES[measure]
        lines.append(Line(f"Heads differ {what}, before training", unit, by_arm(first_step(rows)), measure))
        lines.append(Line("the same after training", unit, by_arm(last_step(rows)), measure))
        sure = [one for one in own.values() if not np.isnan(one.step)]
        when = ", ".join(f"step {one.step:.0f} [{one.low:.0f}, {one.high:.0f}]" for one in sure)
        found = f": {when}" if sure else ""
        notes.append(f"Heads began to differ {what} in {len(sure)} of {count(len(own), 'natural run')}{found}.")
    return number_table(lines, *notes)


# ---- which roles they have


def roles(material: Material) -> Section:
    """Share of heads with each role by layer: natural before and after training, scrambled after."""
    table = material.arms(ROLE_MEASURES)
    if table.empty:
        missing = "The roles of heads were not recorded in any finished run."
        return Section("roles", missing=material.nothing_finished or missing)
    found = roles_of(table)
    shown = {
        f"{arm}, {when} training": own
        for arm in HELD_AGAINST
        for when, part in (("before", first_step(found)), ("after", last_step(found)))
        if len(own := part[part["arm"] == arm]) and (arm, when) != ("scrambled", "before")
    }
    if not shown:
        return Section("roles", missing="No run of the natural or the scrambled arm has recorded roles of heads.")
    figure = Figure()
    axes = panels(1, len(shown), 4.2, figure, width=min(9, 1.2 + 2.7 * len(shown)))[0]
    for ax, (title, own) in zip(axes, shown.items(), strict=True):
        figures.roles_by_layer(own, ax, title=title)
        if ax is not axes[0]:
            ax.tick_params(labelleft=False)
    caption = "Percent of the heads of a layer that have each role, mean over seeds. A head may have several."
    alt = "Tables of percentages, a row for each role and a column for each layer, darker where more heads have it."
    return Section("roles", (picture(figure, "roles", caption, alt),), _role_numbers(shown))


def _role_numbers(shown: dict[str, pd.DataFrame]) -> NumberTable:
    special = {
        title: unspecialised(own).assign(value=lambda heads: 100.0 * ~heads["unspecialised"])
        for title, own in shown.items()
    }
    lines = [Line("Heads with a role other than global", "%", special)]
    for role in ROLES:
        own = {title: rows[rows["role"] == role] for title, rows in shown.items()}
        if any(rows["has"].any() for rows in own.values()):
            lines.append(
                Line(role, "%", {title: rows.assign(value=100.0 * rows["has"]) for title, rows in own.items()})
            )
    return number_table(lines, "Shares of all heads of a run; the interval is over seeds.")


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
