"""Cuts: what is named is taken from the gradient, nothing else is, and the real attention is always put back."""

import contextlib
import re

import pytest
import torch
import torch.nn.functional as F

from wherefrom.config import ModelConfig
from wherefrom.geometry import PatchGrid
from wherefrom.models.vit import ViT
from wherefrom.observe.account import Account
from wherefrom.observe.capture import tap
from wherefrom.observe.cuts import NOTHING, Cut, CutAttention, cutting_pairs, pairs_kept, parse_cut
from wherefrom.observe.routes import Route
from wherefrom.observe.training import TrainingStep

REAL = F.scaled_dot_product_attention


def model(**settings) -> ViT:
    torch.manual_seed(0)
    config = ModelConfig(**{"width": 16, "depth": 2, "num_heads": 2, "patch_size": 2} | settings)
    return ViT(config, (3, 6, 8), 5).double()


def batch(size=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, 3, 6, 8, generator=generator, dtype=torch.float64), torch.arange(size) % 5


def gradients(vit):
    images, labels = batch()
    vit.zero_grad()
    loss = F.cross_entropy(vit(images), labels)
    loss.backward()
    return {name: p.grad.clone() for name, p in vit.named_parameters()}


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("", NOTHING),
        ("pos:q", Cut((Route("q"),))),
        ("pos:q,k", Cut((Route("q"), Route("k")))),
        ("pos:residual,mlp", Cut((Route("residual"), Route("mlp")))),
        ("pos:mlp.1,v.0.2", Cut((Route("mlp", 1), Route("v", 0, 2)))),
        ("pairs:edge,far", Cut(relations=("edge", "far"))),
        ("pairs:between", Cut(relations=("between",))),
    ],
)
def test_what_a_text_cuts(text, cut):
    assert parse_cut(text, depth=2, num_heads=3) == cut


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("q,k", "cannot cut 'q,k'; expected pos:ROUTES or pairs:RELATIONS"),
        ("pos:", "cannot cut '' in 'pos:'; expected"),
        ("pos:w", "cannot cut 'w' in 'pos:w'; expected"),
        ("pos:q,", "cannot cut '' in 'pos:q,'; expected"),
        ("pos:q, k", "cannot cut ' k' in 'pos:q, k'; expected"),
        ("pos:q.-1", "cannot cut 'q.-1'"),
        ("pos:q.a", "cannot cut 'q.a'"),
        ("pos:q.0.1.2", "cannot cut 'q.0.1.2'"),
        ("pos:mlp.0.1", "cannot cut 'mlp.0.1'"),
        ("pos:residual.0", "cannot cut 'residual.0'"),
        ("pos:v.2", "cannot cut 'v.2': the model has 2 layers, numbered from 0"),
        ("pos:mlp.2", "cannot cut 'mlp.2': the model has 2 layers"),
        ("pos:v.1.3", "cannot cut 'v.1.3': the model has 3 heads, numbered from 0"),
        ("pairs:", "cannot cut 'pairs:'; expected"),
        ("pairs:near", "cannot cut 'pairs:near'; expected"),
        ("pairs:edge,q", "cannot cut 'pairs:edge,q'; expected"),
    ],
)
def test_a_text_that_cuts_nothing_is_refused(text, sentence):
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        parse_cut(text, depth=2, num_heads=3)


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_with_nothing_cut_the_backward_pass_is_autograds(pool):
    vit = model(pool=pool)
    expected, tokens = gradients(vit), vit.grid.num_tokens
    keep = torch.ones(tokens, tokens, dtype=torch.bool)
    F.scaled_dot_product_attention = lambda q, k, v: CutAttention.apply(q, k, v, keep, q.shape[-1] ** -0.5, REAL)
    try:
        found = gradients(vit)
    finally:
        F.scaled_dot_product_attention = REAL
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-12, name


def detached(keep):
    """Attention written out; scores of cut pairs are the same numbers, but no gradient passes them."""

    def attention(q, k, v):
        scores = q @ k.mT * q.shape[-1] ** -0.5
        return torch.where(keep, scores, scores.detach()).softmax(-1) @ v

    return attention


