"""The minimal Vision Transformer, to be read from top to bottom.

An image is cut into patches; each becomes a token x_i. Nothing says where a patch was, except that `pos_embed`, a table
of learned vectors that starts as noise, is added: x_i += pos_i. Then, `depth` times,

    x += Attention(LayerNorm(x))        S = q·k/√d,  A = softmax S,  z = A v,  one set of q, k, v for each head
    x += MLP(LayerNorm(x))

and the mean over patches (or a class token) is read out by one linear map. Names of modules follow timm. Without the
table (pos_embed = rope), queries and keys are turned by angles that grow with row and column instead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wherefrom.config import ModelConfig
from wherefrom.geometry import PatchGrid

PATCH_SIZE = 4
"""Side of a patch where the configuration leaves it open and nothing is known of the data."""


class PatchEmbed(nn.Module):
    """Cut images into patches and map each linearly to a token."""

    def __init__(self, channels: int, patch_size: int, width: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(channels * patch_size**2, width)

    def forward(self, images: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch patch width"]:
        batch, channels, height, width = images.shape
        p = self.patch_size
        patches = images.reshape(batch, channels, height // p, p, width // p, p)
        return self.proj(patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))


class Rotary(nn.Module):
    """Turns each pair (x_n, x_{n+d/2}) of a query or key by its place: by row·ω_n, or by column·ω_n.

    Then q_i·k_j knows of the places of i and j only the offset between them. ω_n = 100^(−4n/d), n = 0 … d/4 − 1, for
    rows and again for columns; prefix tokens are not turned (Su et al. 2021; axial, base 100: Heo et al. 2024).
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: PatchGrid, head_dim: int):
        super().__init__()
        places = torch.as_tensor(grid.coordinates, dtype=torch.float64)
        omega = 100.0 ** (-torch.arange(head_dim // 4, dtype=torch.float64) * 4 / head_dim)
        patches = (places[:, :, None] * omega).flatten(1)
        angles = torch.cat([patches.new_zeros(grid.num_prefix_tokens, head_dim // 2), patches])
        self.register_buffer("cos", angles.cos().to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("sin", angles.sin().to(torch.get_default_dtype()), persistent=False)

    def forward(self, x: Float[Tensor, "batch head token head_dim"]) -> Float[Tensor, "batch head token head_dim"]:
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * self.cos - second * self.sin, first * self.sin + second * self.cos], dim=-1)


class Attention(nn.Module):
    """z_i = Σ_j softmax_j(q_i·k_j/√d) v_j in each head, then w_o over all heads."""

    def __init__(self, width: int, num_heads: int, rotary: Rotary | None = None):
        super().__init__()
        self.num_heads = num_heads
        self.rotary = rotary
        self.w_q = nn.Linear(width, width)
        self.w_k = nn.Linear(width, width, bias=False)  # it would add the same to all of a row: softmax cannot see it
        self.w_v = nn.Linear(width, width)
        self.w_o = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        q, k, v = (self.heads(w(x)) for w in (self.w_q, self.w_k, self.w_v))
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        z = F.scaled_dot_product_attention(q, k, v)
        return self.w_o(z.transpose(1, 2).flatten(2))

    def heads(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch head token head_dim"]:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """One pre-norm layer: x + Attention(LayerNorm(x)), then x + MLP(LayerNorm(x))."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, rotary: Rotary | None = None):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, num_heads, rotary)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Images `batch channel y x` to class scores `batch class`.

    Args:
        config: width, depth, heads, patch size, read-out, position embedding.
        image_shape: (channels, height, width) of the images.
        num_classes: how many classes.

    Raises:
        ValueError: if patch_size does not divide the image.
    """

    def __init__(self, config: ModelConfig, image_shape: tuple[int, int, int], num_classes: int):
        super().__init__()
        channels, *size = image_shape
        patch_size = config.patch_size or PATCH_SIZE
        self.grid = patch_grid(size[0], size[1], patch_size, num_prefix_tokens=int(config.pool == "class"))
        self.num_prefix_tokens = self.grid.num_prefix_tokens
        self.patch_embed = PatchEmbed(channels, patch_size, config.width)
        self.pos_embed = position_embedding(config, self.grid)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width)) if self.num_prefix_tokens else None
        rotary = Rotary(self.grid, config.width // config.num_heads) if config.pos_embed == "rope" else None
        blocks = (Block(config.width, config.num_heads, config.mlp_ratio, rotary) for _ in range(config.depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, num_classes)
        self.apply(initialise)

    def forward(self, images: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch class"]:
        x = self.patch_embed(images)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = self.norm(self.blocks(x))
        return self.head(x.mean(1) if self.cls_token is None else x[:, 0])


def patch_grid(height: int, width: int, patch_size: int, num_prefix_tokens: int = 0) -> PatchGrid:
    """The grid of patches of an image.

    Raises:
        ValueError: if patch_size does not divide the image.
    """
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"patch_size must divide height and width of the images; found {height} × {width} pixels and patch_size "
            f"{patch_size}; choose a divisor of both"
        )
    return PatchGrid(height // patch_size, width // patch_size, num_prefix_tokens)


def position_embedding(config: ModelConfig, grid: PatchGrid) -> nn.Parameter | None:
    """`1 patch width`: noise that is learned, fixed sines and cosines, or None."""
    if config.pos_embed in ("none", "rope"):
        return None
    if config.pos_embed == "sincos":
        return nn.Parameter(sincos(grid, config.width)[None], requires_grad=False)
    return nn.Parameter(torch.randn(1, grid.num_patches, config.width) * config.pos_embed_std)


def sincos(grid: PatchGrid, width: int) -> Float[Tensor, "patch width"]:
    """sin and cos of row·ω and column·ω, ω = 10000^(−4n/width), n = 0 … width/4 − 1 (Vaswani et al. 2017, in 2D)."""
    places = torch.as_tensor(grid.coordinates, dtype=torch.float64)
    omega = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) * 4 / width)
    angles = places[:, :, None] * omega
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1).to(torch.get_default_dtype())


def initialise(module: nn.Module) -> None:
    """Linear maps: Xavier-uniform matrices, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
