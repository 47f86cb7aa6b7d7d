"""Rows of w_qᵀ w_k: our projections and timm's fused one, with the norm's gain; nothing where it is not known."""

import pytest
import torch
from torch import nn

from wherefrom import measures
from wherefrom.config import ModelConfig
from wherefrom.models.backbone import as_backbone
from wherefrom.models.vit import ViT
from wherefrom.observe.qk_matrix import qk_rows

NAMES = ("qk_symmetric_share", "qk_effective_rank", "qk_position_trace")


class RmsNorm(nn.RMSNorm):
    """timm's name for it."""


class Fused(nn.Module):
    """timm's attention: one projection for all; its own rows are those of w_q, then w_k, then w_v."""

    def __init__(self, attn):
        super().__init__()
        self.num_heads, self.qkv = attn.num_heads, nn.Linear(16, 48)
        self.qkv.weight.data = torch.cat([attn.w_q.weight, attn.w_k.weight, attn.w_v.weight])
        self.q_norm, self.k_norm = nn.Identity(), nn.Identity()


def model(**settings) -> ViT:
    torch.manual_seed(0)
    vit = ViT(ModelConfig(**{"width": 16, "depth": 2, "num_heads": 4, "patch_size": 2} | settings), (3, 6, 8), 4)
    for block in vit.blocks:
        nn.init.normal_(block.norm1.weight, 1, 0.3)
    return vit.double()


def fused(vit):
    for block in vit.blocks:
        block.attn = Fused(block.attn)
    return vit


def table(vit):
    return {(row.measure, row.layer, row.head): row.value for row in qk_rows(as_backbone(vit))}


def test_rows_are_the_measures_of_the_weights_with_the_gain():
    vit = model(pool="class")
    found = table(vit)
    assert len(found) == 3 * 2 * 4
    for layer, block in enumerate(vit.blocks):
        w_q, w_k = (w.weight.detach() * block.norm1.weight.detach() for w in (block.attn.w_q, block.attn.w_k))
        for head in range(4):
            rows = slice(4 * head, 4 * head + 4)
            m = w_q[rows].T @ w_k[rows]
            share = float(((m + m.T) / 2).square().sum() / m.square().sum())
            assert found["qk_symmetric_share", layer, head] == pytest.approx(share, abs=1e-12)
            pos = vit.pos_embed.detach()[0]
            covariance = torch.cov(pos.T, correction=0)
            assert found["qk_position_trace", layer, head] == pytest.approx(
                float((m @ covariance).trace()) / 2, abs=1e-12
            )
            rank = float(measures.effective_rank(torch.cat([m, -m])))  # centred already
            assert found["qk_effective_rank", layer, head] == pytest.approx(rank, abs=1e-10)


def test_a_fused_projection_gives_the_same():
    assert table(fused(model())) == pytest.approx(table(model()), abs=1e-12)


@pytest.mark.parametrize("norm", [nn.RMSNorm, RmsNorm])
def test_the_gain_of_rms_norm_counts_as_that_of_layer_norm(norm):
    vit, expected = model(), table(model())
    for block in vit.blocks:
        gain, block.norm1 = block.norm1.weight, norm(16)
        block.norm1.weight = gain
    assert table(vit) == expected


def test_a_norm_without_a_gain_has_ones():
    plain, ones = model(), model()
    for block, other in zip(plain.blocks, ones.blocks, strict=True):
        block.norm1 = nn.LayerNorm(16, elementwise_affine=False)
        nn.init.ones_(other.norm1.weight)
    assert table(plain) == table(ones)


def test_without_a_table_of_positions_there_is_no_trace():
    assert {name for name, _, _ in table(model(pos_embed="none"))} == set(NAMES[:2])
    assert {name for name, _, _ in table(model(pos_embed="sincos"))} == set(NAMES)


def test_nothing_is_said_of_what_is_not_known():
    unknown_norm, normed_heads, unknown_layers, few_keys = model(), fused(model()), model(), fused(model())
    unknown_norm.blocks[0].norm1 = nn.BatchNorm1d(12)
    assert {layer for _, layer, _ in table(unknown_norm)} == {1}
    normed_heads.blocks[1].attn.q_norm = nn.LayerNorm(4)
    assert {layer for _, layer, _ in table(normed_heads)} == {0}
    few_keys.blocks[1].attn.qkv = nn.Linear(16, 16 + 2 * 8)  # two heads of keys for four of queries
    assert {layer for _, layer, _ in table(few_keys)} == {0}
    unknown_layers.blocks[1].norm1 = None
    assert not table(unknown_layers)
