"""Attention measures: planted heads, uniform attention, loops; one pass over tiles against the whole matrices."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from wherefrom import measures
from wherefrom.attention import AttentionRecord
from wherefrom.geometry import PatchGrid
from wherefrom.measures.layer import layer_maps, layer_measurements
from wherefrom.measures.sums import layer_sums

GRID = PatchGrid(3, 4, num_prefix_tokens=1)


def record(grid=GRID, images=6, heads=3, head_dim=5, seed=0, bias=None, gradient=True):
    generator = torch.Generator().manual_seed(seed)
    shape = (images, heads, grid.num_tokens, head_dim)
    q, k, v, grad_z = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4))
    return AttentionRecord(q, k, v, head_dim**-0.5, grad_z if gradient else None, bias)


def planted(attn: torch.Tensor, grid: PatchGrid) -> AttentionRecord:
    """A record whose attention is `attn`: one-hot queries, keys holding the scores."""
    tokens = grid.num_tokens
    q = torch.eye(tokens, dtype=torch.float64).expand(2, 1, -1, -1)
    k = attn.clamp(min=1e-30).log().T.expand(2, 1, -1, -1)
    return AttentionRecord(q, k, torch.zeros(2, 1, tokens, 1, dtype=torch.float64), 1.0)


def table(record, grids, **options):
    rows = layer_measurements(layer_sums(record, grids, **options), 0, "probe")
    return {(r.measure, r.head, r.relation, r.distance, r.grid): r.value for r in rows}


@pytest.mark.parametrize(("side", "distance"), [(4, 2.0080), (7, 3.6095), (8, 4.1365), (14, 7.2808)])
def test_uniform_attention_has_the_published_distance(side, distance):
    grid = PatchGrid(side, side, 1)
    uniform = torch.full((grid.num_tokens, grid.num_tokens), 1 / grid.num_tokens)
    assert float(measures.attention_distance(uniform, grid)) == pytest.approx(distance, abs=5e-5)
    rows = table(planted(uniform.double(), grid), {"model": grid})
    assert rows["attention_distance", 0, None, None, None] == pytest.approx(distance, abs=5e-5)
    assert rows["attention_entropy", 0, None, None, None] == pytest.approx(math.log(grid.num_tokens))
    assert rows["prefix_mass", 0, None, None, None] == pytest.approx(1 / grid.num_tokens)


@pytest.mark.parametrize("relation", ["self", "edge", "corner", "row", "column", "far"])
def test_a_head_planted_on_a_relation_is_found_there(relation):
    grid = PatchGrid(5, 6)
    pairs = torch.as_tensor(grid.relation_pairs(relation)).double()
    some = pairs.sum(1, keepdim=True) > 0
    attn = torch.where(some, pairs / pairs.sum(1, keepdim=True).clamp(min=1), 1 / grid.num_patches)
    rows = table(planted(attn, grid), {"model": grid})
    mean = {r: rows["attn", 0, r, None, "model"] for r in ("self", "edge", "corner", "row", "column", "far", "mid")}
    assert max(mean, key=mean.get) == relation
    assert mean[relation] == pytest.approx(float(attn[torch.as_tensor(grid.relation_pairs(relation))].mean()))


def test_a_head_planted_on_an_offset_has_its_map_there():
    grid = PatchGrid(4, 4)
    attn = torch.zeros(16, 16, dtype=torch.float64)
    for i, j in itertools.product(range(16), repeat=2):
        attn[i, j] = 1.0 if j == i + 5 and i % 4 < 3 and i < 12 else 0.0
    attn[attn.sum(1) == 0] = 1 / 16
    offset_map = measures.offset_map(attn, grid)
    assert offset_map.argmax() == (1 + 3) * 7 + 1 + 3
    assert offset_map[4, 4] == 1


def test_sharpness_is_the_divergence_from_even_attention_and_has_known_ends():
    grid = PatchGrid(3, 4, 1)
    attn = torch.rand(13, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    mass, even = Counter(), Counter()
    for i, j in itertools.product(range(12), repeat=2):
        offset = (j // 4 - i // 4, j % 4 - i % 4)
        mass[offset] += float(attn[i + 1, j + 1] / attn[i + 1, 1:].sum()) / 12  # the prefix token is left out
        even[offset] += 1 / 144
    slow = sum(m * math.log(m / even[offset]) for offset, m in mass.items())
    key = ("offset_sharpness", 0, None, None, None)
    assert table(planted(attn, grid), {"model": grid})[key] == pytest.approx(slow)
    assert slow > 0.005
    plain = PatchGrid(4, 4)
    flat = torch.full((16, 16), 1 / 16, dtype=torch.float64)
    assert table(planted(flat, plain), {"model": plain})[key] == pytest.approx(0, abs=1e-12)
    alone = torch.eye(16, dtype=torch.float64)
    assert table(planted(alone, plain), {"model": plain})[key] == pytest.approx(math.log(16))


def test_offset_maps_and_averages_are_what_loops_find():
    grid = PatchGrid(3, 4)
    pairs = torch.randn(2, 12, 12, dtype=torch.float64)
    sums = measures.offset_sums(pairs, grid)
    cells, relations, distances = {}, {}, {}
    for i, j in itertools.product(range(12), repeat=2):
        dy, dx = j // 4 - i // 4, j % 4 - i % 4
        cells.setdefault((dy + 2, dx + 3), []).append(pairs[1, i, j])
        name = ("self", "edge", "corner", "far", "row", "column", "mid")[grid.relations[i, j]]
        relations.setdefault(name, []).append(pairs[1, i, j])
        distances.setdefault(math.floor(math.hypot(dy, dx) + 0.5), []).append(pairs[1, i, j])
    counts = torch.as_tensor(grid.offset_counts).double()
    for (dy, dx), values in cells.items():
        assert float(measures.offset_map(pairs, grid)[1, dy, dx]) == pytest.approx(float(sum(values) / len(values)))
    for name, values in relations.items():
        assert float(measures.by_relation(sums, counts, grid)[name][1]) == pytest.approx(float(np.mean(values)))
    for distance, values in distances.items():
        assert float(measures.by_distance(sums, counts, grid)[distance][1]) == pytest.approx(float(np.mean(values)))


@pytest.mark.parametrize("tile", [1, 30, 10**6])
@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
def test_one_pass_over_tiles_gives_what_whole_matrices_give(tile, biased, monkeypatch):
    bias = torch.randn(1, 3, 13, 13, dtype=torch.float64) if biased else None
    monkeypatch.setattr("wherefrom.attention.TILE_ELEMENTS", tile)
    r, true = record(bias=bias), GRID.reordered(np.random.default_rng(0).permutation(12))
    rows, patches = table(r, {"model": GRID, "true": true}), (..., slice(1, None), slice(1, None))
    attn, scores, cosine = r.attn(), r.scores()[patches], measures.qk_cosine(r.q, r.k)[patches]
    by_head = {
        "attention_distance": measures.attention_distance(attn, GRID).mean(0),
        "attention_entropy": measures.attention_entropy(attn, GRID).mean(0),
        "prefix_mass": measures.prefix_mass(attn, GRID).mean(0),
        "angle_share": measures.angle_share(scores, cosine).mean(0),
        "argmax_agreement": measures.argmax_agreement(scores, cosine).mean(0),
        "positional_share": measures.positional_share(scores),
    }
    for (name, values), head in itertools.product(by_head.items(), range(3)):
        assert rows[name, head, None, None, None] == pytest.approx(float(values[head]), abs=1e-12), name
    pairs = {"attn": attn[patches], "pressure": r.pressure()[patches], "advantage": r.advantage()[patches]}
    for (name, values), (place, grid) in itertools.product(
        (pairs | {"qk_alignment": cosine}).items(), {"model": GRID, "true": true}.items()
    ):
        for relation, head in itertools.product(("self", "edge", "far", "between"), range(3)):
            mean = values[:, head][:, torch.as_tensor(grid.relation_pairs(relation))].mean()
            assert rows[name, head, relation, None, place] == pytest.approx(float(mean), abs=1e-12, nan_ok=True)
        near = values[:, 0][:, torch.as_tensor(np.floor(grid.distances + 0.5) == 2)].mean()
        assert rows[name, 0, None, 2, place] == pytest.approx(float(near), abs=1e-12)


def test_gradients_alone_are_the_same_numbers():
    whole, part = (table(record(), {"model": GRID}, gradients_only=only) for only in (False, True))
    assert part == pytest.approx({k: v for k, v in whole.items() if k[0] in ("advantage", "pressure")}, nan_ok=True)


def test_sums_of_parts_add_up_to_the_sums_of_the_whole():
    r = record(images=8)
    parts = [AttentionRecord(r.q[s], r.k[s], r.v[s], r.scale, r.grad_z[s]) for s in (slice(0, 4), slice(4, 8))]
    first, second, whole = (layer_sums(x, {"model": GRID}, gradients_only=True) for x in (*parts, r))
    for a, b, all_ in zip(first.tensors(), second.tensors(), whole.tensors(), strict=True):
        torch.testing.assert_close(a + b, all_)


def test_queries_without_gradient_are_null_not_zero():
    """With a class token as the only read-out, patches of the last layer get no gradient."""
    r = record()
    r.grad_z[:, :, 1:] = 0
    rows = table(r, {"model": GRID})
    assert math.isnan(rows["pressure", 0, "edge", None, "model"])
    assert math.isnan(rows["advantage", 2, None, 1, "model"])
    r = replace(
        r, grad_z=r.grad_z.index_fill(2, torch.tensor([3]), 1.0)
    )  # one patch is heard again: the average is over its pairs alone
    heard = r.advantage()[:, 1, 3, 1:][:, torch.as_tensor(GRID.relation_pairs("edge"))[2]].mean()
    assert table(r, {"model": GRID})["advantage", 1, "edge", None, "model"] == pytest.approx(float(heard))


def test_positional_share_knows_places_from_contents():
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(1, 1, 12, 12, generator=generator, dtype=torch.float64)
    contents = torch.randn(400, 1, 12, 12, generator=generator, dtype=torch.float64)
    assert float(measures.positional_share(places.expand(8, -1, -1, -1))) == pytest.approx(1)
    assert float(measures.positional_share(contents)) == pytest.approx(0, abs=0.01)
    assert float(measures.positional_share(places + contents)) == pytest.approx(0.5, abs=0.1)
    assert math.isnan(measures.positional_share(places))


def test_angle_share_by_loop_and_at_its_ends():
    r = record(bias=None)
    scores, cosine = r.scores(), measures.qk_cosine(r.q, r.k)
    rows = [np.corrcoef(scores[0, 1, i], cosine[0, 1, i])[0, 1] ** 2 for i in range(13)]
    assert float(measures.angle_share(scores, cosine)[0, 1]) == pytest.approx(np.mean(rows))
    assert float(measures.angle_share(3 * cosine, cosine)[0, 0]) == pytest.approx(1)


def test_head_divergence_is_zero_for_noise_and_large_for_planted_heads():
    generator = torch.Generator().manual_seed(0)
    same = torch.rand(1, 1, 5, 5, dtype=torch.float64)
    noisy = same + 0.1 * torch.rand(2, 6, 5, 5, generator=generator, dtype=torch.float64)
    assert abs(float(measures.head_divergence(noisy))) < 1e-3
    signed = torch.randn(2, 6, 5, 5, generator=generator, dtype=torch.float64)
    assert abs(float(measures.head_divergence(signed, measures.one_minus_correlation))) < 0.15
    apart = torch.eye(3, dtype=torch.float64).reshape(1, 3, 1, 3).expand(2, -1, -1, -1)
    assert float(measures.head_divergence(apart)) == pytest.approx(math.log(2))
    assert math.isnan(measures.head_divergence(noisy[:, :1]))


def test_jensen_shannon_by_loop():
    p, r = (torch.rand(7, dtype=torch.float64).softmax(0) for _ in range(2))
    m = [(a + b) / 2 for a, b in zip(p.tolist(), r.tolist(), strict=True)]
    kl = [sum(a * math.log(a / b) for a, b in zip(x.tolist(), m, strict=True)) for x in (p, r)]
    assert float(measures.jensen_shannon(p, r)) == pytest.approx(sum(kl) / 2)


def test_maps_hold_the_mean_of_each_offset():
    r = record()
    expected = measures.offset_map(r.pressure()[..., 1:, 1:].mean(0), GRID)
    torch.testing.assert_close(layer_maps(layer_sums(r, {"model": GRID}))["pressure_offset_map"], expected)


def test_a_grid_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"13 queries to 13 keys does not fit a grid of 4 × 4"):
        layer_sums(record(), {"model": PatchGrid(4, 4)})
