"""What is in a patch: the strength of its edges and the energy of its fine detail, from the images' own pixels.

Both look at the pixels of one patch alone, so that the borders which scrambling makes between patches do not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.geometry import PatchGrid
from wherefrom.measures import ties
from wherefrom.measures.pairs import offset_sums_of_rows

FAINT = 1e-4
"""Energy below which detail is nothing: images have a deviation of about 1, so this is a hundredth of it, squared."""
ROWS_AT_ONCE = 2**20
"""Pairs of patches worked on at a time."""

KINDS = ("contour", "texture")


def patches_of(images: Float[Tensor, "image channel y x"], grid: PatchGrid) -> Float[Tensor, "image patch channel v u"]:
    """The pixels of each patch, as the model sees it at its place.

    Raises:
        ValueError: if the grid does not divide the image.
    """
    height, width = images.shape[2:]
    if not is_cut_by(images, grid):
        raise ValueError(
            f"a grid of {grid.height} × {grid.width} patches does not divide images of {height} × {width} pixels; give "
            f"images whose sides are multiples of it"
        )
    cut = images.unflatten(3, (grid.width, -1)).unflatten(2, (grid.height, -1))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def images_of(patches: Float[Tensor, "image patch channel v u"], grid: PatchGrid) -> Float[Tensor, "image channel y x"]:
    """The images whose `patches_of` these are."""
    return patches.unflatten(1, (grid.height, grid.width)).permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def is_cut_by(images: Tensor, grid: PatchGrid) -> bool:
    """Whether these are images, `image channel y x`, whose sides are multiples of the grid's."""
    return images.dim() == 4 and not (images.shape[2] % grid.height or images.shape[3] % grid.width)


def edge_strength(patches: Float[Tensor, "*patch channel v u"]) -> Float[Tensor, "*patch"]:
    """(λ₁ − λ₂)^½ of J = mean over pixels and channels of ∇I ∇Iᵀ: how strong edges of one direction are, per pixel.

    A single edge gives its mean slope; detail without a direction, and an even patch, give 0. NaN for one pixel.

    References:
        Bigün & Granlund 1987, Optimal orientation detection of linear symmetry.
    """
    dy = patches.diff(dim=-2)[..., :, :-1] + patches.diff(dim=-2)[..., :, 1:]
    dx = patches.diff(dim=-1)[..., :-1, :] + patches.diff(dim=-1)[..., 1:, :]
    yy, xx, yx = ((a * b / 4).mean((-3, -2, -1)) for a, b in ((dy, dy), (dx, dx), (dy, dx)))
    return ((yy - xx).square() + 4 * yx.square()).pow(0.25)


def high_frequency_energy(patches: Float[Tensor, "*patch channel v u"]) -> Float[Tensor, "*patch"]:
    """Σ of squared DCT coefficients (v, u) with (v/V)² + (u/U)² ≥ ¼, per pixel and channel: the finer half of detail.

    All squared coefficients together are the mean square of the patch (Parseval).

    References:
        Ahmed, Natarajan & Rao 1974, Discrete cosine transform.
    """
    tall, wide = patches.shape[-2:]
    coefficients = dct_matrix(tall).to(patches) @ patches @ dct_matrix(wide).to(patches).mT
    v, u = torch.arange(tall) / tall, torch.arange(wide) / wide
    fine = (v[:, None].square() + u.square() >= 0.25).to(patches)
    return (coefficients.square() * fine).sum((-2, -1)).mean(-1) / (tall * wide)


def dct_matrix(size: int) -> Float[Tensor, "frequency pixel"]:
    """The orthonormal DCT-II: cos(π f (x + ½) / size) · √(2 / size), the first row divided by √2."""
    frequency, pixel = torch.arange(size).double()[:, None], torch.arange(size).double()
    matrix = torch.cos(torch.pi * frequency * (pixel + 0.5) / size) * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix


