"""The account of the scores: it starts and ends at what is measured, closes, and observing changes nothing."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from wherefrom import measures
from wherefrom.config import ModelConfig
from wherefrom.geometry import PatchGrid
from wherefrom.models.vit import ViT
from wherefrom.observe.alignment_ledger import AlignmentLedger
from wherefrom.observe.capture import capture
from wherefrom.observe.cuts import cutting_pairs, parse_cut

STRUCTURES = ("qk_alignment", "log_attn_edge", "log_attn_far")
OPTIMIZERS = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.1),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
}


def model(pool="mean", pos_embed="learned") -> ViT:
    torch.manual_seed(0)
    config = ModelConfig(width=8, depth=2, num_heads=2, patch_size=2, pool=pool, pos_embed=pos_embed)
    return ViT(config, (3, 8, 8), 4).double()


def batch(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 3, 8, 8, generator=generator, dtype=torch.float64), torch.arange(6) % 4


PROBE = batch(9)[0]


def train(vit, optimizer, ledger=None, steps=range(6), cut=""):
    for step in steps:
        images, labels = batch(step)
        optimizer.zero_grad()
        if ledger is None:
            F.cross_entropy(vit(images), labels).backward()
            optimizer.step()
        else:
            with cutting_pairs(parse_cut(cut), vit.grid), ledger.listening():
                F.cross_entropy(vit(images), labels).backward()
            torch.nn.utils.clip_grad_norm_(vit.parameters(), 0.5)
            with ledger.update():
                optimizer.step()


def account(ledger) -> dict[tuple, float]:
    return {(r.measure.removeprefix("ledger_"), r.layer, r.route, r.relation): r.value for r in ledger.rows()}


def measured(vit) -> dict[tuple[str, int], float]:
    """The structures of each layer by other ways than the account's."""
    found, prefix = {}, vit.grid.num_prefix_tokens
    edge, far = (torch.as_tensor(vit.grid.relation_pairs(name)) for name in ("edge", "far"))
    for layer, record in enumerate(capture(vit, PROBE)):
        cosine = measures.qk_cosine(record.q, record.k)[..., prefix:, prefix:].mean((0, 1))
        found["qk_alignment", layer] = float(cosine[edge].mean() - cosine[far].mean())
        attn = record.attn()[..., prefix:, prefix:].mean(0)
        for name, pairs in (("edge", edge), ("far", far)):
            found[f"log_attn_{name}", layer] = sum(float(head[pairs].mean().log()) for head in attn) / len(attn)
    return found


