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
from wherefrom.measures.logits import logit_share
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
from wherefrom.measures.qk_matrix import fold_gain, qk_effective_rank, qk_position_trace, qk_symmetric_share
from wherefrom.measures.ridge import ridge_loo, ridge_r2
from wherefrom.measures.spectrum import low_frequency_share, pos_spectrum
from wherefrom.measures.stream import position_in_stream
from wherefrom.measures.unscramble import (
    border_similarity,
    direction_similarity,
    edge_recovery,
    edge_recovery_chance,
    path_similarity,
    unscramble,
    upright,
)
from wherefrom.measures.use import content_shuffled, move_patches

__all__ = [
    "angle_share",
    "argmax_agreement",
    "attention_distance",
    "attention_entropy",
    "border_similarity",
    "by_distance",
    "by_relation",
    "content_shuffled",
    "coordinate_r2",
    "direction_similarity",
    "edge_recovery",
    "edge_recovery_chance",
    "effective_rank",
    "fold_gain",
    "head_divergence",
    "jensen_shannon",
    "layout",
    "linear_cka",
    "logit_share",
    "low_frequency_share",
    "map_correlation",
    "mirror_similarity",
    "move_patches",
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
    "pos_spectrum",
    "position_in_stream",
    "positional_parts",
    "positional_share",
    "prefix_mass",
    "qk_cosine",
    "qk_effective_rank",
    "qk_position_trace",
    "qk_symmetric_share",
    "ridge_loo",
    "ridge_r2",
    "row_divergence",
    "similarity_falloff",
    "similarity_falloff_spearman",
    "unscramble",
    "upright",
]