@dataclass(frozen=True)
class PairContents:
    """x_ij of each image, as residuals from the mean over all pairs of the image with the same offset.

    `contour`: the edge strength of the key, x_ij = e_j. `texture`: likeness of fine detail, x_ij = −|g_i − g_j| with g
    the logarithm of high-frequency energy. What is left when the offset is known cannot be owed to distance. A patch
    and itself are no pair here.

    Args:
        edges, details: e and g of each image, `image patch`; NaN where the image has no patches that differ.
        grid: places of the patches.
    """

    edges: Float[Tensor, "image patch"]
    details: Float[Tensor, "image patch"]
    grid: PatchGrid
    means: Float[Tensor, "kind image offset"] = field(init=False, repr=False)
    """Mean of x over pairs with the offset."""
    squares: Float[Tensor, "kind image"] = field(init=False, repr=False)
    """Σ of squared residuals."""

    def __post_init__(self):
        counts = torch.as_tensor(self.grid.offset_counts).to(self.edges).flatten()
        sums = torch.zeros(2, len(self.edges), self.grid.num_offsets).to(self.edges)
        for queries in self._ranges():
            sums += offset_sums_of_rows(self._values(queries), self.grid, queries).flatten(2)
        object.__setattr__(self, "means", sums / counts)
        squares = torch.zeros(2, len(self.edges), dtype=torch.float64)
        for queries in self._ranges():
            squares += self._residuals(queries, slice(None)).square().sum((2, 3), dtype=torch.float64).cpu()
        object.__setattr__(self, "squares", squares)

    @cached_property
    def _means_of_others(self) -> Float[Tensor, "image kind offset"]:
        means = self.means.transpose(0, 1).clone()
        means[..., self.grid.num_offsets // 2] = 0  # a patch and itself
        return means

    def products(
        self,
        attn: Float[Tensor, "image head query key"],
        by_offset: Float[Tensor, "image head dy dx"],
        queries: slice,
        examples: slice,
    ) -> Float[Tensor, "image head other"]:
        """Σ_ij P_ij x̃_ij over pairs i ≠ j of some queries: contour and texture, then with x̃ of the next image.

        As x̃ is x minus its mean by offset, this is Σ P x − Σ_o (Σ of P at o) · mean(o), and x̃ is never made. For
        contour x_ij = e_j, so attention summed over queries is enough.

        Args:
            attn: P of the images `examples`, patch keys.
            by_offset: its sums by offset.
            queries: whose rows `attn` holds.
            examples: which images they are.
        """
        both = torch.stack([torch.arange(len(self.edges)), torch.roll(torch.arange(len(self.edges)), -1)])[:, examples]
        e, g = (x[both].transpose(0, 1).to(attn) for x in (self.edges, self.details))  # image, itself or next, patch
        own = attn.diagonal(queries.start, -2, -1)
        contour = attn.sum(2) @ e.mT - own @ e[..., queries].mT
        likeness = (g[:, :, queries, None] - g[:, :, None]).abs_()
        texture = -(attn.flatten(2) @ likeness.flatten(2).mT)
        products = torch.stack([contour, texture], -1).flatten(2)
        return products - by_offset.flatten(2) @ self._means_of_others[both].to(attn).transpose(0, 1).flatten(1, 2).mT

    def _ranges(self):
        step = max(1, ROWS_AT_ONCE // (len(self.edges) * self.grid.num_patches))
        for start in range(0, self.grid.num_patches, step):
            yield slice(start, min(start + step, self.grid.num_patches))

    def _values(self, queries: slice, examples: slice | Tensor = slice(None)) -> Float[Tensor, "kind image query key"]:
        e, g = self.edges[examples], self.details[examples]
        likeness = -(g[:, queries, None] - g[:, None]).abs()
        return torch.stack([e[:, None].expand_as(likeness), likeness])

    def _residuals(self, queries: slice, examples: slice | Tensor) -> Float[Tensor, "kind image query key"]:
        index = torch.as_tensor(self.grid.offset_index[queries], device=self.edges.device)
        values = self._values(queries, examples) - self.means[:, examples][:, :, index]
        return values.masked_fill_(index == self.grid.num_offsets // 2, 0)  # a patch and itself


def pair_contents(images: Float[Tensor, "image channel y x"], grid: PatchGrid) -> PairContents | None:
    """Contents of the pairs of patches of all images; None where patches are not cut from the image by the grid."""
    height, width = images.shape[2:]
    if not is_cut_by(images, grid) or min(height // grid.height, width // grid.width) < 2:
        return None
    patches = patches_of(images.float(), grid)
    edges, details = edge_strength(patches), (high_frequency_energy(patches) + FAINT).log()
    return PairContents(_from_mean(edges), _from_mean(details), grid)


def _from_mean(values: Float[Tensor, "image patch"]) -> Float[Tensor, "image patch"]:
    """Less the image's mean; exactly 0 where its patches differ by no more than rounding."""
    away, squares = ties.centred(values)
    return away.masked_fill(squares.isnan()[:, None] & away.isfinite(), 0)
