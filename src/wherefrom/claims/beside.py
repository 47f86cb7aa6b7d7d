"""The one or two other numbers that a reader of a verdict must see, in words."""

from __future__ import annotations

from wherefrom.claims.head_counts import fall_or_bend
from wherefrom.claims.heads import ATTENTION
from wherefrom.claims.rule import ALPHA
from wherefrom.config import CAUSAL
from wherefrom.words import fraction, p_equals, percent, signed


def beside(claim: str, details: dict) -> list[str]:
    """Parts of a sentence; those that are empty are left out by the reader."""
    match claim:
        case "C1" | "C2":
            return [_account(details["account"])]
        case "C3a":
            return [_neighbours(details["neighbour_recovery"])]
        case "C3b":
            return _routes(details)
        case "C3c":
            return [_accuracy(details["accuracy"])]
        case "C4":
            return [_roles(details), _pressure(details["head_divergence_pressure"]), _timing(details)]
        case "C5":
            return [_best(details), _curve(details)]
    return []


def _account(found: dict | None) -> str:
    """What the gradient of edge, far and other pairs added to the growth of log attention."""
    if found is None:
        return ""
    added = {of: test["statistic"] for of, test in found["added"].items()}
    parts = [f"{_thousandths(added[of])} {name}" for of, name in ADDED.items() if of in added]
    growth = found["growth"]
    whole = "" if growth is None else f" of {_thousandths(growth['statistic'])}"
    lead = f"in the account of the scores the growth{whole} thousandths of log attention is"
    return f"{lead} {', '.join(parts[:-1])} and {parts[-1]}"


def _thousandths(value: float) -> str:
    return signed(1000 * value, 1)


ADDED = {
    "edge": "by the gradient of edge pairs on w_q and w_k",
    "far": "by that of far pairs",
    "other": "by that of all other pairs",
    "drift": "by changes of what w_q and w_k are given",
}
"""What the account of the scores credits, in words; weight decay is left to the details."""


def _neighbours(found: dict | None) -> str:
    if found is None:
        return ""
    share = percent(found["end"]["statistic"])
    text = f"at the end the embedding most similar to a patch's own is a neighbour's in {share}"
    chance = found.get("chance")
    return text + ("" if chance is None else f" (chance {percent(chance)})")


def _accuracy(found: dict | None) -> str:
    if found is None:
        return ""
    return f"accuracy {fraction(found['natural'])} → {fraction(found['shuffled'])}"


# ---- C3b

CUTS = {
    CAUSAL[0]: "without the gradient through queries and keys",
    CAUSAL[1]: "with the gradient through queries and keys alone",
}
"""The cuts that ask whether queries and keys are needed, and whether they are enough."""

KEPT, LOST = 0.8, 0.2
"""Shares of the natural growth of the map from which on it counts as kept, and up to which as lost."""


def _routes(details: dict) -> list[str]:
    """Shares of the routes, and what became of the map without queries and keys, and with them alone."""
    names = {"q + k": "queries and keys", "v": "values", "mlp": "MLPs", "residual": "the skips alone"}
    shares = details.get("shares") or {}
    parts = [f"{name} {percent(shares[kind])}" for kind, name in names.items() if shares.get(kind) is not None]
    cuts = details["cuts"] or {}
    return [
        f"shares of all routes: {', '.join(parts)}" if parts else "",
        *(_cut(words, cuts[what]) for what, words in CUTS.items() if what in cuts),
    ]


def _cut(words: str, found: dict) -> str:
    kept, end = found["kept"], found["near_minus_far"]
    if kept is None:
        return f"{words} nothing can be said"
    formed = "a map formed all the same" if kept >= KEPT else "a weaker map formed" if kept > LOST else "hardly any map"
    return (
        f"{words} {formed}, near minus far {fraction(end['statistic'])} instead of {fraction(end['against']['mean'])}"
    )


# ---- C4


def _roles(details: dict) -> str:
    """Shares of heads that have a role of position at the end, beside initialisation and the control."""
    found = details["heads_with_a_role"]
    if found is None:
        return ""
    end, start = found["position"]["end"], found["position"]["start"]
    share, first = percent(end["statistic"]), percent(start["statistic"])
    text = f"{share} of heads have a role of position at the end, {first} at first"
    return text + (f", {percent(end['control']['mean'])} on scrambled images" if "control" in end else "")


def _pressure(found: dict | None) -> str:
    if found is None:
        return "the heads' own gradients were not compared"
    interval = f" ({signed(found['interval'][0])} to {signed(found['interval'][1])})" if found["interval"] else ""
    return f"the difference between the heads' own gradients changed by {signed(found['statistic'])}{interval}"


def _timing(details: dict) -> str:
    """Whether gradients came apart before attention, said only as far as the paired difference over seeds is sure."""
    lead, seeds = details["gradients_before_attention"], len(details["onset"][ATTENTION])
    if not seeds:
        return ""
    if lead["n"] < 2 or lead["p"] is None or not lead["p"] <= ALPHA:
        found = "" if lead["n"] == seeds else f", as a change of both was sure in {lead['n']} of {seeds} seeds"
        return f"which of the two came first cannot be told{found}"
    first = (
        "gradients came apart before attention" if lead["statistic"] > 0 else "attention came apart before gradients"
    )
    low, high = sorted(abs(end) for end in lead["interval"])
    by = f"{abs(lead['statistic']):.0f} steps, {low:.0f} to {high:.0f}"
    return f"{first} ({by}, in {lead['n']} seeds, {p_equals(lead['p'])} by itself)"


# ---- C5


def _best(details: dict) -> str:
    best, largest = details["best_count"], max(details["accuracy"])
    text = f"best at {best} head{'s' * (best > 1)}"
    if best == largest:
        return f"{text}, the most tried"
    p = p_equals(details["best_against_largest"]["p"])
    if details["up_to_a_point"]:
        return f"up to a point: {text}, better than {largest} ({p})"
    return f"{text}, against {largest} heads {p}"


def _curve(details: dict) -> str:
    """Where accuracy falls with more heads, or that each doubling brings less; empty where neither is sure."""
    match fall_or_bend(details):
        case "falls", step:
            gain = signed(100 * step["statistic"])
            where = f"from {step['from']} to {step['to']} heads"
            return f"accuracy falls {where} ({gain} percentage points, {p_equals(step['p_adjusted'])})"
        case "bends", test:
            first, last = (
                f"{signed(100 * step['statistic'])} from {step['from']} to {step['to']} heads"
                for step in (details["steps"][0], details["steps"][-1])
            )
            return f"each doubling brings less (percentage points: {first}, {last}; {p_equals(test['p'])})"
    return ""
