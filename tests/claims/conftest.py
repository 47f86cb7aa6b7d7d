"""Studies made up as tables: every run's numbers are planted, so that every verdict's answer is known."""

import numpy as np
import pandas as pd
import pytest

COLUMNS = ["run", "arm", "num_heads", "seed", "step", "measure", "value"]
COLUMNS += ["split", "layer", "head", "route", "relation", "distance", "grid", "content"]
TEXT = ("run", "arm", "measure", "split", "route", "relation", "grid", "content")
LEARNING_RATE, LAST = 0.5, 20
PLANTED = ("C1", "C2", "C3a", "C3c", "C4")
CONTENTS = {"shuffled": 1.0, "natural": 2.0}
"""What the probe images hold, and how many times the planted growth is recorded on them."""


def block(measure, values, steps, arm, num_heads, seeds, **axes):
    """Rows of one measure: `values` broadcasts to `seed step *axes`; an axis is a list, anything else a constant."""
    lists = {"seed": list(seeds), "step": list(steps)} | {k: v for k, v in axes.items() if isinstance(v, list)}
    rows = pd.MultiIndex.from_product(list(lists.values()), names=list(lists)).to_frame(index=False)
    rows["value"] = np.broadcast_to(values, [len(v) for v in lists.values()]).ravel()
    constants = {k: v for k, v in axes.items() if not isinstance(v, list)}
    rows = rows.assign(measure=measure, arm=arm, num_heads=num_heads, **constants)
    rows["run"] = [f"{arm}-heads{num_heads}-seed{seed}" for seed in rows["seed"]]
    return rows


def tidy(blocks):
    """The blocks as the table that a study directory gives."""
    table = pd.concat([rows.reindex(columns=COLUMNS) for rows in map(_filled, blocks)], ignore_index=True)
    return table.astype({"layer": "Int64", "head": "Int64", "value": float, "distance": float})


def _filled(rows):
    rows = rows.reindex(columns=COLUMNS)
    rows[list(TEXT)] = rows[list(TEXT)].astype(object).where(rows[list(TEXT)].notna(), None)
    return rows.astype({"layer": "Int64", "head": "Int64", "value": float, "distance": float})


