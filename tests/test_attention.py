"""The closed forms against autograd through softmax, and against the definition of the implied target."""

import itertools

import pytest
import torch

from wherefrom.attention import AttentionRecord


def example(dtype=torch.float64, bias=None, spread=1.0, common=0.0, shape=(3, 2, 7, 5)):
    """A record, and the tensors of an autograd graph that gave its grad_z."""
    generator = torch.Generator().manual_seed(1)
    q, k, v = (spread * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    v = v + common
    inputs = [x.to(dtype).requires_grad_() for x in (q, k, v)]
    scale = shape[-1] ** -0.5
    scores = inputs[0] @ inputs[1].mT * scale + (0 if bias is None else bias.to(dtype))
    scores.retain_grad()
    attn = scores.softmax(-1)
    attn.retain_grad()
    z = attn @ inputs[2]
    z.retain_grad()
    target = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    (z * target).sin().sum().backward()
    record = AttentionRecord(*(x.detach() for x in inputs), scale, z.grad, bias if bias is None else bias.to(dtype))
    return record, inputs, scores, attn


def biases():
    mask = torch.zeros(1, 1, 7, 7, dtype=torch.float64)
    mask[..., 3:5] = -torch.inf
    generator = torch.Generator().manual_seed(0)
    relative, per_image = (torch.randn(shape, generator=generator).double() for shape in ((1, 2, 7, 7), (3, 1, 1, 7)))
    return [None, relative, mask, per_image]


@pytest.mark.parametrize("bias", biases(), ids=["none", "relative", "mask", "per image"])
def test_every_gradient_is_autograds(bias):
    record, (q, k, v), scores, attn = example(bias=bias)
    pairs = [
        (record.attn(), attn.detach()), (record.grad_scores(), scores.grad), (record.grad_q(), q.grad),
        (record.grad_k(), k.grad), (record.grad_v(), v.grad),
    ]  # fmt: skip
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_implied_target_is_the_one_whose_cross_entropy_has_this_gradient():
    record, _, scores, _ = example()
    target = record.implied_target()
    free = scores.detach().clone().requires_grad_()
    (-(target * free.log_softmax(-1))).sum().backward()
    torch.testing.assert_close(free.grad, scores.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(target.sum(-1), torch.ones(3, 2, 7, dtype=torch.float64))


def test_advantage_is_what_moving_attention_saves():
    """Loss is linear in A for a fixed G: moving ε from the row's own distribution onto j saves ε · advantage_ij."""
    record, _, _, attn = example()
    attn, gain, epsilon = attn.detach(), attn.grad, 1e-3
    for b, h, i, j in itertools.product(range(3), range(2), range(7), range(7)):
        onto = torch.eye(7, dtype=torch.float64)[j]
        moved = (1 - epsilon) * attn[b, h, i] + epsilon * onto
        saved = ((attn[b, h, i] - moved) * gain[b, h, i]).sum()
        assert record.advantage()[b, h, i, j] == pytest.approx(float(saved / epsilon), abs=1e-10)
    torch.testing.assert_close(record.pressure(), record.attn() * record.advantage())


def test_rows_of_the_gradient_sum_to_zero():
    record, *_ = example()
    assert record.grad_scores().sum(-1).abs().max() < 1e-13


def relative_error(x: torch.Tensor, exact: torch.Tensor) -> float:
    return float((x.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize(("spread", "common"), [(1.0, 0.0), (3.0, 0.0), (1.0, 30.0)])
def test_float32_is_as_good_as_autograd(spread, common):
    settings = {"spread": spread, "common": common, "shape": (4, 3, 64, 16)}
    record, (q, k, _), scores, _ = example(torch.float32, **settings)
    exact = AttentionRecord(*(getattr(record, x).double() for x in "qkv"), record.scale, record.grad_z.double())
    for ours, autograds, truth in [
        (record.grad_scores(), scores.grad, exact.grad_scores()),
        (record.grad_q(), q.grad, exact.grad_q()),
        (record.grad_k(), k.grad, exact.grad_k()),
    ]:
        assert relative_error(ours, truth) <= max(1e-6, 2 * relative_error(autograds, truth))


def test_tiles_are_parts_of_the_whole():
    record, *_ = example()
    for size in (1, 20, 200, 10**6):
        covered = torch.zeros(3, 2, 7, 7, dtype=torch.float64)
        for tile in record.all_tiles(size):
            assert tile.attn.numel() <= max(size, 2 * 7)
            covered[tile.examples, :, tile.queries] += tile.pressure
        torch.testing.assert_close(covered, record.pressure(), rtol=1e-12, atol=1e-14)


def test_a_record_without_gradient_says_so():
    record, *_ = example()
    with pytest.raises(ValueError, match="no grad_z"):
        AttentionRecord(record.q, record.k, record.v, 1.0).pressure()
