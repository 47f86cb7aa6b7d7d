"""Sections on settings that were varied by themselves: one a setting, with its sentence, figure and numbers."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.figures.settings import OUTCOMES, RECORDED, final_values
from wherefrom.report.material import Material
from wherefrom.report.numbers import Line, number_table
from wherefrom.report.prose import Prose
from wherefrom.report.section import Section, picture
from wherefrom.report.words import count, interval, listed, number, p_value
from wherefrom.statistics import paired_t

ENOUGH_SEEDS = 5
"""Below so many seeds a sentence is called preliminary."""

HEADS = "num_heads"
NAMES = {HEADS: "the number of heads"}


@dataclass(frozen=True)
class SettingSection(Section):
    """The section of one setting; its words name it."""

    setting: str = ""

    @property
    def prose(self) -> Prose:
        name = NAMES.get(self.setting, self.setting)
        return Prose(
            f"What {name} changes",
            f"""Models of the natural arm that differ in {name} alone, at their last step. A thin line, or a small dot
            where the setting is a word, is one seed: the same seed draws the same images at every value. Large dots are
            means over seeds, bars 95 % intervals. The setting is as the configuration calls it.""",
            """If the setting did not matter, the thin lines would be flat, or cross at random, within the bars.""",
        )


def head_counts(material: Material) -> Section:
    """The section of the head sweep; a sentence where there is none."""
    if HEADS in material.study.varied():
        return section(material, HEADS)
    missing = f"There is no sweep over head counts to show: all runs have {count(material.num_heads, 'head')}."
    return SettingSection(f"setting-{HEADS}", missing=material.nothing_finished or missing, setting=HEADS)


def section(material: Material, name: str) -> Section:
    """Figure, sentence and numbers of one setting."""
    anchor, table = f"setting-{name}", material.study.series(name, RECORDED)
    values = final_values(table) if len(table) else pd.DataFrame(columns=["setting_value"])
    levels = list(dict.fromkeys(values["setting_value"]))
    if len(levels) < 2:
        missing = f"There is nothing to compare yet: finished runs have {count(len(levels), 'value')} of {name}."
        return SettingSection(anchor, missing=material.nothing_finished or missing, setting=name)
    figure = Figure()
    figures.setting_sweep(table, figure)
    drawn = listed(OUTCOMES[measure].title for measure in OUTCOMES if (values["measure"] == measure).any())
    own = table.loc[table["run"].isin(_arm_runs(material)), "setting_value"]
    said = _sentence(values, name, own.iloc[0] if len(own) else None)
    caption = f"{said} Shown: {drawn}.".strip()
    pictures = (picture(figure, anchor, caption, f"Charts over {name}, one each: {drawn}."),)
    return SettingSection(anchor, pictures, _numbers(values, name), setting=name)


def _arm_runs(material: Material) -> list[str]:
    return [key.name for key in material.finished if key.arm == "natural" and material.is_of_an_arm(key)]


def _numbers(values: pd.DataFrame, name: str):
    levels = _ordered(values["setting_value"])
    lines = []
    for measure, outcome in OUTCOMES.items():
        rows = values[values["measure"] == measure]
        groups = {f"{name} {_text(level)}": rows[rows["setting_value"] == level] for level in levels}
        lines += [Line(outcome.title.capitalize(), outcome.unit, groups)] if len(rows) else []
    return number_table(lines, "Last step, mean over layers and heads.")


def _sentence(values: pd.DataFrame, name: str, own) -> str:
    """Where test accuracy was highest, held by seed against the arms' value, or the arms' against the next best."""
    rows = values[values["measure"] == "accuracy"]
    wide = rows.pivot_table(index="seed", columns="setting_value", values="value", sort=False).dropna()
    if own not in wide.columns or wide.shape[1] < 2 or wide.empty:
        return ""
    ranked = wide.mean().sort_values(ascending=False)
    best, other = ranked.index[0], own if ranked.index[0] != own else ranked.index[1]
    test = paired_t(wide[best], wide[other])
    gain = f"{number(100 * test.mean)} percentage points {interval([100 * test.low, 100 * test.high])}".strip()
    against = f"the arms’ {_text(own)}" if best != own else f"{_text(other)}, the next best"
    least = " (preliminary)" if test.n < ENOUGH_SEEDS else ""
    place = f"{name} {_text(best)}" + (", that of the arms" if best == own else "")
    seeds = count(test.n, "seed")
    return (
        f"Test accuracy was highest at {place}: {gain} above {against} (paired, {seeds}{least}, p {p_value(test.p)})."
    )


def _ordered(levels: pd.Series) -> list:
    found = list(dict.fromkeys(levels))
    return found if any(isinstance(level, str) for level in found) else sorted(found)


def _text(level) -> str:
    return level if isinstance(level, str) else f"{level:g}"
