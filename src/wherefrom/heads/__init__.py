"""What the record of a run or a study says of its heads: onsets, kinds that come back, and what could be pruned."""

from wherefrom.heads.maps import final_maps, jensen_shannon, own_change
from wherefrom.heads.matching import Matching, matching_as_dict, seed_matching, study_matching
from wherefrom.heads.onsets import head_onsets, onsets_by_seed
from wherefrom.heads.pruning import COPY, NEEDS, SMALL, head_table, need

__all__ = [
    "COPY",
    "NEEDS",
    "SMALL",
    "Matching",
    "final_maps",
    "head_onsets",
    "head_table",
    "jensen_shannon",
    "matching_as_dict",
    "need",
    "onsets_by_seed",
    "own_change",
    "seed_matching",
    "study_matching",
]
