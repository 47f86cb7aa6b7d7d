"""Ties: no measure changes where numbers change by rounding alone, and tied things share what there is."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from wherefrom import measures
from wherefrom.attention import AttentionRecord
from wherefrom.geometry import PatchGrid
from wherefrom.measures import ties
from wherefrom.measures.alignment import angle_r2
from wherefrom.measures.contents import pair_contents
from wherefrom.measures.layer import layer_measurements
from wherefrom.measures.roles import offset_roles
from wherefrom.measures.sums import layer_sums
from wherefrom.statistics import first_of_largest


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def nearly(x: torch.Tensor, seed: int) -> torch.Tensor:
    """x, each entry changed by about 1e-13 of itself: more than any order of adding up changes."""
    return x * (1 + 1e-13 * torch.randn(x.shape, generator=generator(seed), dtype=x.dtype))


def ring(patches: int) -> torch.Tensor:
    """Embeddings on a circle: the two neighbours of each are equally similar to it."""
    angle = torch.arange(patches, dtype=torch.float64) * 2 * math.pi / patches
    return torch.stack([angle.cos(), angle.sin()], 1)


def symmetric_map(grid: PatchGrid) -> torch.Tensor:
    """Rows of cosines in y and x: pairs that a mirror image takes to each other are equally similar."""
    y, x = torch.as_tensor(grid.coordinates, dtype=torch.float64).T
    waves = [torch.cos(math.pi * k * (place + 0.5) / side) / k for place, side in ((y, grid.height), (x, grid.width))
             for k in (1, 2, 3)]  # fmt: skip
    return torch.stack(waves, 1)


# ---- the parts


def ranks_by_loop(x: list[float], width: float) -> list[float]:
    order = sorted(range(len(x)), key=lambda i: x[i])
    groups = [[order[0]]]
    for before, i in itertools.pairwise(order):
        if x[i] - x[before] > width:
            groups.append([])
        groups[-1].append(i)
    pieces, found, rank = [], [0.0] * len(x), 0
    for group in groups:
        number = [math.floor((x[i] - x[group[0]]) / width) for i in group]
        pieces += [[i for i, own in zip(group, number, strict=True) if own == n] for n in sorted(set(number))]
    for piece in pieces:
        for i in piece:
            found[i] = rank + (len(piece) + 1) / 2
        rank += len(piece)
    return found


@pytest.mark.parametrize("spread", [1.0, 1e-9, 1e-8])
def test_ranks_by_loop(spread):
    x = torch.randint(0, 40, (300,), generator=generator()) / 40 + torch.rand(300, generator=generator(1)) * spread
    x = torch.cat([x, torch.ones(1)]).double()  # the largest is about 1 or 2
    expected = ranks_by_loop(x.tolist(), 1e-9 * float(x.max()))
    assert ties.ranks(x).tolist() == expected
    assert sum(expected) == 301 * 302 / 2


def test_ranks_of_numbers_that_are_apart_are_scipys():
    x = torch.randint(-9, 9, (50,), generator=generator()).double()
    for seed in range(5):
        assert ties.ranks(nearly(x, seed)).tolist() == scipy.stats.rankdata(x).tolist()
    assert ties.ranks(torch.zeros(4)).tolist() == [2.5] * 4
    assert ties.ranks(torch.full((3,), 0.1) + torch.tensor([0, 1e-8, -1e-8])).tolist() == [2] * 3  # float32


def test_many_numbers_close_together_are_not_all_one():
    x = torch.linspace(0, 1, 400_000)  # steps of a quarter of what float32 can tell
    ranks = ties.ranks(x)
    assert float((ranks - torch.arange(1, 400_001)).abs().max()) < 10
    assert bool((ranks.diff() >= 0).all())


def test_largest_and_what_two_have_in_common():
    x = torch.tensor([[1.0, 3, 3 - 1e-12, 2], [-torch.inf, -4, -5, -4], [0, 0, 0, 0], [1, torch.nan, 2, 3]]).double()
    assert ties.largest(x).int().tolist() == [[0, 1, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]]
    y = torch.tensor([[0.0, 1, 0, 1], [0, 1, 0, 1], [9, 0, 0, 0], [0, 0, 0, 0]]).double()
    shares = ties.largest_agreement(x, y).tolist()
    assert shares == pytest.approx([1 / 3, 1, 1 / 4, 0])


def test_the_first_of_the_largest():
    assert first_of_largest([1, 2, 2 - 1e-12]) == 1
    assert first_of_largest([2 - 1e-12, 1, 2]) == 0
    assert first_of_largest([np.nan, 2 - 1e-6, 2]) == 2
    assert first_of_largest([-np.inf, -np.inf]) == 0


def test_what_varies_by_rounding_does_not_vary():
    x = torch.tensor([[0.1, 0.1, 0.1], [0.1, 0.2, 0.3], [0, 0, 0]], dtype=torch.float64)
    away, squares = ties.centred(nearly(x, 0))
    assert squares.isnan().tolist() == [True, False, True]
    assert float(squares[1]) == pytest.approx(0.02)
    assert away[1].tolist() == pytest.approx([-0.1, 0, 0.1])


# ---- the measures: the same value where tied numbers are ordered otherwise

GRIDS = [PatchGrid(4, 6), PatchGrid(5, 5), PatchGrid(1, 8)]
SETS = [[0, 3], [1, 2], [4, 7], [5, 6]]
TABLES = {
    "similarity_falloff_spearman": lambda pos, grid: measures.similarity_falloff_spearman(pos, grid),
    "neighbour_recovery": lambda pos, grid: measures.neighbour_recovery(pos, grid),
    "patch_association": lambda pos, grid: measures.patch_association(pos, SETS),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("kind", [symmetric_map, lambda grid: ring(grid.num_patches)], ids=["map", "ring"])
def test_tied_patches_may_be_ordered_anyhow(name, grid, kind):
    pos = kind(grid)
    expected = TABLES[name](pos, grid)
    for seed in range(10):
        order = torch.randperm(pos.shape[1], generator=generator(seed))  # products are added up in another order
        assert TABLES[name](nearly(pos, seed)[:, order], grid) == expected
        assert TABLES[name](nearly(pos, seed) + 0.5, grid) == expected if name != "patch_association" else True


def test_of_tied_patches_each_has_an_equal_share():
    """On a ring that is laid on a line, both ends have one neighbour beside them and one at the other end."""
    assert float(measures.neighbour_recovery(ring(8), PatchGrid(1, 8))) == pytest.approx(7 / 8)
    grid = PatchGrid(4, 5)
    alike = nearly(torch.full((20, 6), 0.1, dtype=torch.float64), 0)
    assert float(measures.neighbour_recovery(alike, grid)) == pytest.approx(measures.neighbour_recovery_chance(grid))
    assert (measures.pos_similarity(alike) == 0).all()


def test_neighbour_recovery_with_ties_by_loop():
    grid = PatchGrid(5, 5)
    pos, total = ring(25), 0.0
    similarity = measures.pos_similarity(pos).tolist()
    for i in range(25):
        most = max(similarity[i][j] for j in range(25) if j != i)
        best = [j for j in range(25) if j != i and similarity[i][j] > most - 1e-9]
        total += sum(max(abs(i // 5 - j // 5), abs(i % 5 - j % 5)) == 1 for j in best) / len(best)
    assert float(measures.neighbour_recovery(pos, grid)) == pytest.approx(total / 25)
    assert total == 20  # where a row ends, the next patch on the ring is no neighbour: half for 10 patches


def test_sets_of_patches_that_are_tied_count_by_chance():
    pos = torch.eye(4, dtype=torch.float64)[[0, 0, 0, 1, 1, 2, 3, 3]]
    sets = [[0, 1], [2, 3], [4, 5], [6, 7]]
    # 0 and 1: two of the three alike are chosen; 2: 3 is never; 3: 2 is never, nor is 5 for 4
    # 5: itself, then one of the seven others; 6 and 7 are their own set
    assert float(measures.patch_association(pos, sets)) == pytest.approx((1 / 3 + 1 / 3 + 1 / 7 + 1 + 1) / 8)
    nothing = torch.zeros(8, 3)
    assert float(measures.patch_association(nothing, sets)) == pytest.approx(1 / math.comb(8, 2))


def heads(seed: int) -> AttentionRecord:
    """Of 12 patches the first five have the same key, as blank ones have; rounding and order as the seed says."""
    q, k, v = (torch.randn(4, 2, 12, 6, generator=generator(part), dtype=torch.float64) for part in range(3))
    k[:, :, :5] = 3 * k[:, :, :1]
    q[:, 1, 0] = 0  # a row that is the same everywhere
    q, k = nearly(q, seed), nearly(k, seed + 100)
    order = torch.randperm(6, generator=generator(seed))
    return AttentionRecord(q[..., order], k[..., order], v, 6**-0.5)


def test_rows_with_tied_keys_count_by_what_is_the_same():
    record = heads(0)
    scores, cosine = record.scores(), measures.qk_cosine(record.q, record.k)
    rows = []
    for s, c in zip(scores[:, 1].flatten(0, 1).tolist(), cosine[:, 1].flatten(0, 1).tolist(), strict=True):
        high, near = ({j for j in range(12) if x[j] >= max(x) - 1e-9} for x in (s, c))
        rows.append(len(high & near) / len(high | near))
    assert float(measures.argmax_agreement(scores, cosine)[:, 1].mean()) == pytest.approx(np.mean(rows), abs=1e-12)
    assert 0 < np.mean(rows) < 1
    blank = torch.tensor([[1.0, 2, 2, 0]]).double()
    assert float(measures.argmax_agreement(blank, blank / 4)) == 1
    assert float(measures.argmax_agreement(blank[:, :1].expand(1, 4), torch.tensor([[0.1, 0.2, 0.3, 0.1]]))) == 0.25


def test_recorded_measures_of_tied_keys_do_not_hang_on_rounding():
    grid = PatchGrid(3, 4)
    names = ("argmax_agreement", "angle_share")
    expected = None
    for seed in range(5):
        record = heads(seed)
        rows = list(layer_measurements(layer_sums(record, {"model": grid}), 0, "probe"))
        values = {(row.measure, row.head): row.value for row in rows if row.measure in names}
        scores, cosine = record.scores(), measures.qk_cosine(record.q, record.k)
        for head in range(2):
            agreement = measures.argmax_agreement(scores, cosine).mean(0)[head]
            assert values["argmax_agreement", head] == pytest.approx(float(agreement), abs=1e-12)
        share = angle_r2(scores, cosine)[:, 1]
        assert share[:, 0].isnan().all()
        assert values["angle_share", 1] == pytest.approx(float(share.nanmean()), abs=1e-12)
        expected = expected or values
        assert values == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("tied", [1, 2])
def test_a_favourite_that_is_tied_is_none_and_seconds_share(tied):
    """Each patch looks at the patch to its right; with two, as much at the one to its left; at all others alike."""
    grid = PatchGrid(4, 6)
    attn = torch.full((2, 3, 24, 24), 0.01, dtype=torch.float64)
    dy, dx = (torch.as_tensor(grid.offsets[..., axis]) for axis in (0, 1))
    attn[..., (dy == 0) & ((dx == 1) | ((dx == -1) & (tied == 2)))] = 0.3
    expected = None
    for seed in range(5):
        found = offset_roles(measures.offset_sums(nearly(attn, seed), grid), grid)["offset"]
        assert found.score.tolist() == pytest.approx([0.29 if tied == 1 else 0.0] * 3, abs=1e-9)
        values = torch.stack([found.score, found.low, found.high, found.threshold])
        expected = values if expected is None else expected
        torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-9)
        assert ((found.low > found.threshold) == (tied == 1)).all()


def test_horizontal_and_vertical_of_attention_that_is_alike_in_both():
    grid = PatchGrid(5, 5)
    fresh = torch.rand(6, 2, 25, 25, generator=generator(), dtype=torch.float64)
    turned = torch.arange(25).reshape(5, 5).T.flatten()
    attn = torch.cat([fresh, fresh[:, :, turned][..., turned]])  # with each image its mirror image
    attn = attn / attn.sum(-1, keepdim=True)
    first, *others = (offset_roles(measures.offset_sums(nearly(attn, seed), grid), grid) for seed in range(5))
    for role in ("horizontal", "vertical"):
        for other in others:
            for ours, theirs in zip(first[role].parts().values(), other[role].parts().values(), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_an_arrangement_does_not_hang_on_rounding():
    grid = PatchGrid(5, 6)
    random = np.random.default_rng(0)
    order = random.permutation(30)
    likeness = np.exp(-grid.reordered(order).distances / 1.5)  # equal distances, equal likeness
    for seed in range(3):
        noise = 1e-13 * np.random.default_rng(seed).normal(size=likeness.shape)
        found = measures.unscramble(likeness + noise, grid)
        assert measures.edge_recovery(found, order, grid) == 1


def test_patches_that_move_together_are_not_alike_by_rounding():
    change = np.full((6, 3), 0.1) * (1 + 1e-14 * np.random.default_rng(0).normal(size=(6, 3)))
    assert (measures.direction_similarity(change) == 0).all()


def test_an_image_whose_patches_are_alike_has_no_contents():
    images = torch.rand(1, 1, 4, 4, generator=generator()).repeat(3, 1, 3, 3)
    pairs = pair_contents(images, PatchGrid(3, 3))
    assert (pairs.squares == 0).all()
