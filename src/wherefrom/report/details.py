"""Nested data as lines of a name and a text: details of verdicts, settings, versions."""

from __future__ import annotations

from collections.abc import Mapping

from wherefrom.report.words import MISSING, interval, number, p_value


def flat(data, prefix: str = "") -> list[tuple[str, str]]:
    """One line a leaf, its name with dots and its value as it is.

    >>> flat({"a": {"b": 0.003, "c": [1, 2]}, "d": "x"})
    [('a.b', '0.003'), ('a.c', '1, 2'), ('d', 'x')]
    """
    if isinstance(data, Mapping):
        return [pair for key, value in data.items() for pair in flat(value, _joined(prefix, key))]
    if isinstance(data, list) and any(map(_is_nested, data)):
        return flat(dict(enumerate(data)), prefix)
    return [(prefix, ", ".join(map(str, data)) if isinstance(data, list) else str(data))]


def compact(data, prefix: str = "") -> list[tuple[str, str]]:
    """One line a test (a statistic with its interval) and one a group of plain values; what is None is left out.

    >>> compact({"seeds": {"0": 0.5, "1": 0.7}, "end": {"statistic": 0.6, "interval": [0.5, 0.7], "n": 2, "p": 0.01}})
    [('seeds', '0: 0.50, 1: 0.70'), ('end', '0.60 [0.50, 0.70], n 2, p .010')]
    """
    if isinstance(data, list) and any(map(_is_nested, data)):
        return [pair for place, item in enumerate(data) for pair in _item(item, prefix, place)]
    if not isinstance(data, Mapping):
        return [(prefix, _text(data))] if data is not None else []
    if "statistic" in data:
        return [(prefix, _test(data))]
    if prefix and not any(map(_is_nested, data.values())):
        return [(prefix, ", ".join(f"{key}: {_text(value)}" for key, value in data.items()))] if data else []
    return [pair for key, value in data.items() for pair in compact(value, _joined(prefix, key))]


def _item(item, prefix: str, place: int) -> list[tuple[str, str]]:
    """An entry of a list is called by its layer where it has one."""
    if isinstance(item, Mapping) and "layer" in item:
        return compact({key: value for key, value in item.items() if key != "layer"}, f"layer {item['layer']}")
    return compact(item, _joined(prefix, place))


def _test(data: Mapping) -> str:
    """A statistic with its interval, n and p, then whatever else stands with it."""
    parts = [f"{number(data['statistic'])} {interval(data.get('interval'))}".strip()]
    parts += [f"n {data['n']}"] if data.get("n") is not None else []
    parts += [f"p {p_value(data['p'])}"] if data.get("p") is not None else []
    for key, value in data.items():
        if key in ("statistic", "interval", "n", "p") or value is None:
            continue
        nested = isinstance(value, Mapping) and "statistic" in value
        parts.append(f"{key}: {_test(value) if nested else _text(value)}")
    return ", ".join(parts)


def _is_nested(value) -> bool:
    return isinstance(value, (Mapping, list))


def _joined(prefix: str, key) -> str:
    return f"{prefix}.{key}" if prefix else str(key)


def _text(value) -> str:
    if value is None:
        return MISSING
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return number(value) if isinstance(value, float) else str(value)
