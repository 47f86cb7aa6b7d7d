"""What makes a score: the content or the position of the query, and the content or the position of the key."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.attention import AttentionRecord
from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid

TERMS = ("content_content", "content_position", "position_content", "position_position")
"""Terms of a score; the first word is the query's side, the second the key's."""


def logit_share(
    q: Float[Tensor, "batch head query head_dim"], k: Float[Tensor, "batch head key head_dim"]
) -> dict[str, Float[Tensor, " head"]]:
    """mean_bij (term_ij^b)² / mean_bij (S_ij^b)², all centred over the keys j of each row, for the terms of

        S_ij^b = q_i^b·k_j^b = q̄_i·k̄_j + q̄_i·δk_j^b + δq_i^b·k̄_j + δq_i^b·δk_j^b

    with q̄_i the mean over images b (position) and δq_i^b = q_i^b − q̄_i (content); k likewise. Each sum of squares is
    Σ_b tr(A_b C_b) with A = Σ_i q_i q_iᵀ, C = Σ_j (k_j − k̃)(k_j − k̃)ᵀ and k̃ the mean over keys, so time is linear in
    the number of tokens. Any factor on S cancels.

    The mean over B images carries 1/B of the variance of content with it: contents alone give content_position and
    position_content of about 1/B, not 0. On natural images it also carries what images have in common at a position;
    on content-shuffled images nothing but the position is left. What all queries share, in all images and positions
    (a bias), counts with the query's position: position_content may be large in a model without positions. What all
    keys share cancels, so position on the key's side is position alone.

    Args:
        q: queries of layer 0, of patches alone, `batch head query head_dim`.
        k: keys of layer 0, of patches alone, `batch head key head_dim`.

    Returns:
        By term (`TERMS`) a share ≥ 0 for each head, and `covariance`: 1 − the four, of either sign. The order is query
        first: content_position is the content of the query with the position of the key. NaN for fewer than two images
        and where scores do not vary.

    References:
        Ke, He & Liu 2021, Rethinking Positional Encoding in Language Pre-training (TUPE, ICLR).
        He et al. 2021, DeBERTa: Decoding-enhanced BERT with Disentangled Attention (ICLR).
    """
    q, k = q.double(), k.double()
    if len(q) < 2:
        return {name: q.new_full(q.shape[1:2], torch.nan) for name in (*TERMS, "covariance")}
    k = k - k.mean(2, keepdim=True)
    queries, keys = ({"position": x.mean(0, keepdim=True), "content": x - x.mean(0)} for x in (q, k))
    total = _mean_square(q, k)
    pairs = {term: term.split("_") for term in TERMS}
    shares = {term: _mean_square(queries[one], keys[other]) / total for term, (one, other) in pairs.items()}
    return shares | {"covariance": 1 - torch.stack(list(shares.values())).sum(0)}


def logit_measurements(
    record: AttentionRecord, grid: PatchGrid, split: str = "probe", content: str | None = "natural"
) -> Iterator[Measurement]:
    """`logit_share` of layer 0, by head; nothing where a bias is added to the scores, of which q and k know nothing.

    Args:
        record: of layer 0.
        grid: of the model; patches alone are looked at.
        split: of the images.
        content: of the images, `natural` or `shuffled`.
    """
    if record.bias is not None:
        return
    prefix = grid.num_prefix_tokens
    for name, values in logit_share(record.q[:, :, prefix:], record.k[:, :, prefix:]).items():
        for head, value in enumerate(values.tolist()):
            yield Measurement(f"logit_share_{name}", value, split, 0, head, content=content)


def _mean_square(
    q: Float[Tensor, "#batch head query head_dim"], k: Float[Tensor, "#batch head key head_dim"]
) -> Float[Tensor, " head"]:
    """mean_bij (q_i^b·k_j^b)²; the mean over images of a side that does not depend on them needs no copies."""
    both = (q.mT @ q) * (k.mT @ k)
    return both.mean(0).sum((1, 2)) / (q.shape[2] * k.shape[2])
