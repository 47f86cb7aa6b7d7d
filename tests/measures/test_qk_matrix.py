"""w_qᵀ w_k: what the small matrices say is what the large one says; planted matrices; scores of positions."""

import math

import pytest
import torch

from wherefrom import measures

HEADS, DIM, WIDTH = 3, 4, 10


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weights(seed=0, width=WIDTH):
    gain = 1 + 0.5 * noise(width, seed=9)
    return [measures.fold_gain(noise(HEADS, DIM, width, seed=s), gain) for s in (2 * seed, 2 * seed + 1)]


def matrices(w_q, w_k):
    """M of each head, entry by entry."""
    _, dims, width = w_q.shape
    return [
        [[sum(float(q[d, a] * k[d, b]) for d in range(dims)) for b in range(width)] for a in range(width)]
        for q, k in zip(w_q, w_k, strict=True)
    ]


@pytest.mark.parametrize("width", [WIDTH, 3], ids=["wide", "narrow"])
def test_symmetric_share_and_rank_are_those_of_the_whole_matrix(width):
    w_q, w_k = weights(width=width)
    share, rank = measures.qk_symmetric_share(w_q, w_k), measures.qk_effective_rank(w_q, w_k)
    for head, m in enumerate(matrices(w_q, w_k)):
        pairs = [(a, b) for a in range(width) for b in range(width)]
        symmetric = sum(((m[a][b] + m[b][a]) / 2) ** 2 for a, b in pairs)
        assert float(share[head]) == pytest.approx(symmetric / sum(m[a][b] ** 2 for a, b in pairs), abs=1e-12)
        energy = [float(s) ** 2 for s in torch.linalg.svdvals(torch.tensor(m, dtype=torch.float64))]
        p = [e / sum(energy) for e in energy]
        entropy = -sum(x * math.log(x) for x in p if x > 1e-25)
        assert float(rank[head]) == pytest.approx(math.exp(entropy), abs=1e-12)


def test_gain_is_folded_into_both_sides():
    w_q, w_k, gain, tokens = noise(1, DIM, WIDTH), noise(1, DIM, WIDTH, seed=1), noise(WIDTH, seed=2), noise(5, WIDTH)
    folded = [measures.fold_gain(w, gain)[0] for w in (w_q, w_k)]
    scores = ((gain * tokens) @ w_q[0].T) @ ((gain * tokens) @ w_k[0].T).T
    torch.testing.assert_close(tokens @ folded[0].T @ folded[1] @ tokens.T, scores, rtol=0, atol=1e-10)


def test_symmetric_opposite_and_unrelated_matrices():
    w = noise(1, 2, WIDTH)
    turned = torch.stack([w[:, 1], -w[:, 0]], 1)
    assert float(measures.qk_symmetric_share(w, w)) == pytest.approx(1, abs=1e-12)
    assert float(measures.qk_symmetric_share(w, -w)) == pytest.approx(1, abs=1e-12)
    assert float(measures.qk_symmetric_share(w, turned)) == pytest.approx(0, abs=1e-12)
    many = measures.qk_symmetric_share(noise(400, 8, 32), noise(400, 8, 32, seed=1))
    assert float(many.mean()) == pytest.approx(0.5 + 1 / 64, abs=0.005)  # E tr(M M) / E ‖M‖² = 1 / width


def test_the_share_is_bounded_and_exchanging_sides_changes_nothing():
    w_q, w_k = noise(200, 3, 5), noise(200, 3, 5, seed=1)
    share = measures.qk_symmetric_share(w_q, w_k)
    assert ((share >= -1e-12) & (share <= 1 + 1e-12)).all()
    for measure in (measures.qk_symmetric_share, measures.qk_effective_rank):
        torch.testing.assert_close(measure(w_k, w_q), measure(w_q, w_k), rtol=0, atol=1e-12)
        turn = torch.linalg.qr(noise(5, 5, seed=2)).Q
        torch.testing.assert_close(measure(w_q @ turn, w_k @ turn), measure(w_q, w_k), rtol=0, atol=1e-12)


def test_rank_counts_equal_directions():
    w = torch.eye(DIM, WIDTH, dtype=torch.float64)[None]
    assert float(measures.qk_effective_rank(w, w)) == pytest.approx(DIM, abs=1e-12)
    assert float(measures.qk_effective_rank(w[:, :1], w[:, :1])) == pytest.approx(1, abs=1e-12)
    assert measures.qk_effective_rank(0 * w, w).isnan().all()
    assert measures.qk_symmetric_share(0 * w, w).isnan().all()


def test_trace_is_the_score_of_a_position_with_itself_beyond_that_of_all_pairs():
    (w_q, w_k), pos = weights(), 3 + noise(12, WIDTH, seed=5)
    found = measures.qk_position_trace(w_q, w_k, pos)
    for head in range(HEADS):
        scores = [[float((w_q[head] @ a) @ (w_k[head] @ b)) / math.sqrt(DIM) for b in pos] for a in pos]
        own = sum(scores[i][i] for i in range(12)) / 12
        assert float(found[head]) == pytest.approx(own - sum(map(sum, scores)) / 144, abs=1e-11)
        mean = [float(pos[:, a].mean()) for a in range(WIDTH)]
        spread = [
            [sum(float((p[a] - mean[a]) * (p[b] - mean[b])) for p in pos) / 12 for b in range(WIDTH)]
            for a in range(WIDTH)
        ]
        m = matrices(w_q, w_k)[head]
        trace = sum(m[a][b] * spread[b][a] for a in range(WIDTH) for b in range(WIDTH)) / math.sqrt(DIM)
        assert float(found[head]) == pytest.approx(trace, abs=1e-12)


def test_the_sign_of_the_trace():
    w, pos = noise(1, DIM, WIDTH), noise(12, WIDTH, seed=5)
    assert float(measures.qk_position_trace(w, w, pos)) > 0  # positions with similar embeddings attend to each other
    assert float(measures.qk_position_trace(w, -w, pos)) < 0
    assert float(measures.qk_position_trace(w, w, pos, scale=2.0)) == pytest.approx(
        4 * float(measures.qk_position_trace(w, w, pos)), rel=1e-12
    )  # 2 in place of 1/√4
    assert float(measures.qk_position_trace(w, w, pos[:1].expand(12, -1))) == pytest.approx(0, abs=1e-12)
