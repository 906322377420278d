"""A spec as the TOML file that it could have been read from, with every default written out.

Belongs here: writing what `parse_spec` reads. Does not belong here: the spec (spec), a commented first draft
(spec_draft).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saerl_assets.domain.spec import VersionSpec

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def spec_toml(spec: VersionSpec) -> str:
    """The spec as TOML: read again, it is the same spec with the same digest."""
    return "\n".join(_lines(spec.model_dump(mode="json"), ())) + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """A table's own values, then its tables; what is not set is left out, since TOML has no word for it."""
    values = {name: value for name, value in table.items() if not isinstance(value, dict) and value is not None}
    tables = {name: value for name, value in table.items() if isinstance(value, dict)}
    if path and (values or not tables):
        yield f"\n[{'.'.join(_key(part) for part in path)}]"
    for name, value in values.items():
        yield f"{_key(name)} = {_value(value)}"
    for name, value in tables.items():
        yield from _lines(value, (*path, name))


def _key(name: str) -> str:
    return name if BARE_KEY.fullmatch(name) else _value(name)


def _value(value: object) -> str:
    """JSON's texts, numbers, truth values and lists are TOML's, but for the character 127 in a text."""
    if isinstance(value, list):
        return f"[{', '.join(_value(each) for each in value)}]"
    if isinstance(value, dict):
        pairs = (f"{_key(name)} = {_value(each)}" for name, each in value.items() if each is not None)
        return f"{{{', '.join(pairs)}}}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
