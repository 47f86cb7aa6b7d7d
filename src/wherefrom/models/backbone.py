"""All that an observer must know of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from wherefrom.geometry import PatchGrid


@dataclass(frozen=True)
class Layer:
    """One pre-norm layer: x + Attention(norm1 x), then x + MLP(norm2 x).

    `projections` are the linear maps to queries, keys, values by what they make: `q`, `k`, `v`, or all in one, `qkv`.
    """

    block: nn.Module
    norm1: nn.Module
    norm2: nn.Module
    projections: dict[str, nn.Linear]
    num_heads: int


@dataclass(frozen=True)
class Backbone:
    """A Vision Transformer as an observer sees it.

    Args:
        name: class of the model, for sentences.
        grid: places of its patches, prefix tokens counted.
        depth: number of layers of attention.
        model: the model itself.
    """

    name: str
    grid: PatchGrid
    depth: int
    model: Any

    @property
    def pos_embed(self) -> Tensor | None:
        """The position embedding of the patches, `patch width`, detached; None if the model has none."""
        table = getattr(self.model, "pos_embed", None)
        return None if table is None else self.patch_rows(table.detach())

    @property
    def pos_parameter(self) -> nn.Parameter | None:
        """The position embedding as it is learned; None if it is fixed or there is none."""
        table = getattr(self.model, "pos_embed", None)
        return table if isinstance(table, nn.Parameter) and table.requires_grad else None

    def patch_rows(self, table: Tensor) -> Tensor:
        """`patch width`: the rows of a table like `pos_embed` that belong to patches.

        Raises:
            ValueError: if it has rows for neither the patches nor all tokens.
        """
        rows = table.reshape(-1, table.shape[-1])
        grid = self.grid
        if len(rows) not in (grid.num_patches, grid.num_tokens):
            raise ValueError(
                f"pos_embed has {len(rows)} rows; expected {grid.num_patches}, one for each patch of the "
                f"{grid.height} × {grid.width} grid, or {grid.num_tokens} with prefix tokens"
            )
        return rows[len(rows) - grid.num_patches :]

    @property
    def layers(self) -> list[Layer]:
        """The layers, opened.

        Raises:
            ValueError: for a layer that is not pre-norm, as far as its parts tell, or not known.
        """
        return [_layer(self.name, number, block) for number, block in enumerate(self.model.blocks)]


def as_backbone(model: nn.Module) -> Backbone:
    """Read a model by the names that our ViT shares with timm: `blocks`, `patch_embed`, `pos_embed`, …

    Raises:
        ValueError: for a model without them.
    """
    vit: Any = getattr(model, "module", model)  # DistributedDataParallel
    missing = [name for name in ("blocks", "patch_embed") if not hasattr(vit, name)]
    if missing:
        raise ValueError(
            f"{type(vit).__name__} is no Vision Transformer known here: it has no attribute {missing[0]!r}; expected "
            f"`blocks`, `patch_embed`, `pos_embed` and `num_prefix_tokens` as in timm, or a wherefrom.models.vit.ViT"
        )
    grid = getattr(vit, "grid", None)
    if grid is None:
        height, width = vit.patch_embed.grid_size
        grid = PatchGrid(height, width, getattr(vit, "num_prefix_tokens", 0))
    backbone = Backbone(type(vit).__name__, grid, len(vit.blocks), vit)
    backbone.pos_embed  # noqa: B018 - refuses a table that fits no grid
    return backbone


def _layer(name: str, number: int, block: Any) -> Layer:
    norm1, norm2, attn = (getattr(block, part, None) for part in ("norm1", "norm2", "attn"))
    fused = getattr(attn, "qkv", None)
    projections: dict[str, Any] = {"qkv": fused} if fused else {x: getattr(attn, f"w_{x}", None) for x in "qkv"}
    if attn is None or norm1 is None or norm2 is None or None in projections.values():
        raise ValueError(
            f"layer {number} of {name} is a {type(block).__name__} whose parts are not known; routes need a pre-norm "
            f"layer with norm1, attn (qkv, or w_q, w_k, w_v) and norm2, one after the other"
        )
    return Layer(block, norm1, norm2, projections, attn.num_heads)
