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
from wherefrom.measures.layer import layer_measurements
from wherefrom.measures.pairs import offset_sums
from wherefrom.measures.roles import offset_roles, permuted_offsets
from wherefrom.measures.sums import layer_sums
from wherefrom.roles import MINIMUM, roles_of, unspecialised

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
    assert list(found.index[found["has"]]) == [role]
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
    for role in (*PLACES, "global"):
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
    assert found.loc[["local", "horizontal", "vertical", "offset"], "score"].isna().all()
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
    assert set(found) == set(PLACES)
    assert sum(int((score.low > score.threshold).sum()) for score in found.values()) <= 1


def test_a_local_head_is_not_vertical_because_the_grid_is_wide():
    grid = PatchGrid(5, 14)
    found = roles(planted(on(chosen_by("local", grid), grid), grid), grid)
    assert list(found.index[found["has"]]) == ["local"]
