"""Configurations as plain data and TOML; what does not fit is refused with a sentence."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, get_origin

import cattrs
import cattrs.gen

from wherefrom.config.run import TrainConfig


def to_dict(config: TrainConfig) -> dict:
    """The config as plain data, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(data: Mapping) -> TrainConfig:
    """The config written by `to_dict`, or by hand.

    Raises:
        ValueError: for an unknown key, a value of the wrong type or an impossible value; the sentence names it.

    >>> from_dict({"steps": 7}).steps
    7
    >>> from_dict({"model": {"widht": 8}})
    Traceback (most recent call last):
    ValueError: the configuration does not fit: model: unknown setting 'widht', did you mean 'width'?
    """
    try:
        return _converter().structure(data, TrainConfig)
    except (cattrs.BaseValidationError, ValueError) as error:
        found = [reason.rpartition(" @ $") for reason in cattrs.transform_error(error, format_exception=_reason)]
        reasons = (f"{place.removeprefix('.')}: {reason}" if place else reason for reason, _, place in found)
        raise ValueError(f"the configuration does not fit: {'; '.join(reasons)}") from None


def _reason(error: BaseException, _) -> str:
    if not isinstance(error, cattrs.ForbiddenExtraKeysError):
        return str(error)
    unknown = sorted(map(str, error.extra_fields))[0]
    known = [each.name for each in dataclasses.fields(error.cl)]
    near = get_close_matches(unknown, known, n=1)
    return f"unknown setting {unknown!r}, " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")


def _converter() -> cattrs.Converter:
    """One that casts nothing in silence. Words out of a list are left to the classes, which know them."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    kinds = {
        int: (int, "a whole number"),
        float: ((int, float), "a number"),
        str: (str, "text"),
        bool: (bool, "true or false"),
    }

    def as_it_is(value, kind):
        allowed, wanted = kinds.get(kind, kinds[str])
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, allowed):
            raise ValueError(f"expected {wanted}, found {value!r}")
        return float(value) if kind is float else value

    def table_for(kind):
        fill = cattrs.gen.make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)

        def table(value, _):
            if not isinstance(value, Mapping):
                raise ValueError(f"expected a table of settings, found {value!r}")
            return fill(value, kind)

        return table

    for kind in kinds:
        converter.register_structure_hook(kind, as_it_is)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, as_it_is)
    converter.register_structure_hook_factory(dataclasses.is_dataclass, table_for)
    return converter


def from_toml(path: str | Path) -> TrainConfig:
    """The config in a TOML file.

    Raises:
        ValueError: where the file is missing, is not TOML, or does not fit.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"cannot read the configuration {path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the configuration {path}: {error}") from None
    try:
        return from_dict(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
