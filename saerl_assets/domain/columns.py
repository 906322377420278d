"""The columns of an unknown source: what kinds of values each holds, with an example.

Belongs here: counting over a sample of rows. Does not belong here: guessing what a column means (spec_draft).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from saerl_assets.domain.fields import MISSING, Field, field_names, to_json
from saerl_assets.domain.labels import label_value


@dataclass(frozen=True)
class Column:
    """One field over a sample of rows, named by its dotted path."""

    path: str
    kind: str
    """`text`, `number`, `truth`, `messages`, `list`, `mixed` or `empty`: what its values are, nulls aside."""
    n_values: int
    """Rows in which it is there and not null."""
    n_distinct: int
    mean_characters: float
    """Of its values as text."""
    smallest: float | None
    """For numbers and truth values; none for others, and where no value is one that a label can have."""
    largest: float | None
    example: object
    """The first value."""

    @property
    def name(self) -> str:
        """The last part of the path, in lower case."""
        return self.path.rsplit(".", 1)[-1].lower()


def inspect_columns(rows: Sequence[Mapping[str, object]]) -> list[Column]:
    """Every field that holds plain values in the rows, in the order of their appearance."""
    return [_column(path, rows) for path in field_names(rows)]


def is_messages(value: object) -> bool:
    """Whether a value is a list of chat messages."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in value)
    )


def _column(path: str, rows: Iterable[Mapping[str, object]]) -> Column:
    field = Field(path)
    found = [field.of(row) for row in rows]
    values = [value for value in found if value is not MISSING and value is not None]
    texts = [value if isinstance(value, str) else to_json(value) for value in values]
    kinds = Counter(map(_kind, values))
    kind = next(iter(kinds)) if len(kinds) == 1 else "mixed" if kinds else "empty"
    numeric = values if kind in {"number", "truth"} else []
    numbers = [number for number in map(label_value, numeric) if number is not None]
    return Column(
        path=path,
        kind=kind,
        n_values=len(values),
        n_distinct=len(set(texts)),
        mean_characters=sum(map(len, texts)) / max(len(texts), 1),
        smallest=min(numbers, default=None),
        largest=max(numbers, default=None),
        example=values[0] if values else None,
    )


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "messages" if is_messages(value) else "list"
