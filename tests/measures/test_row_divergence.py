"""Do heads differ row by row? A twin of loops, laws, and heads whose answer is known."""

import itertools
import math

import pytest
import torch

from wherefrom import measures
from wherefrom.attention import AttentionRecord
from wherefrom.geometry import PatchGrid
from wherefrom.measures.layer import layer_measurements
from wherefrom.measures.sums import layer_sums


def rows_at_random(heads=3, patches=6, seed=0, noise=0.0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(heads, patches, patches, generator=generator, dtype=torch.float64)
    noisy = scores + noise * torch.randn(2, heads, patches, patches, generator=generator, dtype=torch.float64)
    return noisy.softmax(-1)


def divergence_by_loop(halves) -> float:
    """The formula of science.md, one pair of heads, one query and one key at a time."""
    _, heads, queries, keys = halves.shape
    values = {}
    for g, h, i in itertools.product(range(heads), range(heads), range(queries)):
        js = 0.0
        for j in range(keys):
            p, r = float(halves[0, g, i, j]), float(halves[1, h, i, j])
            js += sum(0.5 * x * math.log(x / ((p + r) / 2)) for x in (p, r) if x > 0)
        values.setdefault(g == h, []).append(js)
    return sum(values[False]) / len(values[False]) - sum(values[True]) / len(values[True])


def recorded(record, grid):
    rows = layer_measurements(layer_sums(record, {"model": grid}), 0, "probe")
    return {row.measure: row.value for row in rows if row.head is None}


def attending(attn) -> AttentionRecord:
    """A record with this attention, `image head query key`: one-hot queries, keys holding the logarithms."""
    images, heads, tokens, _ = attn.shape
    q = torch.eye(tokens, dtype=torch.float64).expand(images, heads, -1, -1)
    return AttentionRecord(q, attn.clamp(min=1e-300).log().mT.contiguous(), torch.zeros_like(q), 1.0)


def test_it_is_what_loops_find():
    halves = rows_at_random(noise=0.5)
    halves[:, 1] = torch.where(halves[:, 1] < 0.1, 0.0, halves[:, 1])  # some attention is exactly 0
    halves = halves / halves.sum(-1, keepdim=True)
    assert float(measures.row_divergence(halves)) == pytest.approx(divergence_by_loop(halves), abs=1e-12)


@pytest.mark.parametrize("tile", [1, 40, 10**6])
@pytest.mark.parametrize("prefix", [0, 2])
def test_what_is_recorded_is_the_measure_of_the_mean_rows(tile, prefix, monkeypatch):
    monkeypatch.setattr("wherefrom.attention.TILE_ELEMENTS", tile)
    grid, generator = PatchGrid(2, 3, prefix), torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(5, 3, grid.num_tokens, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    record = AttentionRecord(q, k, v, 0.5)
    attn = measures.patch_attention(record.attn(), grid)
    halves = torch.stack([attn[0::2].mean(0), attn[1::2].mean(0)])
    assert recorded(record, grid)["row_divergence"] == pytest.approx(divergence_by_loop(halves), abs=1e-12)


def test_heads_that_do_the_same_give_nothing_and_their_order_does_not_count():
    same = rows_at_random(1).expand(-1, 4, -1, -1)
    assert float(measures.row_divergence(same)) == pytest.approx(0, abs=1e-14)
    halves = rows_at_random(4, noise=0.3)
    permuted = halves[:, [2, 0, 3, 1]]
    assert float(measures.row_divergence(permuted)) == pytest.approx(float(measures.row_divergence(halves)), abs=1e-14)
    assert 0 < float(measures.row_divergence(halves)) < math.log(2)


def test_noise_alone_is_nothing_in_the_mean():
    generator = torch.Generator().manual_seed(0)
    values = [
        float(measures.row_divergence(torch.randn(2, 3, 6, 6, generator=generator, dtype=torch.float64).softmax(-1)))
        for _ in range(400)
    ]
    values = torch.tensor(values)
    assert abs(float(values.mean())) < 4 * float(values.std()) / 20
    assert float(values.std()) > 1e-3  # a single value is noise, not 0 by construction


def test_one_head_has_nobody_to_differ_from():
    assert math.isnan(measures.row_divergence(rows_at_random(1)))


def test_heads_at_two_fixed_positions_are_wholly_apart():
    """Whatever the query, one head looks at the first patch of the second row, the other at its last."""
    grid = PatchGrid(3, 3)
    attn = torch.zeros(4, 2, 9, 9, dtype=torch.float64)
    attn[:, 0, :, 3], attn[:, 1, :, 5] = 1, 1
    values = recorded(attending(attn), grid)
    assert values["row_divergence"] == pytest.approx(math.log(2))


def test_heads_with_one_map_of_offsets_but_other_rows_are_told_apart():
    """On the ring of 2 × 2 patches: the first head looks left or right and the second stays, or the other way round.

    Each head looks half of the time at itself and half at its neighbour in the row, but at other queries: the top row's
    patches look at themselves in one head and at each other in the other.
    """
    grid = PatchGrid(2, 2)
    stay, swap = torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64).flip(0)
    heads = torch.stack([torch.block_diag(stay, swap), torch.block_diag(swap, stay)])
    values = recorded(attending(heads.expand(2, -1, -1, -1)), grid)
    assert values["head_divergence_attn"] == pytest.approx(0, abs=1e-12)
    assert values["row_divergence"] == pytest.approx(math.log(2))
