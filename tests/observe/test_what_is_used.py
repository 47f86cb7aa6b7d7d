"""Three models built by hand, which use position only, content only, or both, are told apart by what is recorded.

Images have 3 × 4 patches of four pixels, each 1 or −1. The class is told twice: by the first pixel of the patch at
position 0, and by the first pixel of all patches whose second pixel is 1; half of the patches are such, and the first
pixels of the other half cancel. The models differ in their scores alone,

    S_ij = position · 1[j = 0] + content · second_i second_j ,

and read the class from the first pixel of what they look at.
"""

import math

import pytest
import torch

from wherefrom import measures
from wherefrom.attention import AttentionRecord
from wherefrom.config import ModelConfig
from wherefrom.geometry import PatchGrid
from wherefrom.measures.layer import layer_measurements
from wherefrom.measures.logits import logit_measurements
from wherefrom.measures.sums import layer_sums
from wherefrom.models.vit import ViT
from wherefrom.observe.capture import capture
from wherefrom.observe.stream import position_in_stream_rows
from wherefrom.observe.use import position_use

GRID, WIDTH = PatchGrid(3, 4), 34
"""Features: 4 pixels and their negatives, 12 positions and their negatives, what was read and its negative. So all
tokens have mean 0 and the same length, and LayerNorm is a constant factor."""

MODELS = {"position": (8.0, 0.0), "content": (0.0, 2.0), "both": (6.0, 1.7)}
"""Strength of the two terms of S."""


def build(position: float, content: float) -> ViT:
    vit = ViT(ModelConfig(width=WIDTH, depth=1, num_heads=1, patch_size=2), (1, 6, 8), 2).double()
    norm = math.sqrt(WIDTH / 16)  # 4 pixels and 1 position of size 2, each twice
    matrices = {name: torch.zeros_like(value) for name, value in vit.state_dict().items() if "norm" not in name}
    matrices["patch_embed.proj.weight"][:8] = torch.cat([torch.eye(4), -torch.eye(4)])
    matrices["pos_embed"][0, :, 8:32] = 2 * torch.cat([torch.eye(12), -torch.eye(12)], 1)
    w_q, w_k = (matrices[f"blocks.0.attn.w_{x}.weight"] for x in "qk")
    w_q[0, 8:20] = position * math.sqrt(WIDTH) / (2 * norm)  # of any position
    w_k[0, 8] = 1 / (2 * norm)  # of position 0
    w_q[1, 1] = content * math.sqrt(WIDTH) / norm
    w_k[1, 1] = 1 / norm
    matrices["blocks.0.attn.w_v.weight"][0, 0] = 1 / norm
    matrices["blocks.0.attn.w_o.weight"][32:, 0] = torch.tensor([1.0, -1.0])
    matrices["head.weight"][:, 32] = torch.tensor([-3.0, 3.0])
    vit.load_state_dict(matrices, strict=False)
    return vit


def batch(pairs=128):
    """Images and classes; each image has a partner with the roles of the two halves of its patches exchanged."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(pairs) % 2
    pixels = torch.randint(0, 2, (pairs, 2, 12, 4), generator=random).double() * 2 - 1
    for number, label in enumerate(labels.tolist()):
        told = 2.0 * label - 1
        order = torch.randperm(12, generator=random)
        for partner, telling, others in ((0, order[:6], order[6:]), (1, order[6:], order[:6])):
            others = others[others.argsort()]  # position 0 is the first, if it is here
            pixels[number, partner, telling, 0] = told
            pixels[number, partner, others, 0] = told * torch.tensor([1.0, -1, 1, -1, 1, -1]).double()
            pixels[number, partner, telling, 1] = 1.0
            pixels[number, partner, others, 1] = -1.0
    images = pixels.flatten(0, 1).unflatten(1, (3, 4)).unflatten(3, (2, 2)).permute(0, 1, 3, 2, 4).reshape(-1, 1, 6, 8)
    return images, labels.repeat_interleave(2)


def shuffled():
    return measures.content_shuffled(batch()[0], GRID, torch.Generator().manual_seed(1))


def record(vit, images) -> AttentionRecord:
    (record,) = capture(vit, images)
    return record


def shares(vit, images) -> dict[str, float]:
    rows = logit_measurements(record(vit, images), GRID, "probe", "shuffled")
    return {row.measure.removeprefix("logit_share_"): row.value for row in rows}


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_what_was_built_and_the_class_is_read(name):
    vit, (images, labels) = build(*MODELS[name]), batch()
    assert (vit(images).argmax(1) == labels).all()
    position, content = MODELS[name]
    second = measures.contents.patches_of(images, GRID)[..., 0, 0, 1]
    built = content * second[:, :, None] * second[:, None] + position * torch.eye(12)[0].double()
    torch.testing.assert_close(record(vit, images).scores()[:, 0], built, rtol=0, atol=1e-3)  # LayerNorm's epsilon


def test_position_use_tells_who_needs_positions():
    (images, labels), use = batch(), {}
    for name, strengths in MODELS.items():
        use[name] = position_use(build(*strengths), images, labels, GRID)
    assert abs(use["content"][0]) <= 1e-12
    assert use["content"][1] == 0
    assert use["position"][0] > use["both"][0] > 0.2
    assert use["position"][1] == pytest.approx(1 / 4, abs=0.05)  # 9 of 12 patches tell the same
    assert use["both"][1] > 0


def test_shares_of_the_scores_tell_what_they_are_made_of():
    found = {name: shares(build(*strengths), shuffled()) for name, strengths in MODELS.items()}
    assert found["position"]["position_position"] == pytest.approx(1, abs=1e-9)
    assert found["content"]["content_content"] > 0.95
    assert found["content"]["position_position"] < 0.01
    for term in ("position_position", "content_content"):
        assert 0.2 < found["both"][term] < 0.8
    for each in found.values():
        assert each["content_position"] + each["position_content"] < 0.03


def test_the_content_shuffled_probe_tells_where_scores_are_the_same_for_all_images():
    found = {}
    for name, strengths in MODELS.items():
        sums = layer_sums(record(build(*strengths), shuffled()), {"model": GRID})
        rows = list(layer_measurements(sums, 0, "probe", content="shuffled"))
        found[name] = next(row.value for row in rows if row.measure == "positional_share")
        assert {row.content for row in rows} == {"shuffled"}
    assert found["position"] == pytest.approx(1, abs=1e-9)
    # the product of the second pixels is 1 where i = j, and −1/11 elsewhere on average: a patch matches itself by its
    # content, wherever it lies, so that (1 + 1/11)² · 1/12 · 11/12 = 1/11 of the variance is the same in all images
    assert found["content"] == pytest.approx(1 / 11, abs=0.01)
    assert 0.2 < found["both"] < 0.8


def test_the_stream_holds_positions_in_all_three_whether_they_are_used_or_not():
    for name, strengths in MODELS.items():
        vit = build(*strengths)
        with position_in_stream_rows(vit) as rows, torch.no_grad():
            vit(shuffled())
        assert [row.layer for row in rows] == [0, 1]
        assert all(row.value > 0.8 for row in rows), name
    with torch.no_grad():
        vit.pos_embed.zero_()
    with position_in_stream_rows(vit) as rows, torch.no_grad():
        vit(shuffled())
    assert all(abs(row.value) < 0.02 for row in rows)
