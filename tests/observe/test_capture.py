"""The tap: exact on a real model, silent about nothing it cannot see, and gone without a trace."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wherefrom.config import ModelConfig
from wherefrom.models.vit import ViT
from wherefrom.observe.capture import capture, tap
from wherefrom.observe.training import TrainingStep

REAL = F.scaled_dot_product_attention


def model(**settings) -> ViT:
    torch.manual_seed(0)
    config = ModelConfig(**{"width": 16, "depth": 3, "num_heads": 2, "patch_size": 2} | settings)
    return ViT(config, (3, 6, 8), 5).double()


def batch(size=4):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, 6, 8, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 5, (size,), generator=generator)


@pytest.mark.parametrize("pos_embed", ["learned", "rope"])
@pytest.mark.parametrize("pool", ["mean", "class"])
def test_gradients_of_each_example_are_autograds(pool, pos_embed):
    """Twin: attention written out with softmax, one example at a time, its scores differentiated by autograd."""
    vit, (images, labels) = model(pool=pool, pos_embed=pos_embed), batch()
    records = capture(vit, images, labels)
    assert len(records) == 3
    for example in range(len(images)):
        scores = []

        def written_out(q, k, v, scores=scores):
            scores.append((q @ k.mT * q.shape[-1] ** -0.5).requires_grad_())
            scores[-1].retain_grad()
            return scores[-1].softmax(-1) @ v

        F.scaled_dot_product_attention = written_out
        try:
            one = slice(example, example + 1)
            F.cross_entropy(vit(images[one]), labels[one]).backward()
        finally:
            F.scaled_dot_product_attention = REAL
        for record, exact in zip(records, scores, strict=True):
            torch.testing.assert_close(record.scores()[one], exact.detach(), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(record.grad_scores()[one], exact.grad, rtol=1e-12, atol=1e-14)


def test_the_last_layer_of_a_class_token_model_is_silent_but_for_the_token():
    records = capture(model(pool="class"), *batch())
    assert records[-1].silent.tolist() == [False] + [True] * 12
    assert not any(record.silent.any() for record in records[:-1])


def test_nothing_of_the_model_is_changed():
    vit, (images, labels) = model(), batch()
    vit.blocks[1].eval()
    modes = [module.training for module in vit.modules()]
    before = [p.clone() for p in vit.parameters()]
    capture(vit, images, labels)
    assert F.scaled_dot_product_attention is REAL
    assert modes == [module.training for module in vit.modules()]
    assert all(p.grad is None and torch.equal(p, b) for p, b in zip(vit.parameters(), before, strict=True))
    assert not any(module._forward_hooks or module._backward_hooks for module in vit.modules())
    assert images.grad is None
    assert not images.requires_grad


def test_a_frozen_model_and_no_labels():
    vit, (images, labels) = model().requires_grad_(False), batch()
    assert capture(vit, images, labels)[0].grad_z is not None
    records = capture(vit, images)
    assert [record.grad_z for record in records] == [None] * 3
    torch.testing.assert_close(records[2].attn().sum(-1), torch.ones(4, 2, 12, dtype=torch.float64))


def test_the_tap_is_gone_after_an_exception():
    with pytest.raises(KeyError), tap(lambda *_: None, depth=1):
        raise KeyError
    assert F.scaled_dot_product_attention is REAL


class Strange(ViT):
    """A ViT one of whose layers does what the tap must not pass over in silence."""

    def __init__(self, attention):
        torch.manual_seed(0)
        super().__init__(ModelConfig(width=16, depth=2, num_heads=2, patch_size=2), (3, 6, 8), 5)
        self.double().blocks[1].attn.forward = lambda x: attention(self.blocks[1].attn, x)


def unfused(attn, x):
    q, k, v = (attn.heads(w(x)) for w in (attn.w_q, attn.w_k, attn.w_v))
    return attn.w_o(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


def fused_with(**options):
    def forward(attn, x):
        q, k, v = (attn.heads(w(x)) for w in (attn.w_q, attn.w_k, attn.w_v))
        return attn.w_o(F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).flatten(2))

    return forward


@pytest.mark.parametrize(
    ("attention", "error", "sentence"),
    [
        (unfused, RuntimeError, "expected 2 layers of attention in each forward pass, saw 1"),
        (fused_with(dropout_p=0.1), ValueError, "layer 1 uses attention dropout 0.1"),
        (fused_with(is_causal=True), ValueError, "layer 1 uses causal attention"),
        (lambda attn, x: fused_with()(attn, x.detach()).detach(), RuntimeError, "a gradient in only 1"),
    ],
    ids=["unfused", "dropout", "causal", "detached"],
)
def test_what_cannot_be_seen_is_refused_loudly(attention, error, sentence):
    with pytest.raises(error, match=sentence):
        capture(Strange(attention), *batch())
    assert F.scaled_dot_product_attention is REAL


def test_a_model_that_is_no_vit_is_refused():
    with pytest.raises(ValueError, match="Linear is no Vision Transformer known here"):
        capture(nn.Linear(2, 2), *batch())


@pytest.mark.parametrize("kind", ["mask", "bias"])
def test_masks_and_biases_are_part_of_the_scores(kind):
    mask = torch.ones(12, 12, dtype=torch.bool).tril() if kind == "mask" else torch.randn(2, 12, 12).double()
    attn = capture(Strange(fused_with(attn_mask=mask)), *batch())[1].attn()
    if mask.dtype == torch.bool:
        assert (attn[..., ~mask] == 0).all()
    plain = capture(Strange(fused_with()), *batch())[1]
    bias = mask if mask.dtype != torch.bool else torch.where(mask, 0.0, -torch.inf)
    torch.testing.assert_close(attn, (plain.scores() + bias).softmax(-1))


def test_half_precision_is_read_as_float32():
    vit = model().float()
    images, labels = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        records = capture(vit, images.float(), labels)
    assert {record.q.dtype for record in records} == {record.grad_z.dtype for record in records} == {torch.float32}


def training_rows(vit, batches, loss_scale, factor):
    with TrainingStep(vit, loss_scale=loss_scale) as step:
        for images, labels in batches:
            (F.cross_entropy(vit(images), labels) * factor).backward()
            with torch.no_grad():
                vit(images)  # an evaluation in between changes nothing
    return {(r.measure, r.layer, r.head, r.relation): r.value for r in step.measurements()}


def test_scaled_losses_and_accumulated_batches_give_the_same_numbers():
    vit, (images, labels) = model(), batch(8)
    whole = training_rows(vit, [(images, labels)], 1.0, 1.0)
    scaled = training_rows(vit, [(images, labels)], 1024.0, 1024.0)
    halves = training_rows(vit, [(images[:4], labels[:4]), (images[4:], labels[4:])], 0.5, 0.5)
    assert whole == pytest.approx(scaled, nan_ok=True)
    assert whole == pytest.approx(halves, nan_ok=True)
    records = capture(vit, images, labels)
    edge = torch.as_tensor(vit.grid.relation_pairs("edge"))
    expected = records[1].advantage()[:, 1][:, edge].mean()
    assert whole["advantage", 1, 1, "edge"] == pytest.approx(float(expected))
