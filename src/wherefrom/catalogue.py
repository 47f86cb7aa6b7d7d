"""The only list of measures: name, unit, range and meaning of every number that is ever recorded."""

from __future__ import annotations

from dataclasses import dataclass, fields

from wherefrom.roles import ROLE_MEASURES, SENTENCES


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number: `measure` says what it is, the other fields say of what. None: does not apply."""

    measure: str
    value: float | None
    split: str | None = None
    """`train` (the batch trained on), `probe` (fixed held-out images) or `test` (all held-out images)."""
    layer: int | None = None
    head: int | None = None
    route: str | None = None
    relation: str | None = None
    distance: float | None = None
    grid: str | None = None
    """`model`: places as the model sees them; `true`: places before the shuffling."""
    content: str | None = None
    """What the probe images hold, where it matters: `natural`, or `shuffled`: their patches permuted anew in each."""


COLUMNS = tuple(field.name for field in fields(Measurement))


@dataclass(frozen=True)
class Measure:
    """What a recorded number is."""

    name: str
    unit: str
    low: float | None
    high: float | None
    null: str
    """The value where there is no structure."""
    prefix_treatment: str
    """How class and register tokens are handled."""
    sentence: str
    reference: str = ""


_STRUCTURES = {"similarity_falloff": "correlation", "near_minus_far": "cosine", "coordinate_r2": "share"}
"""Structure measures of the position embedding that forces and ledgers are kept for, with their units."""

_SCORE_STRUCTURES = {
    "qk_alignment": ("cosine", "the edge - far contrast of q-k alignment"),
    "log_attn_edge": ("nats", "the logarithm of mean attention at edge neighbours, mean over heads"),
    "log_attn_far": ("nats", "the logarithm of mean attention at far pairs, mean over heads"),
}
"""What the account of the scores follows on its probe images: unit, and what it is."""

_ROLE_PARTS = {
    "score": "",
    "low": " Lower end of its 95 % interval over images.",
    "high": " Upper end of its 95 % interval over images.",
    "threshold": " What chance gives: the same head with offsets, keys or images exchanged.",
}
"""What each part of `ROLE_MEASURES` is."""

_ABLATION_PARTS = {"": "", "_low": _ROLE_PARTS["low"], "_high": _ROLE_PARTS["high"]}

_LOGIT_TERMS = {
    "content_content": (0, "content of the query with content of the key"),
    "content_position": (0, "content of the query with position of the key"),
    "position_content": (0, "position of the query, or what all queries share, with content of the key"),
    "position_position": (0, "position of the query, or what all queries share, with position of the key"),
    "covariance": (None, "covariance of these four"),
}
"""Terms of a score with the lower end of their share; position: the mean over images, content: the rest."""

_POSITIONAL_PARTS = {
    "offset": "the offset alone explains",
    "key": "the position of the key alone adds to that",
    "pair": "is left to the pair of query's and key's positions",
}

_NO_PREFIX = "patches only"
_RENORMALISED = "patch queries and patch keys only, rows renormalised over patch keys"
_PATCH_PAIRS = "pairs of patches only; prefix tokens take part in the softmax"
_WITH_PREFIX = "patch queries; prefix keys are a relation of their own; all take part in the softmax"
_ALL_IMAGE = "whole model"
_NO_TOKENS = "weights only"
_JELASSI = "Jelassi, Sander & Li 2022, Vision Transformers provably learn spatial structure"
_RAGHU = "Raghu et al. 2021, Do ViTs See Like CNNs?"
_LCA = "Lan et al. 2019, Loss Change Allocation (there of the loss)"
_WALMER = "Walmer et al. 2023, Teaching Matters"
_NASEER = "Naseer et al. 2021, Intriguing Properties of Vision Transformers"
_TUPE = "Ke, He & Liu 2021, Rethinking Positional Encoding in Language Pre-training (TUPE); He et al. 2021, DeBERTa"
_MIMETIC = "Trockman & Kolter 2023, Mimetic Initialization of Self-Attention Layers (arXiv 2305.09828)"
_PAN = "Pan, Philip & Schwartz 2024 (arXiv 2405.14880); Roy & Vetterli 2007, The effective rank"

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("loss", "nats", 0, None, "ln(number of classes)", _ALL_IMAGE, "Mean cross-entropy."),
        Measure("accuracy", "share", 0, 1, "1 / number of classes", _ALL_IMAGE, "Share of images classified right."),
        Measure("learning_rate", "1", 0, None, "", "", "Learning rate of the step that follows."),
        Measure("grad_norm", "1", 0, None, "", _ALL_IMAGE, "Norm of the whole gradient before clipping."),
        Measure(
            "similarity_falloff", "correlation", -1, 1, "0", _NO_PREFIX,
            "How well likeness of two position embeddings falls with their distance (Pearson).", "Mantel 1967",
        ),
        Measure(
            "similarity_falloff_spearman", "correlation", -1, 1, "0", _NO_PREFIX,
            "The same as a rank correlation.", "Mantel 1967",
        ),
        Measure(
            "similarity_falloff_p", "probability", 0, 1, "uniform", _NO_PREFIX,
            "Share of random relabellings of the patches with a falloff at least as high.", "Mantel 1967",
        ),
        Measure(
            "similarity_falloff_null_low", "correlation", -1, 1, "", _NO_PREFIX,
            "Lower end of the 99 % interval of the falloff under random relabelling.", "Mantel 1967",
        ),
        Measure(
            "similarity_falloff_null_high", "correlation", -1, 1, "", _NO_PREFIX,
            "Upper end of the 99 % interval of the falloff under random relabelling.", "Mantel 1967",
        ),
        Measure(
            "near_minus_far", "cosine", -2, 2, "0", _NO_PREFIX,
            "Likeness of edge neighbours' position embeddings minus that of far pairs.",
        ),
        Measure(
            "coordinate_r2", "share", None, 1, "about -0.2", _NO_PREFIX,
            "Leave-one-out R² of row and column read from the position embedding by ridge regression.",
        ),
        Measure("coordinate_r2_row", "share", None, 1, "about -0.2", _NO_PREFIX, "The same for the row alone."),
        Measure("coordinate_r2_column", "share", None, 1, "about -0.2", _NO_PREFIX, "The same for the column alone."),
        Measure(
            "neighbour_recovery", "share", 0, 1, "neighbour_recovery_chance", _NO_PREFIX,
            "Share of patches whose most similar other patch is one of its 8 neighbours.",
        ),
        Measure(
            "neighbour_recovery_chance", "share", 0, 1, "", _NO_PREFIX,
            "Neighbour recovery of a random guess on this grid.",
        ),
        Measure(
            "edge_recovery", "share", 0, 1, "edge_recovery_chance", _NO_PREFIX,
            "Pairs of edge neighbours put side by side again when the shuffled patches are arranged by the likeness of "
            "position embeddings as they are at this step.",
        ),
        Measure(
            "edge_recovery_path", "share", 0, 1, "edge_recovery_chance", _NO_PREFIX,
            "The same by the likeness of the steps that the position embeddings have taken until now.",
        ),
        Measure(
            "edge_recovery_chance", "share", 0, 1, "", _NO_PREFIX, "Edge recovery of a random arrangement.",
        ),
        Measure(
            "edge_recovery_pixels", "share", 0, 1, "edge_recovery_chance", _NO_PREFIX,
            "Edge recovery by the pixels of training images alone: correlation of the borders of two patches.",
        ),
        Measure(
            "effective_rank", "dimensions", 1, None, "min(patches - 1, width)", _NO_PREFIX,
            "Exponential of the entropy of the position embedding's normalised squared singular values.",
        ),
        Measure(
            "pos_low_frequency_share", "share", 0, 1, "5 / (patches - 1)", _NO_PREFIX,
            "Share of the position embedding's energy at low frequencies of the two-dimensional DCT over the grid: at "
            "most two half periods, down and across together.",
        ),
        Measure(
            "mirror_similarity", "cosine", -2, 2, "0", _NO_PREFIX,
            "Likeness of a patch and its mirror image beyond that of other pairs at the same distance.",
        ),
        Measure(
            "pos_similarity", "cosine", -1, 1, "0", _NO_PREFIX,
            "Cosine of two centred position embeddings, by relation or distance.", "Dosovitskiy et al. 2020, Fig. 7",
        ),
        Measure(
            "attention_distance", "patches", 0, None, "the grid's mean distance", _RENORMALISED,
            "Mean distance at which a patch looks, self included.", _RAGHU,
        ),
        Measure(
            "offset_sharpness", "nats", 0, None, "0", _RENORMALISED,
            "How far the offsets at which a head looks are from those of uniform attention (Kullback-Leibler "
            "divergence; at most ln of the number of patches).",
        ),
        Measure(
            "attention_entropy", "nats", 0, None, "ln(number of tokens)", "patch queries, all keys",
            "Entropy of a patch's attention.",
        ),
        Measure(
            "prefix_mass", "share", 0, 1, "prefix tokens / tokens", "patch queries on prefix keys",
            "Attention of patches on class and register tokens.",
        ),
        Measure("attn", "share", 0, 1, "1 / number of tokens", _WITH_PREFIX, "Mean attention of a pair of patches."),
        Measure(
            "qk_alignment", "cosine", -1, 1, "0", _WITH_PREFIX,
            "Mean cosine of query and key of a pair of patches, as attention gets them (with rope: turned).",
        ),
        Measure(
            "angle_share", "share", 0, 1, "", _PATCH_PAIRS,
            "Within a row, the share of the scores' variance that the angle of query and key explains (R²).",
        ),
        Measure(
            "argmax_agreement", "share", 0, 1, "1 / number of patches", _PATCH_PAIRS,
            "Share of rows whose highest score is also the smallest angle.",
        ),
        Measure(
            "positional_share", "share", None, 1, "0", _PATCH_PAIRS,
            "Share of the scores' variance that is the same in all images: places rather than contents.",
        ),
        *(
            Measure(
                f"logit_share_{term}", "share", low, None, "", "patch queries and patch keys only",
                f"Layer 0, before softmax: share of the scores' variance within rows that is {what}.",
                _TUPE,
            )
            for term, (low, what) in _LOGIT_TERMS.items()
        ),
        Measure(
            "qk_symmetric_share", "share", 0, 1, "about 0.5", _NO_TOKENS,
            "Of w_q'w_k of a head, LayerNorm's gain folded in, the share of the symmetric part: 1 where i scores j as "
            "j scores i, 0 where with opposite sign.", _MIMETIC,
        ),
        Measure(
            "qk_effective_rank", "dimensions", 1, None, "", _NO_TOKENS,
            "Exponential of the entropy of the normalised squared singular values of w_q'w_k of a head; at most the "
            "head's width.", _PAN,
        ),
        Measure(
            "qk_position_trace", "nats", None, None, "0", _NO_PREFIX,
            "Trace of w_q'w_k times the covariance of the position embedding, in units of a score: above 0 where "
            "positions with similar embeddings attend to each other, below where they avoid each other.", _MIMETIC,
        ),
        Measure(
            "position_in_stream", "share", None, 1, "about 0", _NO_PREFIX,
            "Leave-one-out R² of row and column read by ridge regression from the residual stream before the layer, or "
            "after the last.",
        ),
        Measure(
            "position_use", "nats", None, None, "0", _ALL_IMAGE,
            "Loss on images whose patches are permuted among the positions, afresh in each, minus the loss: above 0 "
            "where the model uses positions.", _NASEER,
        ),
        Measure(
            "position_use_accuracy", "share", -1, 1, "0", _ALL_IMAGE,
            "Accuracy minus the accuracy on images whose patches are permuted among the positions, afresh in each: "
            "above 0 where the model uses positions.", _NASEER,
        ),
        *(
            Measure(
                f"positional_{part}_share", "share", None, None, "", _PATCH_PAIRS,
                f"Of the variance of the scores' mean over images, split-half, the share that {what}; null where the "
                "halves hardly agree, and on grids with more than 3000 offsets and patches.",
            )
            for part, what in _POSITIONAL_PARTS.items()
        ),
        Measure(
            "pressure", "nats", None, None, "0", _WITH_PREFIX,
            "T - A: how hard the loss pushes the score of a pair up (+) or down (-), per example.",
        ),
        Measure(
            "advantage", "nats", None, None, "0", _WITH_PREFIX,
            "Loss saved per unit of attention moved from the row's average onto the pair, per example.",
        ),
        Measure(
            "head_divergence_attn", "nats", None, None, "0", _RENORMALISED,
            "Mean pairwise Jensen-Shannon divergence of the heads' offset maps, noise subtracted.", _WALMER,
        ),
        Measure(
            "row_divergence", "nats", None, None, "0", _RENORMALISED,
            "Mean pairwise Jensen-Shannon divergence of the heads' mean attention, query by query, noise subtracted: "
            "also tells apart heads that look at different fixed positions.",
            "Lin 1991, Divergence measures based on the Shannon entropy",
        ),
        Measure(
            "head_divergence_pressure", "1 - correlation", None, None, "0", _PATCH_PAIRS,
            "Mean pairwise 1 - correlation of the heads' maps of pressure, noise subtracted.",
        ),
        *(
            Measure(
                f"ablation_loss_change{part}", "nats", None, None, "0", "all tokens; the loss is the whole model's",
                f"Change of the probe's loss when a head's output is replaced by its mean over images.{what}",
            )
            for part, what in _ABLATION_PARTS.items()
        ),
        Measure(
            "patch_association", "share", 0, 1, "chance", _NO_PREFIX,
            "Share of patches whose most similar patches are its true set.", _JELASSI + ", Def. 2.2",
        ),
        Measure(
            "route_closure", "share", 0, None, "0", _NO_PREFIX,
            "By how much the routes of the gradient on the position embedding miss autograd's gradient, relative.",
        ),
        Measure(
            "ledger_residual", "share", 0, None, "0", _NO_PREFIX,
            "What the worst of the ledgers misses, relative to the sum of the sizes of all steps' changes.", _LCA,
        ),
        *(
            measure
            for name, (unit, what) in _SCORE_STRUCTURES.items()
            for measure in (
                Measure(
                    f"ledger_{name}", unit, None, None, "0", _PATCH_PAIRS,
                    f"What the gradient of one relation of pairs, on w_q or w_k, has added to {what}; the drift of "
                    f"their inputs and weight decay too.", _LCA,
                ),
                Measure(
                    f"ledger_{name}_change", unit, None, None, "0", _PATCH_PAIRS,
                    f"By how much {what} has changed since the beginning.",
                ),
                Measure(
                    f"ledger_{name}_residual", "share", 0, None, "0", _PATCH_PAIRS,
                    f"What the ledger of {what} misses, relative to the sum of the sizes of all steps' changes.", _LCA,
                ),
            )
        ),
        *(
            Measure(
                name, "score", None, 1 if part == "score" else None, "0", _RENORMALISED,
                SENTENCES[role] + _ROLE_PARTS[part],
            )
            for name, (role, part) in ROLE_MEASURES.items()
        ),
        *(
            measure
            for name, unit in _STRUCTURES.items()
            for measure in (
                Measure(
                    f"force_{name}", f"{unit} / learning rate", None, None, "0", _NO_PREFIX,
                    f"How fast descent along one route's gradient alone would raise {name}.",
                ),
                Measure(
                    f"ledger_{name}", unit, None, None, "0", _NO_PREFIX,
                    f"What one route of the gradient, or weight decay, has added to {name} since the beginning.", _LCA,
                ),
                Measure(
                    f"ledger_{name}_change", unit, None, None, "0", _NO_PREFIX,
                    f"By how much {name} has changed since the beginning.",
                ),
                Measure(
                    f"ledger_{name}_residual", "share", 0, None, "0", _NO_PREFIX,
                    f"What the ledger of {name} misses, relative to the sum of the sizes of all steps' changes.", _LCA,
                ),
            )
        ),
    )
}  # fmt: skip
