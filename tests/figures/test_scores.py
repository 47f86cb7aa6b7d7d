"""Figures of the account of the scores: areas and bars stand where the numbers say."""

import numpy as np
import pytest

from wherefrom import figures

from .test_figures import lines
from .test_routes import routed

PARTS = {("w_q", "edge"): 0.2, ("w_k", "edge"): 0.1, ("w_q", "far"): -0.4, ("w_k", "other"): 0.1, ("drift", None): 0.3}


def account(arm="natural", seeds=(0, 1)):
    """Two layers, the second three times the first, both times 1 + seed; the whole change alone at step 0."""
    rows = []
    for seed in seeds:
        for layer in (0, 1):
            size = (1 + seed) * (1 + 2 * layer)
            place = {"arm": arm, "seed": seed, "grid": "model", "layer": layer, "route": None, "relation": None}
            for step in (0, 10):
                change = size * sum(PARTS.values()) * (step > 0)
                rows.append({**place, "measure": "ledger_log_attn_far_change", "step": step, "value": change})
            rows += [
                {**place, "measure": "ledger_log_attn_far", "step": 10, "route": route, "relation": relation,
                 "value": size * value}
                for (route, relation), value in PARTS.items()
            ]  # fmt: skip
    return rows


def test_parts_are_stacked_over_steps_averaged_over_layers():
    ax = figures.scores_over_steps(routed([*account(), *account("scrambled")]), "log_attn_far")
    heights = {}
    for area in ax.collections:
        ends = np.concatenate([path.vertices for path in area.get_paths()])
        ends = ends[ends[:, 0] == 10][:, 1]
        heights[area.get_label(), ends.max() > 0] = (ends.min(), ends.max())
    assert heights["gradient of edge pairs", True] == pytest.approx((0, 0.9))
    assert heights["gradient of all other pairs", True] == pytest.approx((0.9, 1.2))
    assert heights["drift of the inputs", True] == pytest.approx((1.2, 2.1))
    assert heights["gradient of far pairs", False] == pytest.approx((-1.2, 0))
    steps, change = lines(ax)["whole change"]
    assert steps == [0, 10]
    np.testing.assert_allclose(change, [0, 0.9], atol=1e-12)


def test_parts_stand_side_by_side_in_each_layer():
    ax = figures.scores_by_layer(routed(account(seeds=(0,))), "log_attn_far")
    heights = sorted((round(bar.get_x() + bar.get_width() / 2), round(bar.get_height(), 9)) for bar in ax.patches)
    expected = [(layer, value * (1 + 2 * layer)) for layer in (0, 1) for value in (0.3, -0.4, 0.1, 0.3)]
    assert heights == sorted((layer, round(value, 9)) for layer, value in expected)
    places, change = lines(ax)["whole change"]
    assert list(places) == [0, 1]
    np.testing.assert_allclose(change, [0.3, 0.9], atol=1e-12)


def test_a_table_without_the_account_gets_a_sentence():
    with pytest.raises(ValueError, match="expected rows of measure 'ledger_log_attn_edge'"):
        figures.scores_over_steps(routed(account()), "log_attn_edge")
