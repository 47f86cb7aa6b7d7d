"""Which settings a study varies one at a time, read from words as they are typed: `patch_size 2 4 8`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

Vary = Mapping[str, Sequence] | Sequence[Sequence]
"""{"patch_size": (2, 4)}, or rows that begin with the setting, (("patch_size", 2, 4),); values may be text."""

_WANTED = {int: "a whole number", float: "a number"}


def read_series(vary: Vary, kinds: Mapping[str, Any]) -> dict[str, tuple]:
    """The values of each setting, of its own type and each once, in the order given.

    Args:
        vary: settings and their values; a setting that is named twice gets both lists.
        kinds: type of each setting that may be varied.

    Raises:
        ValueError: for an unknown setting, one without values, or a value of another type.

    >>> read_series([("depth", "3", "1"), ("pos-embed", "rope")], {"depth": int, "pos_embed": Literal["rope"]})
    {'depth': (3, 1), 'pos_embed': ('rope',)}
    """
    rows = [(name, *values) for name, values in vary.items()] if isinstance(vary, Mapping) else vary
    series: dict[str, tuple] = {}
    for row in rows:
        name, values = _setting(row, kinds), row[1:]
        read = (_value(name, kinds[name], str(value)) for value in values)
        series[name] = tuple(dict.fromkeys((*series.get(name, ()), *read)))
    return series


def value_of(config, name: str):
    """A setting of a training configuration, or of its model."""
    return getattr(config.model if hasattr(config.model, name) else config, name)


def with_value(config, name: str, value):
    """The training configuration with one setting, or one of its model, changed."""
    if hasattr(config.model, name):
        return replace(config, model=replace(config.model, **{name: value}))
    return replace(config, **{name: value})


def _setting(row: Sequence, kinds: Mapping[str, Any]) -> str:
    name = str(row[0]).removeprefix("model.").replace("-", "_") if row else ""
    if row and name not in kinds:
        raise ValueError(f"{row[0]!r} is no setting that can be varied; {_near(name, kinds)}")
    if len(row) < 2:
        found = f"no value of {name}" if row else "nothing"
        raise ValueError(f"vary needs a setting and its values, as in --vary patch_size 2 4 8; found {found}")
    return name


def _value(name: str, kind: Any, text: str):
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError(f"unknown {name} {text!r}; {_near(text, get_args(kind))}")
        return text
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name} takes {_WANTED.get(kind, kind.__name__)}; found {text!r}") from None


def _near(word: str, known) -> str:
    near = get_close_matches(word, known, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(known)}"