def arm_blocks(arm, planted, num_heads=4, seeds=None):
    """One arm. `planted[claim]` is the primary statistic itself, `seed layer`; a missing claim is not recorded."""
    number, depth = next(iter(planted.values())).shape
    where = (arm, num_heads, range(number) if seeds is None else seeds)
    layers, heads, batches = list(range(depth)), list(range(num_heads)), range(0, LAST, 5)
    per_layer = {"layer": layers, "split": "probe"}
    per_head = per_layer | {"head": heads}
    zero, two, three = np.zeros(1), np.array([0.0, 1.0]), np.array([0.0, 0.5, 1.0])
    blocks = [
        block("learning_rate", LEARNING_RATE, batches, *where, split="train"),
        block("loss", 1.0, [0, LAST], *where, split="test"),
        block("angle_share", 0.95 + 0.02 * two[:, None, None], [0, LAST], *where, **per_head),
        block("argmax_agreement", 0.5 + 0.1 * two[:, None, None], [0, LAST], *where, **per_head),
    ]
    if "C1" in planted or "C2" in planted:
        growth1, growth2 = (planted.get(claim, zero * planted_shape(planted)) for claim in ("C1", "C2"))
        growth = np.stack([growth1, zero * growth1, -growth2], axis=-1)[:, None, :, None, :]
        axes = {"layer": layers, "head": heads, "relation": ["edge", "between", "far"], "grid": "model"}
        for content, times in CONTENTS.items():
            grown = times * three[:, None, None, None] * growth
            on = axes | {"split": "probe", "content": content}
            blocks.append(block("attn", 0.02 * np.exp(grown), [0, 10, LAST], *where, **on))
            blocks.append(block("qk_alignment", 0.01 * grown, [0, 10, LAST], *where, **on))
        # Constant over training: the sum over steps of learning rate · spacing is LEARNING_RATE · LAST.
        for measure in ("advantage", "pressure"):
            gap = growth / (LEARNING_RATE * LAST)
            blocks.append(block(measure, gap, batches, *where, split="train", **axes))
            blocks.append(block(measure, gap, [0, 10, LAST], *where, split="probe", **axes))
        by_distance = {k: v for k, v in axes.items() if k != "relation"} | {"distance": [0, 1, 2, 3]}
        falling = -0.1 * np.arange(4) * three[:, None, None, None]
        blocks.append(block("qk_alignment", falling, [0, 10, LAST], *where, split="probe", **by_distance))
    if "C3a" in planted:
        grown = 0.01 + three * planted["C3a"].mean(axis=1)[:, None]
        for measure in ("similarity_falloff", "similarity_falloff_spearman", "near_minus_far", "coordinate_r2"):
            blocks.append(block(measure, grown, [0, 10, LAST], *where, grid="model"))
        for measure, value in (("p", 0.001), ("null_low", -0.05), ("null_high", 0.05)):
            blocks.append(block(f"similarity_falloff_{measure}", value, [0, LAST], *where, grid="model"))
        blocks.append(block("neighbour_recovery", 0.9, [0, LAST], *where, grid="model"))
        blocks.append(block("neighbour_recovery_chance", 0.1, [0, LAST], *where, grid="model"))
    if "C3c" in planted:
        use = two * planted["C3c"].mean(axis=1)[:, None]
        blocks.append(block("position_use", use, [0, LAST], *where, split="test"))
        blocks.append(block("position_use", use, [0, 10, LAST][::2], *where, split="probe"))
        blocks.append(block("position_use_accuracy", 0.4 * two, [0, LAST], *where, split="test"))
    if "C4" in planted:
        divergence = 0.1 + two[:, None] * planted["C4"][:, None, :]
        for measure in ("head_divergence_attn", "head_divergence_pressure"):
            blocks.append(block(measure, divergence, [0, LAST], *where, **per_layer))
        for content, times in (("natural", 1.0), ("shuffled", 0.5)):
            blocks.append(block("row_divergence", times * divergence, [0, LAST], *where, **per_layer, content=content))
    return blocks


def planted_shape(planted):
    return np.zeros(next(iter(planted.values())).shape)


def sweep_blocks(accuracy, counts):
    """Natural runs at several head counts with this final test accuracy, `seed count`; NaN: no such run."""
    blocks = []
    for count, column in zip(counts, accuracy.T, strict=True):
        for seed in np.flatnonzero(~np.isnan(column)):
            where = ("natural", count, [int(seed)])
            blocks.append(block("accuracy", [[0.1, column[seed]]], [0, LAST], *where, split="test"))
            divergence = np.nan if count == 1 else 0.1 * np.log2(count)
            blocks.append(block("head_divergence_attn", divergence, [LAST], *where, split="probe", layer=[0, 1]))
    return blocks


def draw(rng, mean, seeds=5, depth=3, sd=1.0, claims=PLANTED):
    """Primary statistics around `mean` (a number, or one a layer) with deviation `sd` over seeds and within."""
    return {claim: mean + sd * rng.normal(size=(seeds, depth)) for claim in claims}


@pytest.fixture(scope="session")
def planted_study():
    """Build the table of a study whose arms have the primary statistics given: (natural, scrambled, sweep) → table."""

    def build(natural=None, scrambled=None, accuracy=None, counts=(1, 2, 4, 8), num_heads=4, more=()):
        blocks = [*more]
        for arm, planted in (("natural", natural), ("scrambled", scrambled)):
            blocks += arm_blocks(arm, planted, num_heads) if planted else []
        if accuracy is not None:
            sweep = pd.concat(sweep_blocks(accuracy, counts))
            own = (sweep["num_heads"] == num_heads) & (sweep["measure"] != "accuracy")
            blocks.append(sweep[~own] if natural else sweep)  # the arms' own runs belong to the sweep already
        return tidy(blocks)

    return build


@pytest.fixture(scope="session")
def drawn():
    return draw
