"""Pure functions, tensors in, tensors out: every quantity by its definition. One family a file."""

from wherefrom.measures.alignment import angle_share, argmax_agreement, positional_share, qk_cosine
from wherefrom.measures.copies import linear_cka, map_correlation
from wherefrom.measures.heads import (
    head_divergence,
    jensen_shannon,
    offset_sharpness,
    one_minus_correlation,
    row_divergence,
)
from wherefrom.measures.locality import attention_distance, attention_entropy, patch_attention, prefix_mass
from wherefrom.measures.pairs import by_distance, by_relation, offset_map, offset_sums
from wherefrom.measures.position import (
    coordinate_r2,
    effective_rank,
    layout,
    mirror_similarity,
    near_minus_far,
    neighbour_recovery,
    neighbour_recovery_chance,
    patch_association,
    pos_similarity,
    similarity_falloff,
    similarity_falloff_spearman,
)
from wherefrom.measures.positional import positional_parts
from wherefrom.measures.unscramble import (
    border_similarity,
    direction_similarity,
    edge_recovery,
    edge_recovery_chance,
    path_similarity,
    unscramble,
    upright,
)

__all__ = [
    "angle_share",
    "argmax_agreement",
    "attention_distance",
    "attention_entropy",
    "border_similarity",
    "by_distance",
    "by_relation",
    "coordinate_r2",
    "direction_similarity",
    "edge_recovery",
    "edge_recovery_chance",
    "effective_rank",
    "head_divergence",
    "jensen_shannon",
    "layout",
    "linear_cka",
    "map_correlation",
    "mirror_similarity",
    "near_minus_far",
    "neighbour_recovery",
    "neighbour_recovery_chance",
    "offset_map",
    "offset_sharpness",
    "offset_sums",
    "one_minus_correlation",
    "patch_association",
    "patch_attention",
    "path_similarity",
    "pos_similarity",
    "positional_parts",
    "positional_share",
    "prefix_mass",
    "qk_cosine",
    "row_divergence",
    "similarity_falloff",
    "similarity_falloff_spearman",
    "unscramble",
    "upright",
]
