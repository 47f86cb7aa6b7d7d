"""Figures: a table of measurements or an array in, matplotlib Axes out. Public as `wherefrom.plot`.

    study.measurements("similarity_falloff") -> wf.plot.falloff_over_steps -> Axes

Functions of one panel take `ax`, functions of several take an empty `figure`; without, they make their own.
"""

from wherefrom.figures.attention import alignment_by_distance, attention_distance
from wherefrom.figures.contents import alignment_by_content, attention_by_content, positional_parts
from wherefrom.figures.gradients import gradients_by_relation
from wherefrom.figures.heads import (
    HeadMaps,
    divergence_over_steps,
    head_gallery,
    roles_by_layer,
)
from wherefrom.figures.images import example_images, similarity_tiles
from wherefrom.figures.places import layout
from wherefrom.figures.pruning import ablation_by_layer, copies_by_layer
from wherefrom.figures.routes import cut_arms, force_over_steps, ledger_by_layer, ledger_over_steps
from wherefrom.figures.scores import scores_by_layer, scores_over_steps
from wherefrom.figures.settings import over_setting, setting_sweep
from wherefrom.figures.steps import accuracy_over_steps, falloff_over_steps, over_steps
from wherefrom.figures.unscramble import recovery_over_steps, unscrambled
from wherefrom.figures.use import accuracy_without_positions, logit_shares, position_use_over_steps

__all__ = [
    "HeadMaps",
    "ablation_by_layer",
    "accuracy_over_steps",
    "accuracy_without_positions",
    "alignment_by_content",
    "alignment_by_distance",
    "attention_by_content",
    "attention_distance",
    "copies_by_layer",
    "cut_arms",
    "divergence_over_steps",
    "example_images",
    "falloff_over_steps",
    "force_over_steps",
    "gradients_by_relation",
    "head_gallery",
    "layout",
    "ledger_by_layer",
    "ledger_over_steps",
    "logit_shares",
    "over_setting",
    "over_steps",
    "position_use_over_steps",
    "positional_parts",
    "recovery_over_steps",
    "roles_by_layer",
    "scores_by_layer",
    "scores_over_steps",
    "setting_sweep",
    "similarity_tiles",
    "unscrambled",
]
