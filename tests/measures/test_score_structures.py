"""Log attention and alignment at edge and far pairs: loops and autograd find the same; known cases."""

import math

import pytest
import torch

from wherefrom.geometry import PatchGrid
from wherefrom.measures.score_structures import NAMES, ScoreStructures

GRID = PatchGrid(3, 4, num_prefix_tokens=1)
SCALE = 0.7


def queries_and_keys(seed: int = 0):
    """2 images, 3 heads, 12 patches (and a class token's key), 5 numbers."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(2, 3, 12, 5, generator=generator, dtype=torch.float64)
    return q, torch.randn(2, 3, 13, 5, generator=generator, dtype=torch.float64)


def structures(grid: PatchGrid = GRID) -> ScoreStructures:
    return ScoreStructures.of(grid, torch.zeros((), dtype=torch.float64))


def by_loops(q, k) -> list[float]:
    """Twin, pair by pair."""
    relations = {name: GRID.relation_pairs(name) for name in ("edge", "far")}
    cosines, attention = {"edge": [], "far": []}, {(name, head): [] for name in relations for head in range(3)}
    for b in range(2):
        for head in range(3):
            for i in range(12):
                scores = [SCALE * float(q[b, head, i] @ k[b, head, token]) for token in range(13)]
                total = sum(math.exp(score) for score in scores)
                for j in range(12):
                    for name in relations:
                        if relations[name][i, j]:
                            key = k[b, head, j + 1]
                            cosines[name].append(float(q[b, head, i] @ key / (q[b, head, i].norm() * key.norm())))
                            attention[name, head].append(math.exp(scores[j + 1]) / total)
    means = {name: sum(values) / len(values) for name, values in cosines.items()}
    logs = {key: math.log(sum(values) / len(values)) for key, values in attention.items()}
    edge, far = (sum(logs[name, head] for head in range(3)) / 3 for name in ("edge", "far"))
    return [means["edge"] - means["far"], edge, far]


def test_values_are_what_loops_find():
    q, k = queries_and_keys()
    found = structures().values(q, k, SCALE)
    torch.testing.assert_close(found, torch.tensor(by_loops(q, k), dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("index", range(3), ids=NAMES)
def test_gradients_are_autograds(index):
    q, k = (x.requires_grad_() for x in queries_and_keys(1))
    exact = torch.autograd.grad(structures().values(q, k, SCALE)[index], (q, k))
    with torch.no_grad():
        found = structures().gradients(q, k, SCALE)
    for own, gradient in zip(found, exact, strict=True):
        torch.testing.assert_close(own[index], gradient, rtol=0, atol=1e-14)
        assert gradient.abs().max() > 1e-4


def test_uniform_attention_and_keys_of_one_direction():
    q, k = torch.randn(2, 3, 12, 5).double(), torch.ones(2, 3, 13, 5).double()
    _, edge, far = structures().values(q, k, SCALE).tolist()
    assert edge == pytest.approx(-math.log(13), abs=1e-12)
    assert far == pytest.approx(-math.log(13), abs=1e-12)
    same = torch.ones(2, 3, 12, 5).double()
    assert structures().values(same, k, SCALE)[0].item() == pytest.approx(0, abs=1e-12)


def test_attention_on_one_edge_neighbour_alone():
    """On a row of patches where each looks at its right neighbour, the last at its left one: 1 / 2 of edge pairs."""
    grid = PatchGrid(1, 6)
    keys = 60 * torch.eye(6).double()
    queries = torch.eye(6)[[1, 2, 3, 4, 5, 4]].double()
    alignment, edge, far = structures(grid).values(queries[None, None], keys[None, None], 1.0).tolist()
    assert edge == pytest.approx(math.log(6 / 10), abs=1e-12)
    assert alignment == pytest.approx(6 / 10, abs=1e-12)
    assert far < -50


def test_what_is_added_to_all_scores_of_a_row_changes_no_logarithm():
    q, k = queries_and_keys(2)
    shift = k + torch.randn(5).double()
    before, after = (structures().values(q, own, SCALE) for own in (k, shift))
    torch.testing.assert_close(after[1:], before[1:], rtol=0, atol=1e-12)
    grad_q, grad_k = structures().gradients(q, k, SCALE)
    torch.testing.assert_close(grad_k[1:].sum(3), torch.zeros(2, 2, 3, 5).double(), rtol=0, atol=1e-15)
    torch.testing.assert_close((grad_q[0] * q).sum(-1), torch.zeros(2, 3, 12).double(), rtol=0, atol=1e-15)


def test_a_grid_without_far_pairs_is_refused():
    with pytest.raises(ValueError, match="a grid of 1 × 1 has no edge and far pairs to compare"):
        structures(PatchGrid(1, 1))
