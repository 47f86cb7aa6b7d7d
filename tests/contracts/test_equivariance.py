"""The shuffled arm is the natural one under another numbering of positions: a demonstration, and no control."""

import torch
import torch.nn.functional as F

from wherefrom.config import ModelConfig, TrainConfig
from wherefrom.data import Batches, load
from wherefrom.models.vit import ViT
from wherefrom.train import make_optimizer

STEPS = 20


def trained(arm: str, positions: torch.Tensor | None = None) -> tuple[ViT, Batches]:
    """A model after some steps in one arm, in float64; `positions[p]` is the row that position p starts with."""
    config = TrainConfig(data="digits", arm=arm, batch_size=16, model=ModelConfig(width=16, depth=2)).resolved()
    data = load(config.data)
    batches = Batches(data, arm=arm, patch_size=config.model.patch_size, batch_size=16, seed=0)
    torch.manual_seed(0)
    model = ViT(config.model, data.image_shape, data.num_classes).double()
    if positions is not None:
        model.pos_embed.data = model.pos_embed.data[:, positions]
    optimizer = make_optimizer(model, config)
    for step in range(STEPS):
        images, labels = batches.train(step)
        optimizer.zero_grad()
        F.cross_entropy(model(images.double()), labels).backward()
        optimizer.step()
    return model.requires_grad_(False), batches


def test_with_its_start_permuted_alike_the_shuffled_arm_is_the_natural_one():
    natural, _ = trained("natural")
    data = load("digits")
    order = torch.from_numpy(Batches(data, arm="shuffled", patch_size=1, batch_size=16, seed=0).patch_order)
    shuffled, batches = trained("shuffled", order)
    assert (order != torch.arange(64)).any()
    assert torch.equal(torch.from_numpy(batches.patch_order), order)
    moved = (natural.pos_embed - shuffled.pos_embed[:, order.argsort()]).abs().max()
    assert float(moved) <= 1e-9  # 4e-16 was seen; Adam may enlarge what rounding makes of sums in another order
    assert float((natural.pos_embed - shuffled.pos_embed).abs().max()) > 1e-3
    for (name, one), (_, other) in zip(natural.named_parameters(), shuffled.named_parameters(), strict=True):
        assert name == "pos_embed" or torch.allclose(one, other, rtol=0, atol=1e-9), name
