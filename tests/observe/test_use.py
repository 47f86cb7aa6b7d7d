"""Position use: loops over images and permutations, the law of the table's rows, models that do not use positions."""

import pytest
import torch
import torch.nn.functional as F

from wherefrom import measures
from wherefrom.config import ModelConfig
from wherefrom.geometry import PatchGrid
from wherefrom.models.vit import ViT
from wherefrom.observe.use import position_use, use_rows

GRID = PatchGrid(3, 4)


def model(**settings) -> ViT:
    torch.manual_seed(0)
    settings = {"width": 16, "depth": 2, "num_heads": 2, "patch_size": 2, "pos_embed_std": 1.0} | settings
    return ViT(ModelConfig(**settings), (3, 6, 8), 4).double()


def batch(size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, 6, 8, generator=generator, dtype=torch.float64), torch.arange(size) % 4


def orders(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(12, generator=generator).tolist() for _ in range(count)]


def permuted_by_loop(image, order):
    """Patch order[p], pixel by pixel, to position p."""
    moved = torch.empty_like(image)
    for p, source in enumerate(order):
        (to_y, to_x), (y, x) = divmod(p, 4), divmod(source, 4)
        for dy in range(2):
            for dx in range(2):
                moved[:, 2 * to_y + dy, 2 * to_x + dx] = image[:, 2 * y + dy, 2 * x + dx]
    return moved


def test_shuffled_images_are_what_the_loop_makes_of_them():
    images, _ = batch(20)
    shuffled = measures.content_shuffled(images, GRID, torch.Generator().manual_seed(0))
    expected = [permuted_by_loop(image, order) for image, order in zip(images, orders(20), strict=True)]
    assert torch.equal(shuffled, torch.stack(expected))
    back = torch.tensor(orders(20)).argsort(1)
    assert torch.equal(measures.move_patches(shuffled, back, GRID), images)


def test_patches_need_not_be_square_and_a_grid_that_does_not_fit_is_refused():
    images = torch.arange(2 * 6 * 8.0).reshape(1, 2, 6, 8)
    shuffled = measures.content_shuffled(images, PatchGrid(2, 4), torch.Generator().manual_seed(3))
    assert torch.equal(shuffled.flatten().sort().values, images.flatten())
    columns = shuffled.unflatten(2, (2, 3)).unflatten(4, (4, 2))
    assert torch.equal(columns[..., 1] - columns[..., 0], torch.ones(1, 2, 2, 3, 4))  # neighbours in a patch stay so
    with pytest.raises(ValueError, match="does not divide images of 6 × 8 pixels"):
        measures.content_shuffled(images, PatchGrid(4, 4), torch.Generator())


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_use_is_what_loops_over_images_and_permutations_find(pool):
    vit, (images, labels) = model(pool=pool), batch()
    drawn, losses, lost = iter(orders(5 * 3, seed=7)), [], []
    with torch.no_grad():
        for image, label in zip(images, labels, strict=True):
            before = vit(image[None])
            for _ in range(3):
                after = vit(permuted_by_loop(image, next(drawn))[None])
                losses.append(float(F.cross_entropy(after, label[None]) - F.cross_entropy(before, label[None])))
                lost.append(int(before.argmax() == label) - int(after.argmax() == label))
    loss, accuracy = position_use(vit, images, labels, vit.grid, permutations=3, seed=7)
    assert loss == pytest.approx(sum(losses) / 15, abs=1e-12)
    assert accuracy == pytest.approx(sum(lost) / 15, abs=1e-12)
    assert max(map(abs, losses)) > 1e-3  # there is something to be found


def test_with_mean_pooling_it_is_the_tables_rows_permuted_inversely():
    vit, (images, _) = model(), batch()
    shuffled, table = measures.content_shuffled(images, GRID, torch.Generator().manual_seed(0)), vit.pos_embed.data
    with torch.no_grad():
        logits = vit(shuffled)
        for number, order in enumerate(orders(5)):
            vit.pos_embed.data = table[:, torch.tensor(order).argsort()]
            torch.testing.assert_close(vit(images[number : number + 1])[0], logits[number], rtol=0, atol=1e-12)
            vit.pos_embed.data = table
            assert (vit(images[number : number + 1])[0] - logits[number]).abs().max() > 1e-4


def test_a_model_without_positions_uses_none_and_one_with_rope_does():
    for pool in ("mean", "class"):
        loss, accuracy = position_use(model(pos_embed="none", pool=pool), *batch(20), GRID)
        assert abs(loss) <= 1e-12
        assert accuracy == 0
    assert abs(position_use(model(pos_embed="rope"), *batch(20), GRID)[0]) > 1e-9


def test_nothing_of_the_model_is_changed_and_the_same_seed_gives_the_same():
    vit = model().train()
    vit.blocks[0].eval()
    modes = [module.training for module in vit.modules()]
    first = position_use(vit, *batch(), GRID)
    assert position_use(vit, *batch(), GRID) == first
    assert position_use(vit, *batch(), GRID, seed=1) != first
    assert [module.training for module in vit.modules()] == modes
    assert all(parameter.grad is None for parameter in vit.parameters())


def test_rows_do_not_depend_on_how_images_are_cut_into_batches():
    vit, (images, labels) = model(), batch(9)
    loss, accuracy = position_use(vit, images, labels, GRID)
    rows = use_rows(vit, zip(images.split(4), labels.split(4), strict=True), "test")
    assert [(row.measure, row.split) for row in rows] == [("position_use", "test"), ("position_use_accuracy", "test")]
    assert [row.value for row in rows] == pytest.approx([loss, accuracy], abs=1e-12)


def test_nothing_is_said_where_patches_are_not_cut_by_the_grid():
    vit, (images, labels) = model(), batch(2)
    assert use_rows(vit, [(images[..., :7], labels)], "probe") == []
    assert use_rows(vit, [], "test") == []
    with pytest.raises(ValueError, match="at least one permutation"):
        position_use(vit, images, labels, GRID, permutations=0)
