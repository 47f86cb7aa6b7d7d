"""The account of q–k alignment: its parts are autograd's gradient, it closes, and observing changes nothing."""

import pytest
import torch
import torch.nn.functional as F

from wherefrom import measures
from wherefrom.config import ModelConfig
from wherefrom.geometry import PatchGrid
from wherefrom.models.vit import ViT
from wherefrom.observe.alignment_ledger import AlignmentLedger


def model(pool="mean") -> ViT:
    torch.manual_seed(0)
    config = ModelConfig(width=8, depth=2, num_heads=2, patch_size=2, pool=pool)
    return ViT(config, (3, 8, 8), 4).double()


def batch(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 3, 8, 8, generator=generator, dtype=torch.float64), torch.arange(6) % 4


def train(vit, optimizer, ledger=None, steps=6):
    for step in range(steps):
        images, labels = batch(step)
        optimizer.zero_grad()
        if ledger is None:
            F.cross_entropy(vit(images), labels).backward()
            optimizer.step()
        else:
            with ledger.listening():
                F.cross_entropy(vit(images), labels).backward()
            with ledger.update():
                optimizer.step()


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_the_parts_of_all_relations_are_autograds_gradient(pool):
    vit = model(pool)
    ledger = AlignmentLedger(vit, torch.optim.AdamW(vit.parameters()), vit.grid, batch(9)[0])
    images, labels = batch(0)
    with ledger.listening():
        F.cross_entropy(vit(images), labels).backward()
    for number, block in enumerate(vit.blocks):
        exact = {
            ("q", "weight"): block.attn.w_q.weight.grad,
            ("q", "bias"): block.attn.w_q.bias.grad[None],
            ("k", "weight"): block.attn.w_k.weight.grad,
        }
        assert ledger.found[number].keys() == exact.keys()
        for key, gradient in exact.items():
            torch.testing.assert_close(ledger.found[number][key].gradients.sum(0), gradient, rtol=1e-10, atol=1e-14)


def test_a_relations_part_is_what_is_left_when_all_other_pairs_are_cut():
    """Twin: autograd through attention whose scores are detached, but for the pairs of one relation."""
    vit = model()
    ledger = AlignmentLedger(vit, torch.optim.AdamW(vit.parameters()), vit.grid, batch(9)[0])
    images, labels = batch(0)
    with ledger.listening():
        F.cross_entropy(vit(images), labels).backward()
    far, layer, real = torch.as_tensor(vit.grid.relation_pairs("far")), [0], F.scaled_dot_product_attention

    def only_far_in_the_last_layer(q, k, v):
        scores = q @ k.mT * q.shape[-1] ** -0.5
        layer[0] += 1
        return (torch.where(far, scores, scores.detach()) if layer[0] == 2 else scores).softmax(-1) @ v

    vit.zero_grad()
    F.scaled_dot_product_attention = only_far_in_the_last_layer
    try:
        F.cross_entropy(vit(images), labels).backward()
    finally:
        F.scaled_dot_product_attention = real
    found = ledger.found[1]["q", "weight"]
    part = found.gradients[[route.kind for route in found.routes].index("far")]
    torch.testing.assert_close(part, vit.blocks[1].attn.w_q.weight.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    ],
    ids=["AdamW", "SGD"],
)
def test_the_account_closes_and_starts_and_ends_at_the_measured_contrast(optimizer):
    vit, probe = model(), batch(9)[0]

    def contrast(layer: int) -> float:
        seen = []
        handle = vit.blocks[layer].attn.w_q.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
        with torch.no_grad():
            vit(probe)
            handle.remove()
            attn = vit.blocks[layer].attn
            cosine = measures.qk_cosine(attn.heads(attn.w_q(seen[0])), attn.heads(attn.w_k(seen[0]))).mean((0, 1))
        edge, far = (torch.as_tensor(vit.grid.relation_pairs(name)) for name in ("edge", "far"))
        return float(cosine[edge].mean() - cosine[far].mean())

    before = [contrast(layer) for layer in range(2)]
    step = optimizer(vit.parameters())
    ledger = AlignmentLedger(vit, step, vit.grid, probe)
    train(vit, step, ledger)
    rows = {(r.measure, r.layer, r.route, r.relation): r.value for r in ledger.rows()}
    for layer in range(2):
        change = rows["ledger_qk_alignment_change", layer, None, None]
        assert change == pytest.approx(contrast(layer) - before[layer], abs=1e-12)
        assert rows["ledger_qk_alignment_residual", layer, None, None] < 1e-3
        assert rows["ledger_qk_alignment", layer, "weight_decay", None] != 0
        assert rows["ledger_qk_alignment", layer, "w_q", "far"] != 0


def test_keeping_the_account_changes_no_bit_and_leaves_nothing_behind():
    plain, watched = model(), model()
    train(plain, torch.optim.AdamW(plain.parameters(), lr=1e-2))
    optimizer = torch.optim.AdamW(watched.parameters(), lr=1e-2)
    train(watched, optimizer, AlignmentLedger(watched, optimizer, watched.grid, batch(9)[0]))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))
    assert not any(module._forward_hooks for module in watched.modules())


def test_a_grid_without_far_pairs_is_refused():
    vit = ViT(ModelConfig(width=8, depth=1, num_heads=2, patch_size=4), (3, 4, 4), 4)
    with pytest.raises(ValueError, match="a grid of 1 × 1 has no edge and far pairs to compare"):
        AlignmentLedger(vit, torch.optim.AdamW(vit.parameters()), PatchGrid(1, 1), torch.zeros(1, 3, 4, 4))
