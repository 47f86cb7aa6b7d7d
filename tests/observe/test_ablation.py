"""Ablation: the twin writes the model's forward by hand; a head of zeros is idle, a doubled head is a copy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wherefrom.config import ModelConfig
from wherefrom.models.vit import ViT
from wherefrom.observe.ablation import ablate, contribution_similarity, output_maps, pruning_rows
from wherefrom.statistics import t_interval

REAL = F.scaled_dot_product_attention


def model(**settings) -> ViT:
    torch.manual_seed(0)
    config = ModelConfig(**{"width": 16, "depth": 2, "num_heads": 2, "patch_size": 2} | settings)
    return ViT(config, (3, 6, 8), 5).double()


def batch(size=6):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, 6, 8, generator=generator, dtype=torch.float64)
    return images, torch.arange(size) % 5


def attention_by_hand(attn, x, replaced: int | None):
    """Head by head, token by token; z of `replaced` becomes its mean over images. Also each head's contribution."""
    total, d = 0, x.shape[-1] // attn.num_heads
    written = []
    for head in range(attn.num_heads):
        part = slice(head * d, (head + 1) * d)
        q = x @ attn.w_q.weight[part].T + attn.w_q.bias[part]
        k = x @ attn.w_k.weight[part].T
        v = x @ attn.w_v.weight[part].T + attn.w_v.bias[part]
        z = torch.softmax(torch.stack([a @ b.T for a, b in zip(q, k, strict=True)]) / d**0.5, -1) @ v
        if head == replaced:
            z = torch.stack([sum(z) / len(z)] * len(z))
        written.append(z @ attn.w_o.weight[:, part].T)
        total = total + written[-1]
    return total + attn.w_o.bias, written


@torch.no_grad()
def by_hand(vit, images, labels, layer: int | None = None, head: int | None = None):
    """Loss of each image, and what each head writes, with one head's z replaced."""
    x = vit.patch_embed(images) + vit.pos_embed
    if vit.cls_token is not None:
        x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x], 1)
    contributions = []
    for place, block in enumerate(vit.blocks):
        added, written = attention_by_hand(block.attn, block.norm1(x), head if place == layer else None)
        contributions.append(written)
        x = x + added
        x = x + block.mlp(block.norm2(x))
    scores = vit.head(vit.norm(x)[:, 0] if vit.cls_token is not None else vit.norm(x).mean(1))
    losses = torch.stack([-F.log_softmax(row, -1)[label] for row, label in zip(scores, labels, strict=True)])
    return losses, contributions


@pytest.mark.parametrize("settings", [{}, {"pool": "class"}, {"num_heads": 1}])
def test_loss_changes_are_those_of_a_forward_pass_written_by_hand(settings):
    vit, (images, labels) = model(**settings), batch()
    whole, _ = by_hand(vit, images, labels)
    changes = ablate(vit, images, labels)
    assert changes.shape == (2, vit.blocks[0].attn.num_heads, len(images))
    for layer, heads in enumerate(changes):
        for head, change in enumerate(heads):
            expected = by_hand(vit, images, labels, layer, head)[0] - whole
            torch.testing.assert_close(change, expected, rtol=1e-9, atol=1e-12)
            assert change.abs().max() > 1e-5


def test_likeness_of_contributions_is_the_textbooks_cka_of_what_heads_write():
    """Twin: Gram matrices over all images and tokens, centred, as the definition has them."""
    vit, (images, labels) = model(num_heads=4), batch()
    found = contribution_similarity(vit, images)
    centring = torch.eye(6 * 12, dtype=torch.float64) - 1 / (6 * 12)
    for layer, written in enumerate(by_hand(vit, images, labels)[1]):
        grams = [centring @ (rows := part.flatten(0, 1)) @ rows.T @ centring for part in written]
        expected = [[(a * b).sum() / (a.norm() * b.norm()) for b in grams] for a in grams]
        torch.testing.assert_close(found[layer], torch.tensor(expected), rtol=1e-8, atol=1e-10)


def test_a_head_of_zeros_is_idle_and_a_doubled_head_is_a_copy():
    vit, (images, labels) = model(num_heads=4, depth=1), batch()
    attn = vit.blocks[0].attn
    first, second, last = slice(0, 4), slice(4, 8), slice(12, 16)
    with torch.no_grad():
        attn.w_o.weight[:, last] = 0
        for linear in (attn.w_q, attn.w_k, attn.w_v):
            linear.weight[second] = linear.weight[first]
        attn.w_q.bias[second], attn.w_v.bias[second] = attn.w_q.bias[first], attn.w_v.bias[first]
        attn.w_o.weight[:, second] = -2 * attn.w_o.weight[:, first]  # a copy that undoes is a copy
    changes, alike = ablate(vit, images, labels)[0], contribution_similarity(vit, images)[0]
    assert changes[3].abs().max() < 1e-12
    assert changes[:3].abs().amax(1).min() > 1e-6
    assert alike[0, 1] == pytest.approx(1)
    assert alike[0, 2] < 0.9
    assert alike[3].isnan().all(), "what writes nothing is like nothing"


