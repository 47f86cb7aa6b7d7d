"""Shares of the scores: the slow loop over images, queries and keys; the covariance; planted heads."""

import pytest
import torch

from wherefrom import measures
from wherefrom.attention import AttentionRecord
from wherefrom.geometry import PatchGrid
from wherefrom.measures.logits import TERMS, logit_measurements


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def centred_terms(q, k):
    """Row-centred terms of one head by loops, each a list over (image, query, key)."""
    images, queries, keys = len(q), q.shape[1], k.shape[1]
    mean_q = [sum(q[b, i] for b in range(images)) / images for i in range(queries)]
    mean_k = [sum(k[b, j] for b in range(images)) / images for j in range(keys)]
    terms = {name: [] for name in (*TERMS, "all")}
    for b in range(images):
        for i in range(queries):
            sides = {"position": mean_q[i], "content": q[b, i] - mean_q[i]}
            others = [{"position": mean_k[j], "content": k[b, j] - mean_k[j]} for j in range(keys)]
            for name in TERMS:
                one, other = name.split("_")
                row = [float(sides[one] @ others[j][other]) for j in range(keys)]
                terms[name] += [value - sum(row) / keys for value in row]
            row = [float(q[b, i] @ k[b, j]) for j in range(keys)]
            terms["all"] += [value - sum(row) / keys for value in row]
    return terms


def test_shares_and_covariance_are_what_loops_find():
    q, k = noise(4, 2, 5, 3), noise(4, 2, 6, 3, seed=1)
    q, k = q + 2 * noise(1, 2, 5, 3, seed=2), k + noise(1, 2, 6, 3, seed=3)
    found = measures.logit_share(q, k)
    for head in range(2):
        terms = centred_terms(q[:, head], k[:, head])
        total = sum(value**2 for value in terms["all"])
        for name in TERMS:
            share = sum(value**2 for value in terms[name]) / total
            assert float(found[name][head]) == pytest.approx(share, abs=1e-12)
        pairs = [(a, b) for a in TERMS for b in TERMS if a < b]
        covariance = 2 * sum(x * y for a, b in pairs for x, y in zip(terms[a], terms[b], strict=True)) / total
        assert float(found["covariance"][head]) == pytest.approx(covariance, abs=1e-12)
        assert abs(covariance) > 1e-3  # and it is there


def test_shares_sum_to_one_and_a_factor_a_bias_of_rows_and_a_turn_change_nothing():
    q, k = noise(6, 3, 8, 4), noise(6, 3, 8, 4, seed=1)
    found = measures.logit_share(q, k)
    torch.testing.assert_close(sum(found.values()), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)
    turn, shift = torch.linalg.qr(noise(4, 4, seed=2)).Q, noise(6, 3, 1, 4, seed=3)
    for other in ((3 * q, k), (q @ turn, k @ turn), (q, k + shift)):
        for name, share in measures.logit_share(*other).items():
            torch.testing.assert_close(share, found[name], rtol=0, atol=1e-12)


def of(position, content):
    """Content in pairs of images that cancel, so that the mean over images is the position exactly."""
    return position + torch.cat([content, -content])


@pytest.mark.parametrize("query", ["position", "content"])
@pytest.mark.parametrize("key", ["position", "content"])
def test_a_planted_term_is_the_only_one(query, key):
    parts = {"position": (noise(1, 1, 6, 4), torch.zeros(3, 1, 6, 4, dtype=torch.float64))}
    parts["content"] = (torch.zeros(1, 1, 6, 4, dtype=torch.float64), noise(3, 1, 6, 4, seed=1))
    found = measures.logit_share(of(*parts[query]), of(*parts[key]))
    expected = {name: float(name == f"{query}_{key}") for name in (*TERMS, "covariance")}
    assert {name: float(share) for name, share in found.items()} == pytest.approx(expected, abs=1e-12)


def test_contents_alone_leave_one_over_images_in_the_means():
    content = [noise(50, 200, 4, 4, seed=seed) for seed in (0, 1)]  # 200 heads
    found = {name: float(share.mean()) for name, share in measures.logit_share(*content).items()}
    assert found["content_content"] == pytest.approx((1 - 1 / 50) ** 2, abs=0.01)
    for name in ("content_position", "position_content"):
        assert found[name] == pytest.approx(1 / 50, abs=0.005)
    assert found["position_position"] == pytest.approx(1 / 50**2, abs=1e-3)


def test_what_all_queries_share_counts_as_their_position_and_what_all_keys_share_cancels():
    content, bias = noise(3, 1, 6, 4), 5 * noise(1, 1, 1, 4, seed=2)
    zero = torch.zeros(1, 1, 6, 4, dtype=torch.float64)
    keys = of(zero, noise(3, 1, 6, 4, seed=1))
    shared = measures.logit_share(of(zero + bias, content), keys)
    assert shared["position_content"] > 0.5
    for name, share in measures.logit_share(of(zero, content), keys + bias).items():
        assert float(share) == pytest.approx(float(name == "content_content"), abs=1e-12)


def test_one_image_and_scores_that_do_not_vary_are_null():
    assert all(share.isnan().all() for share in measures.logit_share(noise(1, 2, 5, 3), noise(1, 2, 5, 3)).values())
    same = noise(4, 2, 1, 3).expand(4, 2, 5, 3)
    zero = torch.zeros(4, 2, 5, 3, dtype=torch.float64)
    assert all(share.isnan().all() for share in measures.logit_share(same, zero).values())


def test_rows_leave_prefix_tokens_out_and_a_bias_is_refused():
    grid = PatchGrid(2, 3, num_prefix_tokens=2)
    q, k, v = (noise(5, 2, 8, 3, seed=seed) for seed in range(3))
    found = measures.logit_share(q[:, :, 2:], k[:, :, 2:])
    rows = list(logit_measurements(AttentionRecord(q, k, v, 0.5), grid, "probe", "shuffled"))
    assert len(rows) == 5 * 2
    for row in rows:
        assert row.value == float(found[row.measure.removeprefix("logit_share_")][row.head])
        assert (row.split, row.layer, row.content) == ("probe", 0, "shuffled")
    assert not list(logit_measurements(AttentionRecord(q, k, v, 0.5, bias=torch.zeros(1, 1, 8, 8)), grid))
