"""The stream is what passes between layers; nothing of the model is left changed."""

import pytest
import torch
from torch import nn

from wherefrom import measures
from wherefrom.config import ModelConfig
from wherefrom.geometry import PatchGrid
from wherefrom.models.vit import ViT
from wherefrom.observe.inputs import run_model
from wherefrom.observe.stream import position_in_stream_rows, stream_tap


def model(**settings) -> ViT:
    torch.manual_seed(0)
    return ViT(ModelConfig(**{"width": 16, "depth": 3, "num_heads": 2, "patch_size": 2} | settings), (3, 6, 8), 4)


def images(size=6):
    return torch.randn(size, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def hooks(vit) -> list:
    return [hook for block in vit.blocks for hook in (*block._forward_pre_hooks, *block._forward_hooks)]


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_the_stream_is_what_the_layers_pass_on(pool):
    vit, seen = model(pool=pool), {}
    prefix = vit.num_prefix_tokens
    with stream_tap(vit, seen.__setitem__):
        output = vit(images())
    x = vit.patch_embed(images()) + vit.pos_embed
    if vit.cls_token is not None:
        x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x], 1)
    for layer, block in enumerate(vit.blocks):
        assert torch.equal(seen[layer], x[:, prefix:])
        x = block(x)
    assert torch.equal(seen[3], x[:, prefix:])
    assert sorted(seen) == [0, 1, 2, 3]
    assert not any(each.requires_grad for each in seen.values())
    assert torch.equal(output, vit(images()))
    assert not hooks(vit)


def test_hooks_are_removed_after_an_exception():
    vit = model()
    with pytest.raises(ValueError, match="cannot take images"), stream_tap(vit, lambda *_: None):
        run_model(vit, images()[..., :6])
    assert not hooks(vit)
    with stream_tap(vit, lambda *_: None):
        assert len(hooks(vit)) == 4


class Wrapped(nn.Module):
    """A layer that takes its tokens by name and returns them first among other things, or alone where asked."""

    def __init__(self, block, alone=False):
        super().__init__()
        self.block, self.alone = block, alone

    def forward(self, number, hidden_states=None):
        return self.block(hidden_states) if self.alone else (self.block(hidden_states), torch.ones(3), number)


class WithTuples(nn.Module):
    def __init__(self, vit):
        super().__init__()
        self.patch_embed, self.pos_embed, self.grid = vit.patch_embed, vit.pos_embed, vit.grid
        self.blocks = nn.ModuleList([Wrapped(block) for block in vit.blocks])

    def forward(self, x):
        x = self.patch_embed(x) + self.pos_embed
        for number, block in enumerate(self.blocks):
            x, *_ = block(number, hidden_states=x)
        return x


def test_of_several_things_the_first_tensor_is_the_stream():
    vit, plain, seen = model(), {}, {}
    with stream_tap(vit, plain.__setitem__):
        vit(images())
    with stream_tap(WithTuples(vit), seen.__setitem__):
        WithTuples(vit)(images())
    assert not seen  # of another model
    wrapped = WithTuples(vit)
    with stream_tap(wrapped, seen.__setitem__):
        wrapped(images())
    assert sorted(seen) == [0, 1, 2, 3]
    assert all(torch.equal(seen[layer], plain[layer]) for layer in plain)


def test_what_is_no_stream_is_passed_over():
    class NoTokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.grid, self.patch_embed = PatchGrid(2, 2), nn.Identity()
            self.blocks = nn.ModuleList([nn.Identity(), nn.Identity()])

        def forward(self, x):
            self.blocks[0](x.unflatten(1, (2, 2)))  # a map
            self.blocks[1](x[:, :3])  # tokens that are not those of the grid
            return self.blocks[1]("nothing")

    vit, seen = NoTokens(), {}
    with stream_tap(vit, seen.__setitem__), position_in_stream_rows(vit) as rows:
        vit(torch.zeros(1, 4, 5))
    assert not seen
    assert not rows


def test_rows_are_the_measure_of_each_stream():
    vit, seen = model(pool="class"), {}
    with stream_tap(vit, seen.__setitem__), position_in_stream_rows(vit) as rows, torch.no_grad():
        vit(images())
    assert [row.layer for row in rows] == [0, 1, 2, 3]
    for row in rows:
        assert row.value == pytest.approx(float(measures.position_in_stream(seen[row.layer], vit.grid)), abs=1e-12)
        assert (row.measure, row.split, row.content) == ("position_in_stream", "probe", "shuffled")
    true = vit.grid.reordered(torch.randperm(12).tolist())
    with position_in_stream_rows(vit, {"model": vit.grid, "true": true}["true"]) as on_true:
        vit(images())
    assert on_true[0].value == pytest.approx(float(measures.position_in_stream(seen[0], true)), abs=1e-12)
    assert on_true[0].value != rows[0].value
