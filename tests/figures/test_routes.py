"""Figures of routes: areas and bars stand where the numbers say."""

import numpy as np
import pytest

from wherefrom import figures
from wherefrom.figures.tables import by_series, cut_label

from .test_figures import lines, table

PARTS = {"q": 0.1, "k": 0.2, "v": 0.4, "mlp": -0.3, "residual": 0.05}


def ledger(arm="natural", seeds=(0, 1), scale=1.0):
    """A ledger of two layers at step 10, scaled by 1 + seed; at step 0 there is only the change."""
    rows = []
    for seed in seeds:
        run, size = {"arm": arm, "seed": seed, "grid": "model"}, scale * (1 + seed)
        rows.append({**run, "measure": "ledger_similarity_falloff_change", "step": 0, "value": 0.0})
        change = size * sum(PARTS.values())
        rows.append({**run, "measure": "ledger_similarity_falloff_change", "step": 10, "value": change})
        for kind, value in PARTS.items():
            places = [(0, 0.75), (1, 0.25)] if kind != "residual" else [(None, 1.0)]
            rows += [
                {**run, "measure": "ledger_similarity_falloff", "step": 10, "route": kind, "layer": layer,
                 "head": None, "value": size * value * part}
                for layer, part in places
            ]  # fmt: skip
    return rows


def routed(rows):
    return table(*rows).assign(route=[row.get("route") for row in rows])


def area(ax, label, below):
    """(lowest, highest) of a stacked area at its last step, of the one above or below 0."""
    found = [part.get_paths()[0].vertices for part in ax.collections if part.get_label() == label][below]
    ends = found[found[:, 0] == 10][:, 1]
    return float(ends.min()), float(ends.max())


def test_the_ledger_stacks_what_adds_and_hangs_what_takes_away():
    ax = figures.ledger_over_steps(routed([*ledger(), *ledger("shuffled", scale=9)]))
    assert area(ax, "queries (q)", 0) == pytest.approx((0, 0.15))
    assert area(ax, "keys (k)", 0) == pytest.approx((0.15, 0.45))
    assert area(ax, "values (v)", 0) == pytest.approx((0.45, 1.05))
    assert area(ax, "MLP", 1) == pytest.approx((-0.45, 0))
    steps, change = lines(ax)["whole change"]
    assert steps == [0, 10]
    np.testing.assert_allclose(change, [0, 1.5 * 0.45], atol=1e-12)


def test_layers_stand_side_by_side_and_what_has_none_outside():
    ax = figures.ledger_by_layer(routed(ledger(seeds=(0, 0))[: len(ledger()) // 2]))
    heights = {(round(bar.get_x() + bar.get_width() / 2), bar.get_height()) for bar in ax.patches}
    expected = {(layer, value * part) for value in (0.1, 0.2, 0.4, -0.3) for layer, part in ((0, 0.75), (1, 0.25))}
    assert {(place, round(height, 9)) for place, height in heights} == {
        (place, round(height, 9)) for place, height in {*expected, (2, 0.05)}
    }
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "outside"]


def test_forces_are_averaged_where_batches_are_many():
    rows = [
        {"measure": "force_similarity_falloff", "step": step, "route": kind, "layer": 0,
         "value": value * (1 + step % 2)}
        for step in range(96) for kind, value in (("q", 2.0), ("v", -1.0))
    ]  # fmt: skip
    ax = figures.force_over_steps(routed(rows))
    queries = [bar for bar in ax.patches if bar.get_height() > 0]
    assert len(queries) == 48
    assert {bar.get_height() for bar in queries} == {3.0}
    steps, total = lines(ax)["all together"]
    assert steps[:2] == [0.5, 2.5]
    np.testing.assert_allclose(total, 1.5)


def test_cut_arms_have_names_and_looks_of_their_own():
    arms = ["cut-pos:v,mlp,residual", "scrambled", "cut-pos:q,k", "shuffled", "natural"]
    rows = [{"measure": "similarity_falloff", "arm": arm, "grid": "model", "seed": seed, "value": len(arm) + seed}
            for arm in arms for seed in (0, 2)]  # fmt: skip
    left, right = figures.cut_arms(table(*rows))
    names = ["natural", "scrambled", "without q, k", "without v, mlp, residual"]
    assert [label.get_text() for label in right.get_yticklabels()] == names
    assert {name: y for name, (_, y) in lines(left).items() if name in names} == {
        name: [len(arm) + 1] for name, arm in zip(names, ("natural", "scrambled", arms[2], arms[0]), strict=True)
    }
    series = [own for own, _ in by_series(table(*rows))]
    assert len({(own.colour, own.dashes) for own in series}) == len(series) == 5


def test_labels_of_cuts():
    assert cut_label("cut-pos:mlp.0,v.1.3") == "without mlp (layer 0), v (layer 1, head 3)"
    assert cut_label("cut-pairs:edge") == "without edge pairs"


def test_a_table_without_ledger_gets_a_sentence():
    with pytest.raises(ValueError, match="expected rows of measure 'ledger_near_minus_far'"):
        figures.ledger_over_steps(routed(ledger()), "near_minus_far")
    with pytest.raises(ValueError, match="expected rows of arms natural, scrambled; found shuffled"):
        figures.cut_arms(table({"measure": "similarity_falloff", "arm": "shuffled", "value": 1.0}))
