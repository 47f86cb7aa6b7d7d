"""Does a patch look at those whose keys, or values, are similar to its own? The sums that say so.

With û = u / ‖u‖ the cosine is x_ij = û_i·û_j, and no matrix of cosines is ever made:

    Σ_ij P_ij x_ij = Σ_i û_i·(Σ_j P_ij û_j)      Σ_ij x_ij² = ‖Σ_i û_i û_iᵀ‖²
    Σ x_ij over pairs with offset o = Σ_i û_i·û_{i+o}, the autocorrelation of û over the grid (by Fourier transform)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from wherefrom.attention import AttentionRecord
from wherefrom.geometry import PatchGrid

CHUNK_ELEMENTS = 2**18
"""Numbers that are transformed at a time."""


@dataclass(frozen=True)
class UnitVectors:
    """Keys and values of patches, each divided by its length (a vector of zeros stays one); keys first.

    Args:
        vectors: `image head patch`, those of the first image a second time at the end, so that each has a next one.
        sizes: length of a key, and of a value.
    """

    vectors: Float[Tensor, "image_and_first head patch d"]
    sizes: tuple[int, int]

    def followed(
        self, attn: Float[Tensor, "image head query patch"], queries: slice, examples: slice
    ) -> Float[Tensor, "image head other"]:
        """Σ P_ij x_ij over pairs i ≠ j: keys and values of the image itself, then those of the next image.

        Args:
            attn: P, for some queries of some images, rows summing to 1.
            queries: which queries.
            examples: which images.
        """
        itself = attn.diagonal(queries.start, -2, -1)[..., None]
        sums = []
        for ahead in (0, 1):
            vectors = self.vectors[examples.start + ahead : examples.stop + ahead : examples.step]
            asking = vectors[:, :, queries]
            # û_i·û_i is 1 where the others may all be close to 1: it has to go before the sum, not after it
            products = (attn @ vectors - itself * asking) * asking
            sums += [part.sum((2, 3), dtype=torch.float64) for part in products.split(self.sizes, -1)]
        return torch.stack(sums, -1)

    def sums(self, grid: PatchGrid) -> dict[str, Float[Tensor, "image head kind ..."]]:
        """`similar_offsets`, Σ x by offset, and `similar_squares`, Σ x² over i ≠ j; of keys and of values."""
        images = len(self.vectors) - 1
        order = torch.as_tensor(grid.coordinates @ [grid.width, 1]).argsort().to(self.vectors.device)
        step = max(1, CHUNK_ELEMENTS // (4 * self.vectors[0].numel()))
        offsets, squares = [], []
        for first in range(0, images, step):
            vectors = self.vectors[first : min(first + step, images)]
            vectors = vectors if grid.order is None else vectors[:, :, order]
            offsets.append(_autocorrelation(vectors, self.sizes, grid).cpu())
            both = vectors.double().split(self.sizes, -1)
            squares.append(torch.stack([_squared_cosines(one) for one in both], 2).cpu())
        return {"similar_offsets": torch.cat(offsets), "similar_squares": torch.cat(squares)}


def unit_vectors(record: AttentionRecord, grid: PatchGrid) -> UnitVectors:
    """Of the patches' keys and values."""
    patches = slice(grid.num_prefix_tokens, None)
    both = [normalize(x[:, :, patches], dim=-1) for x in (record.k, record.v)]
    vectors = torch.cat(both, -1)
    return UnitVectors(torch.cat([vectors, vectors[:1]]), (both[0].shape[-1], both[1].shape[-1]))


def _autocorrelation(
    vectors: Float[Tensor, "image head patch d"], sizes: tuple[int, int], grid: PatchGrid
) -> Float[Tensor, "image head kind dy dx"]:
    """Σ_i û_i·û_{i+o} for each offset o, patches in the order of the grid; padded, so that nothing wraps around."""
    size = 2 * grid.height, 2 * grid.width
    waves = torch.fft.rfft2(vectors.mT.unflatten(-1, (grid.height, grid.width)), s=size)
    power = torch.view_as_real(waves).flatten(3).square_()  # real and imaginary parts side by side: sums are then fast
    kinds = torch.stack([part.sum(2) for part in power.split(sizes, 2)], 2).double()
    kinds = kinds.unflatten(-1, (size[0], size[1] // 2 + 1, 2)).sum(-1)
    sums = torch.fft.irfft2(kinds, s=size).roll((grid.height - 1, grid.width - 1), (-2, -1))
    return sums[..., : size[0] - 1, : size[1] - 1]


def _squared_cosines(vectors: Float[Tensor, "image head patch d"]) -> Float[Tensor, "image head"]:
    """Σ (û_i·û_j)² over i ≠ j."""
    return (vectors.mT @ vectors).square().sum((-2, -1)) - vectors.square().sum(-1).square().sum(-1)
