"""All that an observer must know of a model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from wherefrom.geometry import PatchGrid


@dataclass(frozen=True)
class Backbone:
    """A Vision Transformer as an observer sees it.

    Args:
        name: class of the model, for sentences.
        grid: places of its patches, prefix tokens counted.
        depth: number of layers of attention.
        pos_embed: the learned position embedding of the patches alone, `patch width`; None if it has none.
    """

    name: str
    grid: PatchGrid
    depth: int
    pos_embed: Tensor | None


def as_backbone(model: nn.Module) -> Backbone:
    """Read a model by the names that our ViT shares with timm: `blocks`, `patch_embed`, `pos_embed`, `num_prefix_tokens`.

    Raises:
        ValueError: for a model without them.
    """
    model = getattr(model, "module", model)  # DistributedDataParallel
    missing = [name for name in ("blocks", "patch_embed") if not hasattr(model, name)]
    if missing:
        raise ValueError(
            f"{type(model).__name__} is no Vision Transformer known here: it has no attribute {missing[0]!r}; expected "
            f"`blocks`, `patch_embed`, `pos_embed` and `num_prefix_tokens` as in timm, or a wherefrom.models.vit.ViT"
        )
    prefix = getattr(model, "num_prefix_tokens", 0)
    grid = getattr(model, "grid", None) or PatchGrid(*model.patch_embed.grid_size, prefix)
    return Backbone(type(model).__name__, grid, len(model.blocks), patch_positions(model, grid))


def patch_positions(model: nn.Module, grid: PatchGrid) -> Tensor | None:
    """`patch width`: the rows of `model.pos_embed` that belong to patches, detached; None without a position embedding.

    Raises:
        ValueError: if it has rows for neither the patches nor all tokens.
    """
    table = getattr(model, "pos_embed", None)
    if table is None:
        return None
    table = table.detach().reshape(-1, table.shape[-1])
    if len(table) not in (grid.num_patches, grid.num_tokens):
        raise ValueError(
            f"pos_embed has {len(table)} rows; expected {grid.num_patches}, one for each patch of the {grid.height} × "
            f"{grid.width} grid, or {grid.num_tokens} with prefix tokens"
        )
    return table[len(table) - grid.num_patches :]
