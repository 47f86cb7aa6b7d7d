"""Grids on which next to nothing exists: what is not there is NaN, and nothing warns or fails."""

import math

import pytest
import torch

import wherefrom as wf
from wherefrom import measures
from wherefrom.attention import AttentionRecord
from wherefrom.catalogue import MEASURES
from wherefrom.config import ModelConfig
from wherefrom.geometry import PatchGrid
from wherefrom.measures.contents import pair_contents
from wherefrom.measures.layer import layer_maps, layer_measurements
from wherefrom.measures.sums import layer_sums
from wherefrom.models.vit import ViT
from wherefrom.observe.positions import position_arrays, position_measurements
from wherefrom.observe.probe import probe

SIZES = [(1, 1), (1, 2), (1, 5), (4, 1), (2, 2), (2, 3), (3, 3)]


def rows_of(grid: PatchGrid, images: int, heads: int) -> dict:
    generator = torch.Generator().manual_seed(0)
    shape = (images, heads, grid.num_tokens, 3)
    q, k, v, grad_z = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4))
    pixels = torch.randn(images, 1, 4 * grid.height, 4 * grid.width, generator=generator)
    record = AttentionRecord(q, k, v, 0.5, grad_z)
    true = grid.reordered(range(grid.num_patches)[::-1])
    sums = layer_sums(record, {"model": grid, "true": true}, contents=pair_contents(pixels, grid))
    assert all(array.shape[0] == heads for array in layer_maps(sums).values())
    rows = list(layer_measurements(sums, 0, "probe"))
    return {(r.measure, r.head, r.relation, r.distance, r.grid): r.value for r in rows}


def in_range(measure: str, value: float) -> bool:
    known, room = MEASURES[measure], 1e-6
    low, high = (-math.inf if known.low is None else known.low), (math.inf if known.high is None else known.high)
    return math.isnan(value) or low - room <= value <= high + room


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_attention_is_measured_on_any_grid(size, heads, images, prefix):
    grid = PatchGrid(*size, num_prefix_tokens=prefix)
    rows = rows_of(grid, images, heads)
    assert not [key for key, value in rows.items() if not in_range(key[0], value)]
    patches, tokens = grid.num_patches, grid.num_tokens
    assert rows["attn", 0, "self", None, "model"] <= 1
    assert 0 <= rows["attention_entropy", 0, None, None, None] <= math.log(tokens) + 1e-12
    assert rows["attention_distance", 0, None, None, None] <= math.hypot(size[0] - 1, size[1] - 1)
    assert math.isnan(rows["row_divergence", None, None, None, None]) == (heads == 1 or images == 1)
    assert math.isnan(rows["positional_share", 0, None, None, None]) == (images == 1 or patches == 1)
    assert (("attn", 0, "prefix", None, "model") in rows) == (prefix > 0)
    if images == 1 or patches == 1:
        parts = [rows[f"positional_{part}_share", 0, None, None, None] for part in ("offset", "key", "pair")]
        assert all(map(math.isnan, parts))


def test_one_patch_looks_at_itself():
    rows = rows_of(PatchGrid(1, 1), 2, 2)
    assert rows["attn", 1, "self", None, "model"] == 1
    assert rows["pressure", 1, "self", None, "model"] == pytest.approx(0, abs=1e-12)
    assert rows["attention_distance", 1, None, None, None] == 0
    assert rows["offset_sharpness", 1, None, None, None] == pytest.approx(0, abs=1e-12)
    assert rows["argmax_agreement", 1, None, None, None] == 1
    assert rows["row_divergence", None, None, None, None] == pytest.approx(0, abs=1e-12)
    for relation in ("edge", "corner", "far", "row", "column", "mid", "between"):
        assert math.isnan(rows["attn", 1, relation, None, "model"])


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_position_embeddings_are_measured_on_any_grid(size):
    grid = PatchGrid(*size)
    table = torch.randn(grid.num_patches, 6, generator=torch.Generator().manual_seed(0))
    rows = {(r.measure, r.relation, r.distance): r.value for r in position_measurements(table, {"model": grid}, 9)}
    assert not [key for key, value in rows.items() if not in_range(key[0], value)]
    assert math.isnan(rows["near_minus_far", None, None]) == (grid.num_patches == 1 or not far(grid))
    assert math.isnan(rows["coordinate_r2_row", None, None]) == (size[0] == 1)
    arrays = position_arrays(table, grid)
    assert arrays["pos_layout"].shape == (grid.num_patches, 2)
    assert torch.isfinite(arrays["pos_layout"]).all()
    if grid.num_patches == 1:
        kept = [key for key, value in rows.items() if not math.isnan(value)]
        assert kept == [("pos_similarity", "self", None), ("pos_similarity", None, 0)]


def far(grid: PatchGrid) -> bool:
    return bool(grid.relation_pairs("far").any())


@pytest.mark.parametrize("pool", ["mean", "class"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_model_of_any_grid_is_probed(size, pool):
    torch.manual_seed(0)
    height, width = size
    config = ModelConfig(width=8, depth=2, num_heads=2, patch_size=2, pool=pool)
    model, images = ViT(config, (1, 2 * height, 2 * width), 3), torch.randn(2, 1, 2 * height, 2 * width)
    rows, arrays = probe(model, images, torch.tensor([0, 1]), permutations=9)
    assert not [row for row in rows if row.value is None or not in_range(row.measure, row.value)]
    assert arrays["pos_embed"].shape == (height * width, 8)
    assert wf.capture(model, images, torch.tensor([0, 1]))[1].attn().shape[-1] == model.grid.num_tokens
    assert measures.offset_map(torch.ones(height * width, height * width), model.grid).eq(1).all()