@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_the_model_is_changed(training):
    vit, (images, labels) = model().train(training), batch()
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    with torch.no_grad():
        output = vit(images)
    ablate(vit, images, labels)
    contribution_similarity(vit, images)
    assert F.scaled_dot_product_attention is REAL
    assert all(module.training is training for module in vit.modules())
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())
    assert all(p.grad is None for p in vit.parameters())
    with torch.no_grad():
        assert torch.equal(vit(images), output)


def test_the_real_attention_is_back_after_an_exception():
    vit, (images, labels) = model(), batch()
    with pytest.raises(ValueError, match="cannot take images"):
        ablate(vit, images[:, :2], labels)
    assert F.scaled_dot_product_attention is REAL


def test_rows_hold_the_mean_and_its_interval_over_images():
    vit, (images, labels) = model(), batch()
    maps = {layer: np.random.default_rng(layer).random((2, 5, 7)) for layer in range(2)}
    rows, arrays = pruning_rows(vit, images, labels, maps, vit.grid)
    changes = ablate(vit, images, labels)[1, 0].numpy()
    found = {row.measure: row.value for row in rows if (row.layer, row.head) == (1, 0)}
    low, high = t_interval(changes)
    assert found == pytest.approx(
        {"ablation_loss_change": changes.mean(), "ablation_loss_change_low": low, "ablation_loss_change_high": high}
    )
    assert {row.split for row in rows} == {"probe"}
    assert set(arrays) == {(f"{name}_similarity", layer) for name in ("attn", "contribution") for layer in range(2)}


def test_likeness_of_maps_counts_each_pair_of_patches_once():
    """Twin: correlation over all pairs of patches, each with the value of its offset."""
    vit, (images, labels) = model(), batch()
    maps = np.random.default_rng(0).random((2, 5, 7))
    _, arrays = pruning_rows(vit, images, labels, {0: maps}, vit.grid)
    grid = vit.grid
    pairs = [[one[dy + grid.height - 1, dx + grid.width - 1] for dy, dx in grid.offsets.reshape(-1, 2)] for one in maps]
    np.testing.assert_allclose(arrays["attn_similarity", 0], np.corrcoef(pairs), rtol=1e-9)
    flat = np.stack([maps[0], np.full((5, 7), 0.1)])
    _, arrays = pruning_rows(vit, images, labels, {0: flat}, grid)
    assert np.isnan(arrays["attn_similarity", 0]).tolist() == [[False, True], [True, True]]


class Unfused(nn.Module):
    def __init__(self, attn):
        super().__init__()
        self.attn, self.num_heads = attn, attn.num_heads

    def forward(self, x):
        return attention_by_hand(self.attn, x, None)[0]


def test_what_cannot_be_ablated_is_refused_in_words():
    vit, (images, labels) = model(), batch()
    with pytest.raises(ValueError, match="at least two are needed; found 1"):
        ablate(vit, images[:1], labels[:1])
    with pytest.raises(ValueError, match="labels must lie between 0 and 4"):
        ablate(vit, images, labels + 4)
    vit.blocks[1].attn = Unfused(vit.blocks[1].attn)
    with pytest.raises(RuntimeError, match="expected 2 layers of attention in a forward pass, saw 1 calls"):
        ablate(vit, images, labels)
    with pytest.raises(ValueError, match=r"attn.w_o \(ours\) or attn.proj \(timm\).*found Unfused in layer 1 of ViT"):
        contribution_similarity(vit, images)


def test_timms_projection_is_known_unless_a_norm_lies_before_it():
    from wherefrom.models.backbone import as_backbone

    vit = model()
    for block in vit.blocks:
        block.attn.proj, block.attn.norm = block.attn.w_o, nn.Identity()
        del block.attn.w_o
    assert output_maps(as_backbone(vit), 0).shape == (2, 16, 8)
    vit.blocks[1].attn.norm = nn.LayerNorm(16)
    with pytest.raises(ValueError, match="no norm between"):
        output_maps(as_backbone(vit), 1)
