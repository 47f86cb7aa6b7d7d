"""Heads built by hand: queries and keys so that a head has a known role, plus noise.

A place is coded by sines and cosines of its row and column, so that q_i·k_j is a function of the offset with its peak
where it is wanted. The strength of each head is set, before noise, so that `SIZE` of attention is where it belongs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wherefrom.attention import AttentionRecord
from wherefrom.data.batches import normalised, random_crops
from wherefrom.data.embedded import photos
from wherefrom.geometry import PatchGrid
from wherefrom.measures.contents import edge_strength, high_frequency_energy, patches_of
from wherefrom.measures.key_roles import favourite_count
from wherefrom.measures.roles import near_radius
from wherefrom.roles import ROLES

SIZE = 0.5
"""Share of a patch's attention at the places of the role, beyond an even spread, before noise."""
DIRECTION_SIZE = 0.8
"""The same of `direction`: half of the patches are on a side, so that a half would be no more than three to one."""
CONTENT = 1.0
"""Of contour, texture and similar: standard deviation of the scores along a row, before noise."""
NOISE = 0.7
"""Standard deviation of the noise in the scores: half of its variance the same in all images, half new in each."""
IMAGES = 64
CONTENT_ROLES = ("contour", "texture", "similar")
DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""(dy, dx) of up, down, left, right."""


@dataclass(frozen=True)
class Case:
    """A grid of patches of some pixels, prefix tokens, length of a head's queries, and a seed."""

    height: int
    width: int
    patch_size: int
    num_prefix_tokens: int
    head_dim: int
    seed: int

    @property
    def grid(self) -> PatchGrid:
        return PatchGrid(self.height, self.width, self.num_prefix_tokens)


def planted(case: Case) -> tuple[AttentionRecord, Tensor, list[str]]:
    """Attention with one head of each role, the images it belongs to, and the roles in the order of the heads."""
    generator = torch.Generator().manual_seed(case.seed)
    images = crops(case, generator)
    roles = [role for role in ROLES if role != "prefix" or case.num_prefix_tokens]
    heads = [strengthened(role, *queries_and_keys(role, case, images, generator), case) for role in roles]
    q, k = (torch.stack(parts, 1) for parts in zip(*heads, strict=True))
    q, k = with_noise(q, k, generator)
    return AttentionRecord(q, k, torch.randn(k.shape, generator=generator), case.head_dim**-0.5), images, roles


def crops(case: Case, generator: torch.Generator) -> Tensor:
    """Crops of photographs of the size of the grid."""
    stripes = photos().train_images
    chosen = torch.randint(len(stripes), (IMAGES,), generator=generator)
    size = case.height * case.patch_size, case.width * case.patch_size
    return normalised(random_crops(stripes, chosen, size, 0, generator))


