"""Roles of heads: planted attention with known scores, loops and permutations as twins, laws."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from wherefrom.attention import AttentionRecord
from wherefrom.geometry import PatchGrid
from wherefrom.measures.contents import (
    dct_matrix,
    edge_strength,
    high_frequency_energy,
    pair_contents,
    patches_of,
)
from wherefrom.measures.key_roles import favourites, offset_weights, received, received_by_offsets
from wherefrom.measures.layer import layer_measurements
from wherefrom.measures.pairs import offset_sums
from wherefrom.measures.roles import offset_roles, permuted_offsets
from wherefrom.measures.sums import layer_sums
from wherefrom.roles import MINIMUM, distinct, roles_of, unspecialised

GRID = PatchGrid(5, 6, num_prefix_tokens=1)
PLACES = ("local", "self", "horizontal", "vertical", "offset")


def pixels(grid=GRID, images=6, side=4, seed=0):
    """Noise whose strength differs from patch to patch and from image to image."""
    generator = torch.Generator().manual_seed(seed)
    strength = torch.rand(images, 1, grid.height, grid.width, generator=generator).add(0.1)
    noise = torch.randn(images, 3, grid.height * side, grid.width * side, generator=generator)
    return noise * strength.repeat_interleave(side, 2).repeat_interleave(side, 3)


def planted(attn, grid=GRID) -> AttentionRecord:
    """A record with this attention, `image query key` or `query key`: one-hot queries, keys holding the scores."""
    attn = attn.expand(6, -1, -1).double()
    q = torch.eye(grid.num_tokens, dtype=torch.float64).expand(6, 1, -1, -1)
    k = attn.clamp(min=1e-30).log().mT[:, None]
    return AttentionRecord(q, k, torch.zeros(6, 1, grid.num_tokens, 1, dtype=torch.float64), 1.0)


def random_record(grid=GRID, heads=2, seed=0, strength=2.0, images=6) -> AttentionRecord:
    """Queries, keys and values without any structure, float64; values of another length than keys."""
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, images, heads, grid.num_tokens, 5, generator=generator, dtype=torch.float64)
    v = torch.randn(images, heads, grid.num_tokens, 3, generator=generator, dtype=torch.float64)
    return AttentionRecord(strength * q, k, v, 5**-0.5)


def table(record, grid=GRID, images=None) -> pd.DataFrame:
    contents = None if images is None else pair_contents(images, grid)
    rows = list(layer_measurements(layer_sums(record, {"model": grid}, contents=contents), 0, "probe"))
    columns = ("measure", "value", "split", "layer", "head")
    return pd.DataFrame([[getattr(row, name) for name in columns] for row in rows], columns=columns).assign(step=0)


def roles(record, grid=GRID, images=None) -> pd.DataFrame:
    return roles_of(table(record, grid, images)).set_index("role")


def on(chosen: np.ndarray, grid=GRID) -> torch.Tensor:
    """Attention even over the chosen keys of each patch; even over all tokens where there is none, and for prefixes."""
    weight = torch.zeros(grid.num_tokens, grid.num_tokens, dtype=torch.float64)
    prefix = grid.num_prefix_tokens
    weight[prefix:, prefix:] = torch.as_tensor(chosen).double()
    weight[weight.sum(1) == 0] = 1
    return weight / weight.sum(1, keepdim=True)


def offsets(grid=GRID):
    return grid.offsets[..., 0], grid.offsets[..., 1]


def chosen_by(role: str, grid=GRID) -> np.ndarray:
    dy, dx = offsets(grid)
    return {
        "local": (abs(dy) <= 1) & (abs(dx) <= 1) & ((dy != 0) | (dx != 0)),
        "self": (dy == 0) & (dx == 0),
        "horizontal": (dy == 0) & (dx != 0),
        "vertical": (dx == 0) & (dy != 0),
        "offset": (dy == -1) & (dx == 2),
    }[role]


@pytest.mark.parametrize("role", PLACES)
@pytest.mark.parametrize("grid", [GRID, PatchGrid(7, 4), PatchGrid(8, 8, 5)], ids=str)
def test_a_planted_head_has_its_role_and_no_other(role, grid):
    found = roles(planted(on(chosen_by(role, grid), grid), grid), grid)
    assert set(found.index[found["has"]]) == ({"local", "near"} if role == "local" else {role})
    if role != "offset":  # there the patches at the margin have no partner and look everywhere
        assert found.loc[role, "score"] == pytest.approx(1)


def test_scores_by_loop():
    generator = torch.Generator().manual_seed(0)
    attn = torch.randn(6, 31, 31, generator=generator, dtype=torch.float64).mul(2).softmax(-1)
    attn = 0.6 * attn + 0.4 * on(chosen_by("horizontal"))
    found = roles(planted(attn))
    mass, means = {"near": [], "row": [], "column": [], "self": []}, {}
    counts = dict.fromkeys(mass, 0)
    for image in attn:
        sums = dict.fromkeys(mass, 0.0)
        for i, j in itertools.product(range(30), repeat=2):
            p = float(image[i + 1, j + 1] / image[i + 1, 1:].sum())
            dy, dx = j // 6 - i // 6, j % 6 - i % 6
            means.setdefault((dy, dx), []).append(p)
            near = abs(dy) <= 1 and abs(dx) <= 1
            kinds = (
                ["self"]
                if i == j
                else [n for n, is_it in (("near", near), ("row", not dy), ("column", not dx)) if is_it]
            )
            for kind in kinds:
                sums[kind] += p / 30
                counts[kind] += 1 / 6 / 870
        for kind, value in sums.items():
            mass[kind].append(value)
    excess = {k: (np.array(m) - counts[k] * (1 - np.array(mass["self"]))) / (1 - counts[k]) for k, m in mass.items()}
    assert found.loc["local", "score"] == pytest.approx(excess["near"].mean())
    row, column = (np.mean(mass[name]) for name in ("row", "column"))
    assert found.loc["horizontal", "score"] == pytest.approx(min(excess["row"].mean(), row - column))
    assert found.loc["vertical", "score"] == pytest.approx(min(excess["column"].mean(), column - row))
    assert found.loc["self", "score"] == pytest.approx((np.mean(mass["self"]) - 1 / 30) / (29 / 30))
    common = sorted((np.mean(p) for o, p in means.items() if o != (0, 0) and len(p) / 6 >= 7.5), reverse=True)
    assert found.loc["offset", "score"] == pytest.approx(common[0] - common[1])
    half = 2.5706 * excess["near"].std(ddof=1) / math.sqrt(6)  # Student's t, 5 degrees of freedom
    assert found.loc["local", "low"] == pytest.approx(excess["near"].mean() - half, rel=1e-4)


def test_even_attention_has_no_role_but_global():
    found = roles(planted(torch.full((31, 31), 1 / 31)), images=pixels())
    assert list(found.index[found["has"]]) == ["global"]
    assert found.loc["global", "score"] == pytest.approx(1)
    assert found.loc["prefix", "score"] == pytest.approx(0)


def test_attention_on_prefix_tokens():
    attn = torch.full((31, 31), 0.5 / 30)
    attn[:, 0] = 0.5
    found = roles(planted(attn))
    assert found.loc["prefix", "score"] == pytest.approx((0.5 - 1 / 31) / (30 / 31))
    assert found.loc["prefix", "has"]
    assert found.loc["local", "score"] == pytest.approx(0)


def test_transposing_the_grid_swaps_horizontal_and_vertical():
    generator = torch.Generator().manual_seed(1)
    grid, turned = PatchGrid(4, 5), PatchGrid(5, 4)
    attn = torch.rand(6, 20, 20, generator=generator, dtype=torch.float64) + 3 * on(chosen_by("vertical", grid), grid)
    attn /= attn.sum(-1, keepdim=True)
    order = torch.arange(20).reshape(4, 5).T.flatten()
    here, there = roles(planted(attn, grid), grid), roles(planted(attn[:, order][:, :, order], turned), turned)
    names = {"horizontal": "vertical", "vertical": "horizontal"}
    columns = ["score", "low", "high", "threshold"]
    for role in (*PLACES, "near", "direction", "place", "sink", "global"):
        ours, theirs = here.loc[role, columns], there.loc[names.get(role, role), columns]
        assert ours.tolist() == pytest.approx(theirs.tolist()), role


def test_threshold_is_that_of_permuted_offsets():
    """Mean and deviation in closed form against permutations drawn one by one."""
    generator = torch.Generator().manual_seed(2)
    rng = np.random.default_rng(0)
    counts = torch.as_tensor(PatchGrid(3, 4).offset_counts).double().flatten()
    mass, weights = (torch.rand(1, 35, generator=generator, dtype=torch.float64) for _ in range(2))
    total, drawn = float(mass.sum() / counts.sum()), []
    for _ in range(4000):
        order, score = rng.permutation(35), 0.0
        z = (mass[0] / counts - total).numpy() * counts.sqrt().numpy()
        for offset in range(35):
            n = float(counts[offset])
            score += float(weights[0, offset]) * n * (total + z[order[offset]] / math.sqrt(n))
        drawn.append(score)
    mean, deviation = permuted_offsets(mass, weights, counts)
    assert float(mean) == pytest.approx(np.mean(drawn), abs=4 * float(deviation) / math.sqrt(4000))
    assert float(deviation) == pytest.approx(np.std(drawn), rel=0.05)


@pytest.mark.parametrize(
    "grid", [PatchGrid(1, 6), PatchGrid(6, 1), PatchGrid(2, 2), PatchGrid(1, 1), PatchGrid(2, 5, 1)]
)
def test_narrow_grids_give_nulls(grid):
    generator = torch.Generator().manual_seed(3)
    attn = torch.rand(6, grid.num_tokens, grid.num_tokens, generator=generator, dtype=torch.float64)
    found = roles(planted(attn / attn.sum(-1, keepdim=True), grid), grid, pixels(grid))
    assert found.loc[["local", "near", "horizontal", "vertical", "offset", "direction"], "score"].isna().all()
    assert not found["has"].drop(["global", "self"]).any()


@pytest.mark.parametrize("tile", [40, 10**6])
def test_content_correlations_by_loop(tile, monkeypatch):
    monkeypatch.setattr("wherefrom.attention.TILE_ELEMENTS", tile)
    images, generator = pixels(), torch.Generator().manual_seed(4)
    attn = torch.randn(6, 31, 31, generator=generator, dtype=torch.float64).softmax(-1)
    found = roles(planted(attn), images=images)
    patches = patches_of(images, GRID)
    edges, details = edge_strength(patches), (high_frequency_energy(patches) + 1e-4).log()
    pairs = {
        "contour": lambda image, i, j: float(edges[image, j]),
        "texture": lambda image, i, j: -abs(float(details[image, i]) - float(details[image, j])),
    }
    for role, content in pairs.items():
        own, next_ = ([_correlation(attn[b], content, (b + k) % 6) for b in range(6)] for k in (0, 1))
        assert found.loc[role, "score"] == pytest.approx(np.mean(own), abs=1e-5)
        null = np.mean(next_) + 4 * np.std(next_, ddof=1) / math.sqrt(6)
        assert found.loc[role, "threshold"] == pytest.approx(max(null, MINIMUM[role]), abs=1e-5)


def _correlation(attn, content, image: int) -> float:
    """Pearson correlation of attention and content over pairs, after the mean of each offset was taken from both."""
    values = {}
    for i, j in itertools.product(range(30), repeat=2):
        if i != j:
            p = float(attn[i + 1, j + 1] / attn[i + 1, 1:].sum())
            values.setdefault((j // 6 - i // 6, j % 6 - i % 6), []).append((p, content(image, i, j)))
    left = np.concatenate([np.array(v) - np.mean(v, axis=0) for v in values.values()])
    return float((left[:, 0] * left[:, 1]).sum() / math.sqrt((left[:, 0] ** 2).sum() * (left[:, 1] ** 2).sum()))


@pytest.mark.parametrize("role", ["contour", "texture"])
def test_heads_that_follow_contents_are_found_and_places_are_not_mistaken_for_them(role):
    images = pixels()
    pairs = pair_contents(images, GRID)
    x = pairs._values(slice(None))[0 if role == "contour" else 1].double()
    x = (x - x.mean()) / x.std()
    attn = torch.full((6, 31, 31), 1 / 31, dtype=torch.float64)
    attn[:, 1:, 1:] = (2 * x).softmax(-1) * 30 / 31
    assert roles(planted(attn), images=images).loc[role, "has"]
    moved = roles(planted(attn.roll(3, 0)), images=images)
    assert not moved.loc[role, "has"]
    nearby = (-torch.as_tensor(GRID.distances)).softmax(-1)
    attn[:, 1:, 1:] = nearby * 30 / 31
    smooth = images * torch.linspace(0.1, 2, 24)  # likeness falls with distance, as attention does
    assert not roles(planted(attn), images=smooth).loc[role, "has"]


def test_pixels_of_one_patch():
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    ramp, edge, checks = (p[None, None] for p in (3 * x + 4 * y, (x > 1).float(), (-1) ** (x + y)))
    assert float(edge_strength(ramp)[0]) == pytest.approx(5)
    assert float(edge_strength(edge)[0]) == pytest.approx(math.sqrt(1 / 3))
    assert float(edge_strength(checks)[0]) == pytest.approx(0, abs=1e-6)
    assert float(high_frequency_energy(torch.ones(1, 1, 4, 4))[0]) == pytest.approx(0, abs=1e-12)
    assert float(high_frequency_energy(checks)[0]) == pytest.approx(1, abs=0.2)
    assert float(high_frequency_energy(torch.cos(torch.pi * (x + 0.5) / 4)[None, None])[0]) == pytest.approx(
        0, abs=1e-12
    )
    torch.testing.assert_close(dct_matrix(5) @ dct_matrix(5).T, torch.eye(5).double())
    assert pair_contents(torch.zeros(2, 3, 10, 10), PatchGrid(4, 4)) is None
    assert pair_contents(torch.zeros(2, 3, 4, 4), PatchGrid(4, 4)) is None


def test_which_head_has_which_role():
    rows = [("", 0.5, 0.2), ("_low", 0.3, 0.05), ("_high", 0.7, 0.35), ("_threshold", 0.2, 0.01)]
    values = [
        {"measure": f"role_local{part}", "value": value, "split": "probe", "step": 0, "layer": 1, "head": head}
        for part, *both in rows
        for head, value in enumerate(both)
    ]
    values += [{"measure": "attn", "value": 1.0, "split": "probe", "step": 0, "layer": 1, "head": 0}]
    found = roles_of(pd.DataFrame(values))
    assert found[["head", "role", "score", "low", "high", "threshold", "has"]].to_numpy().tolist() == [
        [0, "local", 0.5, 0.3, 0.7, 0.2, True],
        [1, "local", 0.2, 0.05, 0.35, MINIMUM["local"], False],
    ]
    assert unspecialised(found)["unspecialised"].tolist() == [False, True]
    assert roles_of(pd.DataFrame(values[-1:])).empty


def test_noise_has_no_place_even_without_the_least_effect():
    """Attention that differs from pair to pair by chance, alike in all images, as at initialisation."""
    grid, generator = PatchGrid(6, 6), torch.Generator().manual_seed(5)
    fixed, fresh = (torch.randn(n, 400, 36, 36, generator=generator, dtype=torch.float64) for n in (1, 4))
    found = offset_roles(offset_sums((fixed + 0.1 * fresh).softmax(-1), grid), grid)
    assert set(found) == {*PLACES, "near"}
    assert sum(int((score.low > score.threshold).sum()) for score in found.values()) <= 1


def test_a_local_head_is_not_vertical_because_the_grid_is_wide():
    grid = PatchGrid(5, 14)
    found = roles(planted(on(chosen_by("local", grid), grid), grid), grid)
    assert list(found.index[found["has"]]) == ["local", "near"]


# ---- near: the same head at twice the resolution


def upsampled(attn: torch.Tensor, grid: PatchGrid) -> torch.Tensor:
    """Attention of the grid with twice the rows and columns: each patch becomes four, attention is shared by four."""
    small = np.arange(4 * grid.num_patches)
    small = small // (4 * grid.width) * grid.width + small % (2 * grid.width) // 2
    return attn[..., small, :][..., small] / 4


@pytest.mark.parametrize("side", [8, 14])
def test_near_is_about_the_same_at_twice_the_resolution_and_local_is_not(side):
    grid, fine = PatchGrid(side, side), PatchGrid(2 * side, 2 * side)
    attn = (-((8 * torch.as_tensor(grid.distances) / side) ** 2) / 2).softmax(-1)  # an eighth of the side wide
    here, there = (
        offset_roles(offset_sums(pairs.expand(2, 1, -1, -1), places), places)
        for pairs, places in ((attn, grid), (upsampled(attn, grid), fine))
    )
    near, local = ([float(roles[name].score[0]) for roles in (here, there)] for name in ("near", "local"))
    assert near[1] == pytest.approx(near[0], rel=0.2)
    assert min(near) > 0.5
    assert local[1] < 0.5 * local[0]
    assert (near[0] == local[0]) == (side == 8)  # there an eighth of the side is one patch


@pytest.mark.parametrize("grid", [PatchGrid(12, 14), PatchGrid(20, 30)], ids=str)
def test_near_by_loop(grid):
    attn = random_record(grid, 1).attn()
    radius = {12: 2, 20: 2}[grid.height]
    scores = []
    for image in attn[:, 0]:
        mass, inside, others = 0.0, 0, 0
        for i in range(grid.num_patches):
            for j in range(grid.num_patches):
                steps = max(abs(j // grid.width - i // grid.width), abs(j % grid.width - i % grid.width))
                others += steps > 0
                if 0 < steps <= radius:
                    inside, mass = inside + 1, mass + float(image[i, j])
        own = float(image.diagonal().sum()) / grid.num_patches
        uniform = inside / others
        scores.append((mass / grid.num_patches - uniform * (1 - own)) / (1 - uniform))
    found = offset_roles(offset_sums(attn, grid), grid)["near"]
    assert float(found.score) == pytest.approx(np.mean(scores), abs=1e-12)


# ---- direction


def looking(direction: tuple[int, int], grid=GRID) -> np.ndarray:
    dy, dx = offsets(grid)
    return dy * direction[0] + dx * direction[1] > 0


@pytest.mark.parametrize("direction", [(-1, 0), (1, 0), (0, -1), (0, 1)])
@pytest.mark.parametrize("grid", [PatchGrid(8, 8, 1), PatchGrid(14, 6)], ids=str)
def test_a_head_that_looks_to_one_side_has_a_direction(direction, grid):
    found = roles(planted(on(looking(direction, grid), grid), grid), grid)
    assert found.loc["direction", "has"]
    assert not found.loc[["local", "near", "self", "place", "sink"], "has"].any()
    both = roles(
        planted(on(looking(direction, grid) | looking((-direction[0], -direction[1]), grid), grid), grid), grid
    )
    assert both.loc["direction", "score"] == pytest.approx(0, abs=1e-9)


def test_one_patch_up_is_a_direction():
    """Permuted offsets would give such a head a direction in every permutation, and no head could have it."""
    grid = PatchGrid(8, 8)
    dy, dx = offsets(grid)
    found = roles(planted(on((dy == -1) & (dx == 0), grid), grid), grid)
    assert found.loc[["offset", "direction"], "has"].all()


def test_direction_and_its_threshold_by_loop():
    attn = random_record(GRID, 1).attn()[:, 0]
    found = roles(random_record(GRID, 1))
    moved, lengths, squares = np.zeros((6, 2)), np.zeros(6), []
    for b, image in enumerate(attn.tolist()):
        for i, j in itertools.product(range(30), repeat=2):
            p = image[i + 1][j + 1] / sum(image[i + 1][1:]) / 30
            d = (j // 6 - i // 6) / 5, (j % 6 - i % 6) / 6
            moved[b] += p * np.array(d)
            lengths[b] += p * math.hypot(*d)
        squares.append(sum((image[i + 1][j + 1] / sum(image[i + 1][1:])) ** 2 for i in range(30) for j in range(30)))
    axis = int(np.abs(moved.mean(0)).argmax())
    score = abs(moved.mean(0)[axis]) / lengths.mean()
    assert found.loc["direction", "score"] == pytest.approx(score, abs=1e-12)
    positions = [(i // 6) / 5 if axis == 0 else (i % 6) / 6 for i in range(30)]
    variance = (np.mean(squares) - 1) * 30 * np.var(positions) / 29 / 30**2
    uniform = np.mean([math.hypot((j // 6 - i // 6) / 5, (j % 6 - i % 6) / 6) for i in range(30) for j in range(30)])
    threshold = 4 * math.sqrt(variance) / uniform
    assert found.loc["direction", "threshold"] == pytest.approx(max(threshold, MINIMUM["direction"]), abs=1e-12)


# ---- place and sink


def keys_for_all(chosen, grid=GRID) -> torch.Tensor:
    """Half of all attention on the chosen tokens of each image, `image chosen`; the other half on all."""
    weight = torch.full((len(chosen), grid.num_tokens, grid.num_tokens), 0.5 / grid.num_tokens, dtype=torch.float64)
    for image, keys in enumerate(chosen):
        weight[image, :, keys] += 0.5 / len(keys)
    return weight


def test_favourites_share_ties():
    weights = favourites(torch.tensor([3.0, 1.0, 2.0, 2.0, 2.0]), 2)
    assert weights.tolist() == pytest.approx([1, 0, 1 / 3, 1 / 3, 1 / 3])
    assert favourites(torch.ones(4), 1).tolist() == [0.25] * 4


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_the_same_positions_for_all_are_a_place_and_different_ones_are_a_sink(prefix):
    grid = PatchGrid(8, 8, prefix)
    tokens = torch.arange(prefix, grid.num_tokens)
    same = roles(planted(keys_for_all([tokens[[5, 20, 40, 55]].tolist()] * 6, grid), grid), grid)
    assert same.loc[["place", "sink"], "has"].all()
    assert same.loc["place", "score"] == pytest.approx(0.5 / (0.5 + 0.5 * 64 / grid.num_tokens), abs=0.02)
    generator = torch.Generator().manual_seed(6)
    own = [(prefix + torch.randperm(64, generator=generator)[:4]).tolist() for _ in range(6)]
    each = roles(planted(keys_for_all(own, grid), grid), grid)
    assert each.loc["sink", "has"]
    assert not each.loc["place", "has"]
    assert each.loc["sink", "score"] == pytest.approx(0.5, abs=0.02)


def test_prefix_tokens_may_be_a_sink_but_are_no_place():
    grid = PatchGrid(8, 8, 2)
    found = roles(planted(keys_for_all([[0, 1]] * 6, grid), grid), grid)
    assert found.loc[["sink", "prefix"], "has"].all()
    assert not found.loc["place", "has"]


def test_a_head_whose_every_query_looks_at_a_patch_of_its_own_has_no_place():
    """The same in all images, but not the same for all queries: some patches get more by chance, to nobody's favour."""
    grid, generator = PatchGrid(8, 8), torch.Generator().manual_seed(7)
    attn = torch.nn.functional.one_hot(torch.randint(64, (64,), generator=generator), 64).double()
    found = roles(planted(0.9 * attn + 0.1 / 64, grid), grid)
    assert not found.loc[["place", "sink"], "has"].any()
    top = attn.sum(0).sort(descending=True).values[:4].sum() / 64
    assert (top - 1 / 16) / (15 / 16) > MINIMUM["place"]  # so it would be, if all queries chose and all were measured


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("tile", [150, 10**6])
def test_place_and_sink_by_loop(prefix, tile, monkeypatch):
    monkeypatch.setattr("wherefrom.attention.TILE_ELEMENTS", tile)
    grid = PatchGrid(6, 7, prefix)
    record = random_record(grid, 1)
    found = roles(record, grid)
    attn = record.attn()[:, 0, prefix:].numpy()
    rows = attn[..., prefix:] / attn[..., prefix:].sum(-1, keepdims=True)
    colour = [(i // 7 + i % 7) % 2 for i in range(42)]
    sinks, places = [], []
    for image in range(6):
        sink = place = 0.0
        for c in (0, 1):
            measuring, choosing = ([i for i in range(42) if (colour[i] == c) == same] for same in (True, False))
            liked = sum(attn[image][i] for i in choosing)
            sink += sum(
                attn[image][i][j] for i in measuring for j in sorted(range(42 + prefix), key=lambda j: -liked[j])[:3]
            )
            liked = sum(rows[b][i] for b in range(6) if b % 2 != image % 2 for i in choosing)
            place += sum(rows[image][i][j] for i in measuring for j in sorted(range(42), key=lambda j: -liked[j])[:3])
        sinks.append((sink / 42 - 3 / (42 + prefix)) / (1 - 3 / (42 + prefix)))
        places.append((place / 42 - 3 / 42) / (1 - 3 / 42))
    assert found.loc["sink", "score"] == pytest.approx(np.mean(sinks), abs=1e-12)
    assert found.loc["place", "score"] == pytest.approx(np.mean(places), abs=1e-12)
    half = 2.5706 * np.std(places, ddof=1) / math.sqrt(6)
    assert found.loc["place", "high"] == pytest.approx(np.mean(places) + half, rel=1e-4)


def test_threshold_of_favourites_is_that_of_keys_in_random_order():
    """Uniform but for four keys of each query: 4 standard deviations of the mass on any 4 of 64 keys, drawn by hand."""
    grid, rng = PatchGrid(8, 8), np.random.default_rng(0)
    row = np.r_[np.full(4, 0.2), np.full(60, 0.2 / 60)]
    attn = torch.as_tensor(np.stack([rng.permutation(row) for _ in range(64)]))
    wide = table(planted(attn, grid), grid).set_index("measure")["value"]
    drawn = [np.mean([rng.permutation(row)[:4].sum() for _ in range(64)]) for _ in range(2000)]
    expected = 4 * np.std(drawn) / (1 - 4 / 64)
    for role in ("place", "sink"):  # the border adds what an offset map of noise puts on its own favourites
        assert wide[f"role_{role}_threshold"] == pytest.approx(expected, abs=0.25 * expected)


def test_a_head_that_knows_offsets_alone_is_fitted():
    grid = PatchGrid(5, 6)
    scores = torch.randn(3, 9, 11, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    attn = scores.flatten(1)[:, torch.as_tensor(grid.offset_index)].softmax(-1)
    weights = offset_weights(offset_sums(attn, grid), grid)
    ratio = weights / scores.exp()
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio), rtol=1e-4, atol=0)
    got = received_by_offsets(offset_sums(attn, grid)[None], grid)
    torch.testing.assert_close(got, received(attn, grid, slice(None)), rtol=1e-4, atol=0)


def test_looking_far_is_no_place_though_corners_are_looked_at_by_all():
    grid = PatchGrid(14, 14)
    attn = (0.6 * torch.as_tensor(grid.distances)).softmax(-1)
    found = roles(planted(attn, grid), grid)
    assert found.loc[["place", "sink"], "score"].gt(0.2).all()
    assert not found.loc[["place", "sink"], "has"].any()


# ---- similar


def by_similarity(x: torch.Tensor, grid=GRID) -> torch.Tensor:
    """Attention of patches that follows x, `image patch patch`, uniform over tokens for prefixes."""
    prefix, tokens = grid.num_prefix_tokens, grid.num_tokens
    attn = torch.full((len(x), tokens, tokens), 1 / tokens, dtype=torch.float64)
    attn[:, prefix:, prefix:] = (3 * x).softmax(-1) * grid.num_patches / tokens
    return attn


@pytest.mark.parametrize("tile", [40, 10**6])
@pytest.mark.parametrize("grid", [GRID, PatchGrid(4, 3)], ids=str)
def test_similar_by_loop(grid, tile, monkeypatch):
    monkeypatch.setattr("wherefrom.attention.TILE_ELEMENTS", tile)
    record, prefix, patches = random_record(grid, 2), grid.num_prefix_tokens, grid.num_patches
    found = roles_of(table(record, grid)).set_index(["head", "role"])
    attn = record.attn().numpy()
    for head in (0, 1):
        kinds = []
        for vectors in (record.k, record.v):
            r = {0: [], 1: []}
            for image, ahead in itertools.product(range(6), (0, 1)):
                u = vectors[(image + ahead) % 6, head].numpy()
                pairs = {}
                for i, j in itertools.product(range(patches), repeat=2):
                    if i != j:
                        row = attn[image, head, i + prefix]
                        a, b = u[i + prefix], u[j + prefix]
                        x = float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
                        offset = j // grid.width - i // grid.width, j % grid.width - i % grid.width
                        pairs.setdefault(offset, []).append((row[j + prefix] / row[prefix:].sum(), x))
                left = np.concatenate([np.array(one) - np.mean(one, axis=0) for one in pairs.values()])
                p, x = left.T
                r[ahead].append((p @ x) / math.sqrt((p @ p) * (x @ x)))
            kinds.append(r)
        best = max(kinds, key=lambda r: np.mean(r[0]))
        assert found.loc[(head, "similar"), "score"] == pytest.approx(np.mean(best[0]), abs=1e-12)
        null = np.mean(best[1]) + 4 * np.std(best[1], ddof=1) / math.sqrt(6)
        assert found.loc[(head, "similar"), "threshold"] == pytest.approx(max(null, MINIMUM["similar"]), abs=1e-12)


@pytest.mark.parametrize("kind", ["keys", "values"])
def test_heads_that_look_at_what_is_similar_are_found_and_what_is_similar_in_other_images_is_not(kind):
    generator = torch.Generator().manual_seed(9)
    unit = torch.nn.functional.normalize(torch.randn(6, 31, 3, generator=generator, dtype=torch.float64), dim=-1)
    noise = torch.randn(6, 1, 31, 8, generator=generator, dtype=torch.float64)
    attn = by_similarity((unit @ unit.mT)[:, 1:, 1:])

    def found(vectors):
        both = {"keys": (vectors[:, None], noise), "values": (noise, vectors[:, None])}[kind]
        q = torch.zeros_like(both[0])  # scores are the bias alone
        return roles(AttentionRecord(q, *both, 1.0, bias=attn.log()[:, None])).loc["similar"]

    assert found(unit)["has"]
    assert found(unit)["score"] > 0.7
    assert not found(unit.roll(3, 0))["has"]
    assert abs(found(unit.roll(3, 0))["score"]) < 0.1


def test_similar_in_position_alone_is_not_similar():
    """Keys and values that are codes of positions: attention follows their cosines, and the offset explains it."""
    grid = PatchGrid(6, 6)
    angle = torch.as_tensor(grid.coordinates).double() * torch.pi / 6
    codes = torch.cat([angle.cos(), angle.sin()], 1).expand(6, 1, -1, -1)
    noise = 0.05 * torch.randn(6, 1, 36, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = roles(AttentionRecord(2 * codes, codes, codes + noise, 1.0), grid)
    assert not found.loc["similar", "has"]


def test_similar_is_blind_to_length_and_to_values_that_are_all_the_same():
    record = random_record()
    k = record.k * torch.rand(6, 2, 31, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64).add(0.1)
    attn = record.attn().log()  # the same attention, whatever is done to the keys
    longer = AttentionRecord(record.q, k, 3 * record.v, record.scale, bias=attn - (record.q @ k.mT) * record.scale)
    first, second = (roles_of(table(one)).query("role == 'similar'")["score"].to_numpy() for one in (record, longer))
    assert first == pytest.approx(second, abs=1e-9)
    flat = AttentionRecord(torch.zeros_like(record.q), torch.ones_like(k), torch.zeros_like(record.v), 1.0)
    assert roles_of(table(flat)).query("role == 'similar'")["score"].isna().all()


# ---- near and local count once


def test_near_counts_once():
    rows = [(0, "local", True), (0, "near", True), (1, "local", False), (1, "near", True)]
    found = pd.DataFrame([{"layer": 0, "head": h, "role": role, "has": has} for h, role, has in rows])
    assert distinct(found)["has"].tolist() == [True, False, False, True]