@pytest.mark.parametrize("pool", ["mean", "class"])
@pytest.mark.parametrize("text", ["pairs:edge", "pairs:far,self", "pairs:corner"])
def test_cut_pairs_are_as_if_their_scores_were_detached(text, pool):
    vit, cut = model(pool=pool), parse_cut(text)
    plain = gradients(vit)
    F.scaled_dot_product_attention = detached(pairs_kept(cut, vit.grid))
    try:
        expected = gradients(vit)
    finally:
        F.scaled_dot_product_attention = REAL
    with cutting_pairs(cut, vit.grid):
        found = gradients(vit)
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-12, name
    assert (found["blocks.0.attn.w_q.weight"] - plain["blocks.0.attn.w_q.weight"]).abs().max() > 1e-6
    last = "blocks.1.attn.w_v.weight"  # what lies behind the last layer's values does not depend on any q or k
    assert (found[last] - plain[last]).abs().max() <= 1e-12


def test_pairs_with_a_class_token_are_never_cut():
    grid = PatchGrid(2, 2, num_prefix_tokens=1)
    keep = pairs_kept(parse_cut("pairs:self,edge,corner,far,row,column,mid"), grid)
    assert keep[0].all()
    assert keep[:, 0].all()
    assert not keep[1:, 1:].any()


@pytest.mark.parametrize("text", ["pos:q,k", "pos:v.1.0,residual", "pos:residual,q,k,v,mlp"])
@pytest.mark.parametrize("pool", ["mean", "class"])
def test_cut_routes_leave_the_gradient_on_pos_embed_alone(text, pool):
    vit, (images, labels) = model(pool=pool), batch()
    plain, cut = gradients(vit), parse_cut(text)
    optimizer = torch.optim.SGD(vit.parameters(), lr=0.1)
    whole, account = (Account(vit, optimizer, vit.grid, cut=c) for c in (NOTHING, cut))
    for each in (whole, account):
        vit.zero_grad()
        with each.listening(0):
            F.cross_entropy(vit(images), labels).backward()
        each.take()
    taken = [g for r, g in zip(whole.found.routes, whole.found.gradients, strict=True) if cut.takes(r)]
    assert taken
    kept = plain["pos_embed"][0] - sum(taken)
    assert (vit.pos_embed.grad[0] - kept).abs().max() <= 1e-12
    assert vit.pos_embed.grad.any() == (text != "pos:residual,q,k,v,mlp")
    assert all(torch.equal(p.grad, plain[n]) for n, p in vit.named_parameters() if n != "pos_embed")


def test_real_attention_is_put_back():
    grid, cut = model().grid, parse_cut("pairs:far")
    with cutting_pairs(NOTHING, grid):
        assert F.scaled_dot_product_attention is REAL
    with contextlib.suppress(KeyError), cutting_pairs(cut, grid):
        assert F.scaled_dot_product_attention is not REAL
        raise KeyError
    assert F.scaled_dot_product_attention is REAL


def test_a_tap_inside_a_cut_sees_the_whole_gradient():
    """What is measured is ∂ℓ/∂S of this forward pass, of which q and k then do not hear all."""
    vit, (images, labels) = model(depth=1), batch()

    def rows(cut):
        with cutting_pairs(cut, vit.grid), TrainingStep(vit) as step:
            F.cross_entropy(vit(images), labels).backward()
        return {(r.measure, r.layer, r.head, r.relation): r.value for r in step.measurements()}

    plain = rows(NOTHING)
    assert plain == pytest.approx(rows(parse_cut("pairs:far")), nan_ok=True)
    assert F.scaled_dot_product_attention is REAL


def test_a_cut_inside_a_tap_is_refused():
    cut, grid = parse_cut("pairs:far"), model().grid
    with tap(lambda *_: None, depth=1), pytest.raises(RuntimeError, match="enter the cut before the tap"):
        cutting_pairs(cut, grid).__enter__()
    assert F.scaled_dot_product_attention is REAL


def test_masked_attention_is_refused():
    x = torch.randn(1, 2, 12, 8)
    refused = pytest.raises(ValueError, match="pairs can be cut only from plain attention")
    with cutting_pairs(parse_cut("pairs:far"), PatchGrid(3, 4)), refused:
        F.scaled_dot_product_attention(x, x, x, is_causal=True)