def queries_and_keys(role: str, case: Case, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """q and k of one head, `image token head_dim`, to be multiplied by a strength."""
    grid = case.grid
    q, k = torch.zeros(2, IMAGES, grid.num_tokens, case.head_dim)
    patches = slice(grid.num_prefix_tokens, None)
    if role in ("local", "near", "horizontal", "vertical", "offset"):
        q[:, patches], k[:, patches] = place_codes(case, shift(role, case), role)
    elif role == "direction":
        q[:, patches], k[:, patches] = direction_codes(case)
    elif role == "self":
        q[:, patches] = k[:, patches] = torch.randn(grid.num_patches, case.head_dim, generator=generator)
    elif role == "place":
        chosen = torch.randperm(grid.num_patches, generator=generator)[: favourite_count(grid.num_patches)]
        q[:, patches, 0], k[:, grid.num_prefix_tokens + chosen, 0] = 1, 1
    elif role == "sink":
        order = torch.rand(IMAGES, grid.num_tokens, generator=generator).argsort(1)
        q[:, patches, 0], k[..., 0] = 1, (order < favourite_count(grid.num_tokens)).float()
    elif role == "similar":  # few numbers, so that a patch is not much more similar to itself than to others
        q[:, patches, :3] = k[:, patches, :3] = torch.nn.functional.normalize(
            torch.randn(IMAGES, grid.num_patches, 3, generator=generator), dim=-1
        )
    elif role == "contour":
        q[:, patches, 0], k[:, patches, 0] = 1, standardised(edge_strength(patches_of(images, grid)))
    elif role == "texture":  # 2 g_i g_j − g_j² is −(g_i − g_j)², but for what is the same in all of a row
        g = standardised((high_frequency_energy(patches_of(images, grid)) + 1e-4).log())
        q[:, patches, 0], k[:, patches, 0] = 2 * g, g
        q[:, patches, 1], k[:, patches, 1] = -1, g.square()
    elif role == "prefix":
        q[:, patches, 0], k[:, : grid.num_prefix_tokens, 0] = 1, 1
    return q, k


def shift(role: str, case: Case) -> tuple[int, int]:
    """(dy, dx) that a head looks at: no neighbour and on no axis for `offset`, the patch itself for all others."""
    if role != "offset":
        return 0, 0
    tall, up, left = (bool(case.seed >> bit & 1) for bit in range(3))
    long, short = (2, 1) if tall else (1, 2)
    return (-long if up else long), (-short if left else short)


def place_codes(case: Case, shifted: tuple[int, int], role: str) -> tuple[Tensor, Tensor]:
    """q_i·k_j = Σ_f a_f cos(π f (row_j − row_i − dy) / height) + the same of columns, or of one of both alone."""
    places = torch.as_tensor(case.grid.coordinates).double()
    axes = {"horizontal": (0,), "vertical": (1,)}.get(role, (0, 1))
    room = case.head_dim // (2 * len(axes))
    wide = {"local": 1.0, "near": float(near_radius(case.grid))}.get(role, 0.0)  # of the peak, in patches
    codes = []
    for ahead in (torch.tensor(shifted).double(), torch.zeros(2).double()):
        parts = []
        for axis in axes:
            side = (case.height, case.width)[axis]
            frequency = torch.arange(1, min(room, side) + 1).double() * math.pi / side
            height = torch.exp(-((frequency * wide) ** 2) / 4) / side**0.5  # the same peak on short and long sides
            angle = (places[:, axis, None] + ahead[axis]) * frequency
            parts += [height * angle.cos(), height * angle.sin()]
        code = torch.cat(parts, 1)
        codes.append(torch.nn.functional.pad(code, (0, case.head_dim - code.shape[1])).float())
    return codes[0], codes[1]


def direction_codes(case: Case) -> tuple[Tensor, Tensor]:
    """q_i·k_j = ± Σ_f sin(π f (x_j − x_i) / side) / f over odd f: about the same for all patches on one side of i."""
    ahead = DIRECTIONS[case.seed % 4]
    axis = int(ahead[0] == 0)
    side = (case.height, case.width)[axis]
    frequency = torch.arange(1, min(case.head_dim, 2 * side), 2)[: case.head_dim // 2].double()
    angle = torch.as_tensor(case.grid.coordinates)[:, axis, None] * frequency * math.pi / side
    q = torch.cat([angle.cos(), -angle.sin()], 1) / frequency.repeat(2) * sum(ahead)
    k = torch.cat([angle.sin(), angle.cos()], 1)
    room = case.head_dim - q.shape[1]
    return tuple(torch.nn.functional.pad(code, (0, room)).float() for code in (q, k))


def standardised(values: Tensor) -> Tensor:
    return (values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True).clamp(min=1e-6)


def strengthened(role: str, q: Tensor, k: Tensor, case: Case) -> tuple[Tensor, Tensor]:
    """q and k times the least strength at which the size asked for is reached, or else that which comes nearest."""
    if role == "global":
        return q, k
    reached, strengths = [], [1.25**n / 8 for n in range(32)]
    for strength in strengths:
        scores = strength * q[:8] @ k[:8].mT * case.head_dim**-0.5
        reached.append(size_of(role, scores, case, k[:8, :, 0] > 0))
        if reached[-1] >= 1:
            break
    strength = strengths[max(range(len(reached)), key=reached.__getitem__)]
    return q * strength**0.5, k * strength**0.5


def size_of(role: str, scores: Tensor, case: Case, drawn: Tensor) -> float:
    """How far the head goes where the role wants it, as a share of what was asked for; `drawn`: keys of all queries."""
    grid, prefix = case.grid, case.num_prefix_tokens
    if role in CONTENT_ROLES:
        return float(scores[:, prefix:, prefix:].std(-1).mean()) / CONTENT
    attn = scores.softmax(-1)[:, prefix:]
    if role == "prefix":
        return _beyond(float(attn[..., :prefix].sum(-1).mean()), prefix / grid.num_tokens) / SIZE
    if role == "sink":
        return _beyond(float((attn * drawn[:, None]).sum(-1).mean()), float(drawn.float().mean())) / SIZE
    patches = attn[..., prefix:] / attn[..., prefix:].sum(-1, keepdim=True)
    if role == "place":
        drawn = drawn[:, prefix:]
        return _beyond(float((patches * drawn[:, None]).sum(-1).mean()), float(drawn.float().mean())) / SIZE
    chosen = torch.as_tensor(places_of(role, case))
    some = chosen.any(1)  # at the margin there may be nothing to look at
    mass = float((patches * chosen).sum(-1)[:, some].mean())
    return _beyond(mass, float(chosen[some].float().mean())) / (DIRECTION_SIZE if role == "direction" else SIZE)


def places_of(role: str, case: Case):
    """Pairs of patches that the role is about."""
    dy, dx = case.grid.offsets[..., 0], case.grid.offsets[..., 1]
    other = (dy != 0) | (dx != 0)
    ahead = shift(role, case)
    steps, side = np.maximum(abs(dy), abs(dx)), DIRECTIONS[case.seed % 4]
    masks = {
        "local": (steps <= 1) & other,
        "near": (steps <= near_radius(case.grid)) & other,
        "direction": dy * side[0] + dx * side[1] > 0,
        "self": ~other,
        "horizontal": (dy == 0) & other,
        "vertical": (dx == 0) & other,
        "offset": (dy == ahead[0]) & (dx == ahead[1]),
    }
    return masks[role]


def _beyond(mass: float, even: float) -> float:
    return (mass - even) / (1 - even)


def with_noise(q: Tensor, k: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise in q and k alone gives scores a standard deviation of `NOISE`, apart from what it makes of the signal."""
    fixed, fresh = (torch.randn(2, n, *q.shape[1:], generator=generator) for n in (1, IMAGES))
    noise = NOISE**0.5 * (fixed + fresh) / 2**0.5
    return q + noise[0], k + noise[1]
