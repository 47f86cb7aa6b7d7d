"""Verdicts in plain English: what was found, with its number, interval, control and seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isnan

from wherefrom.claims.head_counts import fall_or_bend
from wherefrom.claims.heads import ATTENTION
from wherefrom.claims.rule import ALPHA, Comparison, Decision
from wherefrom.config import CAUSAL
from wherefrom.statistics import TTest

CLAIMS: dict[str, str] = {
    "C0": "A high attention score means a small angle between query and key.",
    "C1": "The gradient pulls neighbouring patches together.",
    "C2": "The gradient pushes far patches apart.",
    "C3a": "Position embeddings become a map of the image plane.",
    "C3b": "It is queries and keys that make position embeddings a map.",
    "C4": "Heads specialise, each by its own gradient.",
    "C5": "More heads specialise more and do better, up to a point.",
}
"""The claims, in the order in which they are judged and shown."""

ENOUGH_SEEDS = 5
"""Below so many seeds every sentence says "preliminary"."""


@dataclass(frozen=True)
class Wording:
    """How one claim is put into words."""

    toward: str
    """What is so where the statistic is positive."""
    away: str
    """What is so where it is negative."""
    what: str
    """What the number is."""
    unit: str
    """Unit of the statistic as it is stored."""
    shown: str = ""
    """Unit of the number as it is written in a sentence."""
    write: Callable[[float], str] = lambda value: f"{value:+#.3g}"


_SUMMED = "sum over training, each step weighted by its learning rate"

WORDING: dict[str, Wording] = {
    "C0": Wording(
        "the angle between query and key explained more than half of the differences among a patch's scores",
        "the angle between query and key explained less than half of the differences among a patch's scores",
        "share explained at the end of training",
        "share - 0.5",
        " %",
        lambda value: f"{100 * (value + 0.5):.1f}",
    ),
    "C1": Wording(
        "the loss saved more by attending to edge neighbours than to patches in between",
        "the loss saved less by attending to edge neighbours than to patches in between",
        _SUMMED,
        "nats x learning rate",
        " nats of loss",
    ),
    "C2": Wording(
        "the loss saved less by attending to far patches than to patches in between",
        "the loss saved more by attending to far patches than to patches in between",
        _SUMMED,
        "nats x learning rate",
        " nats of loss",
    ),
    "C3a": Wording(
        "position embeddings came to be more alike the nearer their patches are",
        "position embeddings came to be less alike the nearer their patches are",
        "change of the correlation between likeness and nearness",
        "correlation",
        write=lambda value: f"{value:+.2f}",
    ),
    "C3b": Wording(
        "more than half of the map was built by gradient that came through queries and keys",
        "less than half of the map was built by gradient that came through queries and keys",
        "share that came through queries and keys",
        "share - 0.5",
        " %",
        lambda value: f"{100 * (value + 0.5):.1f}",
    ),
    "C4": Wording(
        "the heads of one layer came to look at more different places",
        "the heads of one layer came to look at more similar places",
        "change of the divergence between heads",
        "nats",
        " nats",
    ),
    "C5": Wording(
        "more heads gave a higher test accuracy",
        "more heads gave a lower test accuracy",
        "each doubling of the number of heads",
        "share per doubling",
        " percentage points",
        lambda value: f"{100 * value:+.2f}",
    ),
}


def sentence(decision: Decision, details: dict) -> str:
    """The verdict of one claim for a reader who is new to it."""
    values = decision.case.values
    if decision.verdict == "not judged":
        return _not_judged(decision)
    wording = WORDING[decision.case.claim]
    lead = f"{decision.verdict.capitalize()} for this model on these data{preliminary(decision.comparison)}"
    overall = "over all layers, " if decision.verdict == "mixed" else ""
    numbers = f"{overall}{_number(wording, decision.comparison)}; {_p(decision)}"
    beside = "".join(f"; {part}" for part in (_beside(decision, details), _outlook(decision)) if part)
    if decision.verdict == "mixed":
        found = _by_layer(wording, decision)
    elif decision.verdict == "contradicted":
        found = f"in {(values < 0).sum()} of {len(values)} seeds {wording.away}"
    else:
        found = f"in {(values > 0).sum()} of {len(values)} seeds {wording.toward}"
    return f"{lead}: {found} ({numbers}{beside})."


def preliminary(comparison: Comparison) -> str:
    """A note where few seeds stand behind a sentence.

    The smaller number counts where the control has fewer seeds than the natural arm.
    """
    n = min(test.n for test in (comparison.main, comparison.contrast) if test is not None and test.n)
    return f" (preliminary: {n} seed{'s' * (n > 1)})" if n < ENOUGH_SEEDS else ""


def _not_judged(decision: Decision) -> str:
    comparison = decision.comparison
    if not comparison.main.n:
        return f"Not judged: {decision.reason}."
    number = _number(WORDING[decision.case.claim], comparison)
    return f"Not judged{preliminary(comparison)}: {decision.reason} ({number})."


def _number(wording: Wording, comparison: Comparison) -> str:
    main, contrast = comparison.main, comparison.contrast
    text = f"{wording.what}: {wording.write(main.mean)}{wording.shown}{_interval(wording, main, ', 95 % interval ')}"
    if contrast is not None and contrast.n:
        text += f"; natural minus scrambled images {wording.write(contrast.mean)}{_interval(wording, contrast, ', ')}"
    return text


def _interval(wording: Wording, test: TTest, before: str) -> str:
    return "" if isnan(test.low) else f"{before}{wording.write(test.low)} to {wording.write(test.high)}"


def _p(decision: Decision) -> str:
    p = decision.p_main_adjusted if decision.verdict == "contradicted" else decision.p_adjusted
    return f"{_written(p)} after correction for {decision.num_judged} claim{'s' * (decision.num_judged > 1)}"


def _written(p: float) -> str:
    return "p < .001" if p < 0.001 else "p = 1" if p > 0.9995 else f"p = {p:.3f}".replace("0.", ".", 1)


def _by_layer(wording: Wording, decision: Decision) -> str:
    layers = {way: [layer for layer, (_, found) in decision.layers.items() if found == way] for way in _WAYS}
    toward, away, undecided = (_listed(layers[way]) for way in _WAYS)
    found = f"in {toward} {wording.toward}, but in {away} the opposite"
    return found + (f", and {undecided} could go either way" if undecided else "")


_WAYS = ("supported", "contradicted", None)


def _listed(layers: list[int]) -> str:
    names = [str(layer) for layer in layers]
    if not names:
        return ""
    return f"layer {names[0]}" if len(names) == 1 else f"layers {', '.join(names[:-1])} and {names[-1]}"


def _outlook(decision: Decision) -> str:
    if decision.verdict != "inconclusive":
        return ""
    if why := decision.comparison.stuck:
        return f"{why}, so not even 50 seeds would settle it"
    if decision.seeds_needed == inf:
        return "more than 50 seeds would be needed to settle it"
    return f"about {decision.seeds_needed} seeds would settle it"


def _beside(decision: Decision, details: dict) -> str:
    """The one other number that a reader of this claim must see."""
    match decision.case.claim:
        case "C0":
            start = details["angle_share"]["start"]["statistic"]
            return "" if isnan(start) else f"before training {100 * start:.1f} %"
        case "C3a":
            return f"correlation at the end {details['similarity_falloff']['end']['statistic']:.2f}"
        case "C3b":
            return _routes(details)
        case "C4":
            parts = _pressure(details["head_divergence_pressure"]), _timing(details), _roles(details)
            return "; ".join(part for part in parts if part)
        case "C5":
            return "; ".join(part for part in (_best(details), _curve(details)) if part)
    return ""


CUTS = {
    CAUSAL[0]: "without the gradient through queries and keys",
    CAUSAL[1]: "with the gradient through queries and keys alone",
}
"""The cuts that ask whether queries and keys are needed, and whether they are enough."""

KEPT, LOST = 0.8, 0.2
"""Shares of the natural growth of the falloff from which on a map counts as kept, and up to which as lost."""


def _routes(details: dict) -> str:
    """What values carried, and what became of the map without queries and keys, and with them alone."""
    found = details["shares"]
    parts = [f"values carried {100 * found['v']['statistic']:.0f} %"] if "v" in found else []
    cuts = details["cuts"] or {}
    return "; ".join([*parts, *(_cut(words, cuts[what]) for what, words in CUTS.items() if what in cuts)])


def _cut(words: str, found: dict) -> str:
    kept, falloff = found["kept"], found["falloff"]
    if kept is None or "against" not in falloff:
        return f"{words} nothing can be said"
    formed = "a map formed all the same" if kept >= KEPT else "a weaker map formed" if kept > LOST else "hardly any map"
    return f"{words} {formed}, falloff {falloff['statistic']:.2f} instead of {falloff['against']['mean']:.2f}"


def _pressure(found: dict | None) -> str:
    if found is None:
        return "the heads' own gradients were not compared"
    interval = f", {found['interval'][0]:+.2g} to {found['interval'][1]:+.2g}" if found["interval"] else ""
    return f"change of the difference between the heads' own gradients {found['statistic']:+.2g}{interval}"


def _timing(details: dict) -> str:
    """Whether gradients came apart before attention, said only as far as the paired difference over seeds is sure."""
    lead, seeds = details["gradients_before_attention"], len(details["onset"][ATTENTION])
    if lead["n"] < 2 or lead["p"] is None or not lead["p"] <= ALPHA:
        found = "" if lead["n"] == seeds else f", as a change of both was sure in {lead['n']} of {seeds} seeds"
        return f"which of the two came first cannot be told{found}"
    first = (
        "gradients came apart before attention" if lead["statistic"] > 0 else "attention came apart before gradients"
    )
    low, high = sorted(abs(end) for end in lead["interval"])
    by = f"{abs(lead['statistic']):.0f} steps, {low:.0f} to {high:.0f}"
    return f"{first} ({by}, in {lead['n']} seeds, {_written(lead['p'])} by itself)"


def _roles(details: dict) -> str:
    """Shares of heads that have a role at the end, beside initialisation and the control."""
    found = details["heads_with_a_role"]
    if found is None:
        return ""
    end, start = found["any"]["end"], found["any"]["start"]
    text = f"{100 * end['statistic']:.0f} % of heads have a role at the end, {100 * start['statistic']:.0f} % at first"
    return text + (f", {100 * end['control']['mean']:.0f} % on scrambled images" if "control" in end else "")


def _best(details: dict) -> str:
    best, largest = details["best_count"], max(details["accuracy"])
    text = f"best at {best} head{'s' * (best > 1)}"
    if best == largest:
        return f"{text}, the most tried"
    p = _written(details["best_against_largest"]["p"])
    if details["up_to_a_point"]:
        return f"up to a point: {text}, better than {largest} ({p})"
    return f"{text}, against {largest} heads {p}"


def _curve(details: dict) -> str:
    """Where accuracy falls with more heads, or that each doubling brings less; empty where neither is sure."""
    match fall_or_bend(details):
        case "falls", step:
            gain = WORDING["C5"].write(step["statistic"])
            where = f"from {step['from']} to {step['to']} heads"
            return f"accuracy falls {where} ({gain} percentage points, {_written(step['p_adjusted'])})"
        case "bends", test:
            first, last = (
                f"{WORDING['C5'].write(step['statistic'])} from {step['from']} to {step['to']} heads"
                for step in (details["steps"][0], details["steps"][-1])
            )
            return f"each doubling brings less (percentage points: {first}, {last}; {_written(test['p'])})"
    return ""
