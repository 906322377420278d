"""Rows of a source and their fields: looking one up by its path, naming them, taking some out, writing JSON.

Belongs here: rows as nested values, whatever they mean. Does not belong here: which field is the prompt
(prompts) or a label (labels), and where rows come from (storage).
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import Final

from saerl_assets.domain.errors import SaerlError

MISSING: Final = object()
"""What `Field.of` answers where a row has no such field. A field that holds null is there."""

MAX_RAW_CHARACTERS = 2_000
"""How much of a row is kept beside the reason for which it was not taken."""

_MAX_NAMES_SHOWN = 30
_MAX_NAME_PARTS = 6
_MAX_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class SourceRow:
    """One row of a source, as it was read."""

    position: int
    """Row in the source, counted from 0; blank lines do not count."""
    line: int
    """Line in a text file, row in another, counted from 1."""
    value: dict[str, object] | None
    """The row's fields; none where there is a problem."""
    problem: tuple[str, str] | None = None
    """Code and words for a row that could not be read."""
    raw: str = ""
    """The row's text, at most `MAX_RAW_CHARACTERS`; empty where `value` says it all."""


class RowError(Exception):
    """A row that cannot be used. It never leaves the domain: it becomes a row of `rejected_rows`."""

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{reason} [{code}]")


class Field:
    """A column, or a dotted path into nested values such as `extra_info.difficulty` and `prompt.0.content`.

    A column whose own name holds a dot is found by that name first.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.parts = path.split(".")

    def of(self, row: Mapping[str, object]) -> object:
        """The field's value in a row, or `MISSING`."""
        if self.path in row:
            return row[self.path]
        if len(self.parts) == 1:
            return MISSING
        value: object = row
        for part in self.parts:
            value = _step(value, part)
            if value is MISSING:
                return MISSING
        return value


def without(row: Mapping[str, object], fields: Iterable[Field]) -> dict[str, object]:
    """A copy of a row without some of its fields.

    An object from which everything was taken goes too. An element taken from a list leaves null, so that the
    paths of the other elements stay true.
    """
    rest = dict(row)
    for field in fields:
        if field.path in rest:
            del rest[field.path]
        elif len(field.parts) > 1 and field.of(rest) is not MISSING:
            rest = _without_path(rest, field.parts)
    return rest


def field_names(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Dotted names of the fields that hold plain values in any of the rows, in the order of their appearance.

    Of a list only the first element is followed, and only where it is an object: `prompt.0.content`. The list
    is named too.
    """
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(_names(row, "")))
    return list(names)


def unknown_field(field: str, key: str, known: Sequence[str], where: str) -> SaerlError:
    """The error for a field of the spec that no row has.

    Args:
        field: What the spec names.
        key: The spec's key that names it, such as `data.prompt`.
        known: Fields that there are, as from `field_names`.
        where: The source.
    """
    by_leaf = [name for name in known if name.rsplit(".", 1)[-1].lower() == field.rsplit(".", 1)[-1].lower()]
    close = by_leaf[:1] or difflib.get_close_matches(field, known, n=1)
    shown = ", ".join(known[:_MAX_NAMES_SHOWN]) + (", ..." if len(known) > _MAX_NAMES_SHOWN else "")
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return SaerlError(
        "unknown_field",
        f"No row has the field {field!r}, which {key} names.",
        where=where,
        remedy=f"{guess}Fields that there are: {shown or 'none'}.",
    )


def to_json(value: object) -> str:
    """JSON text of any value that a source can hold, on one line.

    What JSON does not know becomes text (dates in ISO 8601) and NaN and infinities become null. The text can
    always be
    encoded: half a surrogate pair stays an escape.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:  # NaN and infinities, or a number or a nesting beyond what JSON writers take
        text = json.dumps(_finite(value), ensure_ascii=False, default=_plain)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(_finite(value), ensure_ascii=True, default=_plain)
    return text


def shown(value: object) -> str:
    """A value for a message: on one line, text in quotes but not escaped, cut at 80 characters."""
    text = " ".join((f"'{value}'" if isinstance(value, str) else to_json(value)).split())
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else text[: _MAX_SHOWN_CHARACTERS - 3] + "..."


def raw_of(row: SourceRow) -> str:
    """A row's text for `rejected_rows`, cut at `MAX_RAW_CHARACTERS`."""
    raw = row.raw or to_json(row.value)
    return raw[:MAX_RAW_CHARACTERS].encode(errors="backslashreplace").decode()[:MAX_RAW_CHARACTERS]


def _step(value: object, part: str) -> object:
    if isinstance(value, dict):  # not Mapping: its check costs more than all the rest
        return value.get(part, MISSING)
    if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
        return value[int(part)]
    return MISSING


def _without_path(container: dict[str, object], parts: Sequence[str]) -> dict[str, object]:
    """`container` without what is at `parts`, which is there."""
    rest = _drop(container, parts)
    return rest if isinstance(rest, dict) else {}


def _drop(value: object, parts: Sequence[str]) -> object:
    """A copy of `value` without what is at `parts`; `MISSING` where nothing is left of it."""
    if not parts:
        return MISSING
    if isinstance(value, list):
        place = int(parts[0])
        left = _drop(value[place], parts[1:])
        return [*value[:place], None if left is MISSING else left, *value[place + 1 :]]
    if isinstance(value, dict):
        left = _drop(value[parts[0]], parts[1:])
        rest = {key: left if key == parts[0] else item for key, item in value.items()}
        if left is MISSING:
            del rest[parts[0]]
        return rest or MISSING
    return value


def _names(value: object, prefix: str) -> Iterator[str]:
    if isinstance(value, Mapping) and prefix.count(".") < _MAX_NAME_PARTS:
        for key, item in value.items():
            yield from _names(item, f"{prefix}.{key}" if prefix else str(key))
        return
    yield prefix
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        yield from _names(value[0], f"{prefix}.0")


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
