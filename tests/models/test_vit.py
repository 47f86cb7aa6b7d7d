"""The minimal Vision Transformer: rotary embedding by its laws, and equal parameters for every head count."""

import math

import pytest
import torch

from wherefrom.config import ModelConfig
from wherefrom.geometry import PatchGrid
from wherefrom.models.vit import Rotary, ViT
from wherefrom.observe.capture import capture

GRID = PatchGrid(3, 4, num_prefix_tokens=2)


def rotary(grid: PatchGrid = GRID, head_dim: int = 8) -> Rotary:
    return Rotary(grid, head_dim).double()


def turned_slowly(x: list[float], row: float, column: float) -> list[float]:
    """Twin: each pair (x_n, x_{n+d/2}) as a complex number times e^{i·angle}, one after the other."""
    half, out = len(x) // 2, list(x)
    for n in range(half):
        place, number = (row, n) if n < half // 2 else (column, n - half // 2)
        turned = complex(x[n], x[n + half]) * complex(*polar(place * 100 ** (-number / (half // 2))))
        out[n], out[n + half] = turned.real, turned.imag
    return out


def polar(angle: float) -> tuple[float, float]:
    return math.cos(angle), math.sin(angle)


def test_rotary_is_the_slow_loop():
    grid = GRID
    x = torch.randn(2, 3, grid.num_tokens, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    places = [(0.0, 0.0)] * grid.num_prefix_tokens + [(float(y), float(x)) for y in range(3) for x in range(4)]
    slow = [
        [[turned_slowly(head[t], *places[t]) for t in range(len(places))] for head in image] for image in x.tolist()
    ]
    torch.testing.assert_close(
        Rotary(grid, 8).double()(x), torch.tensor(slow, dtype=torch.float64), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(rotary()(x)[:, :, :2], x[:, :, :2], rtol=0, atol=0)  # prefix tokens have no place


def test_scores_of_rotated_queries_and_keys_know_offsets_alone():
    grid = PatchGrid(4, 5)
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(8, generator=generator).expand(1, 1, grid.num_patches, 8) for _ in range(2))
    turn = Rotary(grid, 8)
    scores = (turn(q) @ turn(k).mT)[0, 0].flatten()
    index = torch.as_tensor(grid.offset_index).flatten()
    by_offset = [scores[index == offset] for offset in index.unique()]
    assert all(float(same.max() - same.min()) < 1e-5 for same in by_offset)
    means = torch.stack([same.mean() for same in by_offset])
    assert len(means.mul(1e4).round().unique()) > 0.9 * len(means)  # and offsets differ from each other


def rope(pool: str = "mean") -> ViT:
    torch.manual_seed(0)
    config = ModelConfig(width=16, depth=2, num_heads=2, patch_size=2, pool=pool, pos_embed="rope")
    return ViT(config, (3, 6, 8), 5).double()


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_patches_permuted_with_their_rotation_are_the_same_to_the_model(pool):
    model, generator = rope(pool), torch.Generator().manual_seed(2)
    images = torch.randn(2, 3, 6, 8, dtype=torch.float64, generator=generator)
    order = torch.randperm(12, generator=generator)
    patches = images.unfold(2, 2, 2).unfold(3, 2, 2).reshape(2, 3, 12, 2, 2)[:, :, order]
    shuffled = patches.reshape(2, 3, 3, 4, 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(2, 3, 6, 8)
    before = model(images)
    assert not torch.allclose(model(shuffled), before, atol=1e-6)  # on the grid of the model it is another image
    prefix = model.num_prefix_tokens
    turn = model.blocks[0].attn.rotary
    tokens = torch.cat([torch.arange(prefix), order + prefix])
    turn.cos, turn.sin = turn.cos[tokens], turn.sin[tokens]  # one rotary for all layers
    torch.testing.assert_close(model(shuffled), before, rtol=1e-12, atol=1e-12)


def test_the_tap_gets_queries_and_keys_as_they_were_turned():
    model = rope("class")
    images = torch.randn(2, 3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    attn, seen = model.blocks[0].attn, []
    handle = attn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    record = capture(model, images)[0]
    handle.remove()
    plain = attn.heads(attn.w_q(seen[0])), attn.heads(attn.w_k(seen[0]))
    for found, x in zip((record.q, record.k), plain, strict=True):
        torch.testing.assert_close(found, attn.rotary(x))
        assert not torch.allclose(found, x)


def test_rope_has_no_table_and_no_parameters_of_its_own():
    names = {name for name, _ in rope().named_parameters()}
    assert rope().pos_embed is None
    assert not [name for name in names if "rotary" in name or "pos" in name]
    assert set(rope().state_dict()) == names  # angles follow from the grid and are in no checkpoint


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("pos_embed", ["learned", "rope"])
def test_models_of_all_head_counts_have_the_same_parameters(width, pos_embed):
    shapes = []
    for num_heads in (1, 2, 4, 8, 16):
        model = ViT(ModelConfig(width=width, num_heads=num_heads, pos_embed=pos_embed), (3, 32, 32), 14)
        shapes.append({name: parameter.shape for name, parameter in model.named_parameters()})
    assert all(found == shapes[0] for found in shapes)
