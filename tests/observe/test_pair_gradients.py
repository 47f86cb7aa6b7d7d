"""The gradient on w_q and w_k by relation of pairs: its parts are autograd's, and nothing is left over."""

import pytest
import torch
import torch.nn.functional as F

from wherefrom.config import ModelConfig
from wherefrom.geometry import PatchGrid
from wherefrom.models.vit import ViT
from wherefrom.observe import pair_gradients
from wherefrom.observe.capture import tap
from wherefrom.observe.cuts import NOTHING, pairs_kept, parse_cut
from wherefrom.observe.pair_gradients import PairParts


def attention(pool: str = "mean") -> tuple[ViT, list, dict]:
    """A model after one backward pass, what w_q of each layer was given, and attention's records."""
    torch.manual_seed(0)
    vit = ViT(ModelConfig(width=8, depth=2, num_heads=2, patch_size=2, pool=pool), (3, 8, 8), 4).double()
    images, given, records = torch.randn(6, 3, 8, 8, dtype=torch.float64), [], {}
    for block in vit.blocks:
        block.attn.w_q.register_forward_hook(lambda _, inputs, output: given.append(inputs[0].detach()))
    with tap(records.__setitem__, 2):
        F.cross_entropy(vit(images), torch.arange(6) % 4).backward()
    return vit, given, records


def parts(grid, *relations, cut=NOTHING):
    return PairParts.of(grid, relations, pairs_kept(cut, grid), torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize("relations", [("edge", "far"), ("self", "edge", "corner", "between", "far")])
@pytest.mark.parametrize("pool", ["mean", "class"])
def test_the_sum_over_parts_is_autograds_gradient(pool, relations, monkeypatch):
    monkeypatch.setattr(pair_gradients, "TILE_ELEMENTS", 300)  # tiles of some queries of one image
    vit, given, records = attention(pool)
    for number, block in enumerate(vit.blocks):
        found = parts(vit.grid, *relations).split(records[number], given[number])
        assert [route.kind for route in found["q"].routes] == [*relations, "other"]
        bias = block.attn.w_q.bias.grad
        torch.testing.assert_close(
            found["q"].total, torch.cat([block.attn.w_q.weight.grad, bias[:, None]], 1), rtol=1e-10, atol=1e-14
        )
        torch.testing.assert_close(found["k"].total[:, :-1], block.attn.w_k.weight.grad, rtol=1e-10, atol=1e-14)
        assert found["k"].total[:, -1].abs().max() < 1e-14, "the same added to all keys changes nothing"


def test_each_part_is_the_sum_over_its_pairs():
    """Twin: loops over images, heads and pairs."""
    vit, given, records = attention("class")
    record, y, grid = records[0], given[0], vit.grid
    pressure, relation = record.pressure(), {}
    for name in ("edge", "far"):
        for i, j in zip(*grid.relation_pairs(name).nonzero(), strict=True):
            relation[int(i) + 1, int(j) + 1] = name  # after the class token
    expected = {(kind, name): torch.zeros(8, 9).double() for kind in "qk" for name in ("edge", "far", "other")}
    for b in range(len(y)):
        for i in range(grid.num_tokens):
            for j in range(grid.num_tokens):
                name = relation.get((i, j), "other")
                for head in range(2):
                    rows, grad = slice(4 * head, 4 * head + 4), -record.scale * pressure[b, head, i, j] / len(y)
                    for kind, own, token in (("q", record.k[b, head, j], i), ("k", record.q[b, head, i], j)):
                        given_there = torch.cat([y[b, token], torch.ones(1).double()])
                        expected[kind, name][rows] += grad * torch.outer(own, given_there)
    found = parts(grid, "edge", "far").split(record, y)
    for (kind, name), value in expected.items():
        part = found[kind].gradients[["edge", "far", "other"].index(name)]
        torch.testing.assert_close(part, value, rtol=0, atol=1e-15)
        assert part.abs().max() > 1e-6


def test_pairs_that_are_cut_are_in_no_part():
    vit, given, records = attention()
    whole = parts(vit.grid, "edge", "far").split(records[0], given[0])
    cut = parts(vit.grid, "edge", "far", cut=parse_cut("pairs:edge,corner")).split(records[0], given[0])
    for kind in "qk":
        assert torch.equal(cut[kind].gradients[0], torch.zeros(8, 9).double())
        assert torch.equal(cut[kind].gradients[1], whole[kind].gradients[1])
        assert not torch.allclose(cut[kind].gradients[2], whole[kind].gradients[2])


def test_relations_that_overlap_are_refused():
    with pytest.raises(ValueError, match="share no pair; found row, between"):
        parts(PatchGrid(4, 4), "row", "between")
    with pytest.raises(ValueError, match="unknown relation 'nearby'"):
        parts(PatchGrid(4, 4), "nearby")
