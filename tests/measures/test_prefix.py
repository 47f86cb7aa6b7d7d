"""The relation `prefix`: patch queries and class or register tokens, against loops over whole matrices."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from wherefrom import measures
from wherefrom.attention import AttentionRecord
from wherefrom.geometry import PREFIX, RELATIONS, UNIONS, PatchGrid
from wherefrom.measures.layer import layer_measurements
from wherefrom.measures.sums import layer_sums

GRID = PatchGrid(2, 3, num_prefix_tokens=2)
GRIDS = {"model": GRID, "true": GRID.reordered([3, 1, 0, 2, 5, 4])}


def record(images=5, heads=2, bias=None):
    generator = torch.Generator().manual_seed(0)
    parts = (torch.randn(images, heads, 8, 4, generator=generator, dtype=torch.float64) for _ in range(4))
    q, k, v, grad_z = parts
    return AttentionRecord(q, k, v, 0.5, grad_z, bias)


def prefix_rows(record, grids=GRIDS, **options) -> dict:
    rows = layer_measurements(layer_sums(record, grids, **options), 0, "probe")
    return {(row.measure, row.head, row.grid): row.value for row in rows if row.relation == PREFIX}


def by_loop(matrix, head, queries=range(2, 8)) -> float:
    """Mean over images, patch queries and prefix keys."""
    values = [
        float(matrix[image, head, i, j]) for image, i, j in itertools.product(range(len(matrix)), queries, range(2))
    ]
    return sum(values) / len(values)


@pytest.mark.parametrize("tile", [1, 40, 10**6])
@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 64).double().view(1, 1, 8, 8)], ids=["plain", "biased"])
def test_prefix_pairs_are_what_loops_find(tile, bias, monkeypatch):
    monkeypatch.setattr("wherefrom.attention.TILE_ELEMENTS", tile)
    r = record(bias=bias)
    whole = {
        "attn": r.attn(),
        "qk_alignment": measures.qk_cosine(r.q, r.k),
        "advantage": r.advantage(),
        "pressure": r.pressure(),
    }
    expected = {
        (name, head, grid): by_loop(matrix, head)
        for (name, matrix), head, grid in itertools.product(whole.items(), range(2), GRIDS)
    }
    assert prefix_rows(r) == pytest.approx(expected, abs=1e-12)
    gradient = {key: value for key, value in expected.items() if key[0] in ("advantage", "pressure")}
    assert prefix_rows(r, gradients_only=True) == pytest.approx(gradient, abs=1e-12)


def test_pressure_on_prefix_tokens_and_on_patches_cancels_and_attention_is_all_there_is():
    r = record()
    rows = layer_measurements(layer_sums(r, {"model": GRID}), 0, "probe")
    values = {(row.measure, row.relation): row.value for row in rows if row.head == 1 and row.distance is None}
    counts = {name: GRID.relation_pairs(name).sum() for name in RELATIONS} | {PREFIX: 6 * 2}
    for measure, total in (("pressure", 0), ("attn", 6)):
        sums = [values[measure, name] * count for name, count in counts.items() if count]
        assert sum(sums) == pytest.approx(total, abs=1e-12)
    assert values["attn", PREFIX] * 2 == pytest.approx(values["prefix_mass", None])


def test_queries_without_gradient_are_left_out():
    r = record()
    r.grad_z[:, :, 4:] = 0
    rows = prefix_rows(r)
    for head in range(2):
        heard = by_loop(r.advantage(), head, range(2, 4))
        assert rows["advantage", head, "model"] == pytest.approx(heard, abs=1e-12)
        assert rows["attn", head, "model"] == pytest.approx(by_loop(r.attn(), head), abs=1e-12)
    nothing_heard = replace(r, grad_z=r.grad_z.index_fill(2, torch.arange(2, 8), 0.0))
    assert math.isnan(prefix_rows(nothing_heard)["pressure", 0, "true"])


def test_without_prefix_tokens_there_is_no_such_relation():
    plain = PatchGrid(2, 4)
    assert not prefix_rows(record(), {"model": plain})
    assert PREFIX not in RELATIONS
    assert PREFIX not in UNIONS
    with pytest.raises(ValueError, match="unknown relation 'prefix'"):
        GRID.relation_pairs(PREFIX)