@pytest.mark.parametrize("pool", ["mean", "class"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_account_closes_and_its_change_is_the_measured_one(kind, pool):
    vit = model(pool)
    before, optimizer = measured(vit), OPTIMIZERS[kind](vit.parameters())
    ledger = AlignmentLedger(vit, optimizer, vit.grid, PROBE)
    train(vit, optimizer, ledger)
    rows, after = account(ledger), measured(vit)
    for name in STRUCTURES:
        for layer in range(2):
            change = rows[f"{name}_change", layer, None, None]
            assert change == pytest.approx(after[name, layer] - before[name, layer], abs=1e-12)
            assert rows[f"{name}_residual", layer, None, None] < 1e-3
            parts = [value for (measure, own, *_), value in rows.items() if (measure, own) == (name, layer)]
            way = float(ledger.sums[layer].travelled[STRUCTURES.index(name)])
            assert sum(parts) == pytest.approx(change, abs=1e-3 * way)
            assert rows[name, layer, "weight_decay", None] != 0
            assert rows[name, layer, "drift", None] != 0
            assert {relation for measure, own, route, relation in rows if route == "w_q"} == {"edge", "far", "other"}
            silent = pool == "class" and layer == 1  # no gradient reaches queries of patches
            assert (rows[name, layer, "w_k", "far"] == 0) == silent


def test_the_first_step_of_descent_is_credited_as_autograd_says():
    """Twin: −rate ⟨∇M, ∂L/∂w⟩ at the start, both by autograd, for a rate so small that there is no second order."""
    vit, rate, prefix = model("class"), 1e-7, 1
    optimizer = torch.optim.SGD(vit.parameters(), lr=rate)
    ledger = AlignmentLedger(vit, optimizer, vit.grid, PROBE)
    images, labels = batch(0)
    with ledger.listening():
        F.cross_entropy(vit(images), labels).backward()
    expected = {}
    for layer, block in enumerate(vit.blocks):
        y = ledger.seen[layer].y
        q, k = (block.attn.heads(w(y)) for w in (block.attn.w_q, block.attn.w_k))
        structures = ledger.structures.values(q[:, :, prefix:], k, 4**-0.5)
        for name, value in zip(STRUCTURES, structures, strict=True):
            for kind, projection in (("w_q", block.attn.w_q), ("w_k", block.attn.w_k)):
                slopes = torch.autograd.grad(value, list(projection.parameters()), retain_graph=True)
                products = [(s * p.grad).sum() for s, p in zip(slopes, projection.parameters(), strict=True)]
                expected[name, layer, kind] = -rate * float(sum(products))
    with ledger.update():
        optimizer.step()
    rows = account(ledger)
    for (name, layer, kind), value in expected.items():
        found = sum(rows[name, layer, kind, relation] for relation in ("edge", "far", "other"))
        assert found == pytest.approx(value, rel=1e-4)


def test_pairs_that_are_cut_have_added_nothing():
    vit = model()
    optimizer = OPTIMIZERS["AdamW"](vit.parameters())
    ledger = AlignmentLedger(vit, optimizer, vit.grid, PROBE, cut=parse_cut("pairs:edge"))
    train(vit, optimizer, ledger, cut="pairs:edge")
    for (measure, _, _, relation), value in account(ledger).items():
        assert relation != "edge" or value == 0
        assert relation != "far" or value != 0
        assert not measure.endswith("_residual") or value < 1e-3


def test_momentum_from_before_is_a_row_of_its_own():
    vit = model()
    optimizer = OPTIMIZERS["AdamW"](vit.parameters())
    train(vit, optimizer)
    ledger = AlignmentLedger(vit, optimizer, vit.grid, PROBE)
    train(vit, optimizer, ledger, range(6, 9))
    rows = account(ledger)
    for name in STRUCTURES:
        assert rows[name, 0, "carried", None] != 0
        assert rows[f"{name}_residual", 0, None, None] < 1e-3


def test_a_resumed_account_is_the_same_to_the_bit():
    vit, again = model(), model()
    optimizer, second = (OPTIMIZERS["AdamW"](own.parameters()) for own in (vit, again))
    ledger = AlignmentLedger(vit, optimizer, vit.grid, PROBE)
    train(vit, optimizer, ledger, range(3))
    again.load_state_dict(vit.state_dict())
    resumed = AlignmentLedger(again, second, again.grid, PROBE)
    second.load_state_dict(deepcopy(optimizer.state_dict()))
    resumed.load_state_dict(ledger.state_dict())
    train(vit, optimizer, ledger, range(3, 6))
    train(again, second, resumed, range(3, 6))
    assert account(resumed) == account(ledger)


def test_keeping_the_account_changes_no_bit_and_leaves_nothing_behind():
    plain, watched = model(), model()
    train(plain, torch.optim.AdamW(plain.parameters(), lr=1e-2))
    optimizer = torch.optim.AdamW(watched.parameters(), lr=1e-2)
    ledger = AlignmentLedger(watched, optimizer, watched.grid, PROBE)
    for step in range(6):
        images, labels = batch(step)
        optimizer.zero_grad()
        with ledger.listening():
            F.cross_entropy(watched(images), labels).backward()
        with ledger.update():
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))
    assert not any(module._forward_hooks for module in watched.modules())


def test_a_grid_without_far_pairs_is_refused():
    vit = ViT(ModelConfig(width=8, depth=1, num_heads=2, patch_size=4), (3, 4, 4), 4)
    with pytest.raises(ValueError, match="a grid of 1 × 1 has no edge and far pairs to compare"):
        AlignmentLedger(vit, torch.optim.AdamW(vit.parameters()), PatchGrid(1, 1), torch.zeros(1, 3, 4, 4))


def test_queries_and_keys_that_are_turned_on_the_way_are_refused():
    vit = model(pos_embed="rope")
    with pytest.raises(ValueError, match="in layer 0 they are turned, normalised or masked on the way"):
        AlignmentLedger(vit, torch.optim.AdamW(vit.parameters()), vit.grid, PROBE)
