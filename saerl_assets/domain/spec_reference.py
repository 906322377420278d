"""The reference of the spec as Markdown, from the fields' own docstrings, types, limits and defaults.

Belongs here: turning `VersionSpec` into the text of `docs/spec.md`. Does not belong here: what the fields mean, which
their docstrings say (spec).

    python -m saerl_assets.domain.spec_reference > docs/spec.md
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from saerl_assets.domain.spec import VersionSpec

WIDTH = 120
INTRODUCTION = """\
# The spec, field by field

<!-- Generated from saerl_assets/domain/spec.py by `make docs`; a test fails where it is not current. -->

A version is one TOML file. Only `key` and `data.source` have no default; `saerl register --from FILE` writes a first
spec for your data. The spec decides the rows, so a version never changes: another setting is another version.

```toml
key = "mine-v1"
[data]
source = "path:prompts.jsonl"
```

An unknown key, a value out of range or a contradiction is refused when the version is registered, with the line, the
key and what to do. Where something runs (device, token budget, home) is no part of the spec; see
[operating](operating.md). What the words mean is in [concepts](concepts.md).
"""

_KINDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class _Table:
    """A table of the TOML file: how its header is written, its model, and what the field that holds it says of it."""

    header: str
    model: type[BaseModel]
    said: str = ""


def spec_reference() -> str:
    """The page: one heading for each table, one entry for each of its keys."""
    schema = VersionSpec.model_json_schema()
    return "\n".join([INTRODUCTION, *(line for table in _tables() for line in _section(table, schema))])


def _tables() -> Iterator[_Table]:
    yield _Table("", VersionSpec)
    for name, field in VersionSpec.model_fields.items():
        model = _model_in(field.annotation)
        if model is not None:
            header = f"{name}.<name>" if name == "labels" else name
            yield _Table(f"[{header}]", model)
            yield from _tables_in(model, header)


def _tables_in(model: type[BaseModel], path: str) -> Iterator[_Table]:
    """Tables within a table; one of a list of them has two brackets."""
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is not None:
            is_list = str(field.annotation).startswith("tuple")
            header = f"[[{path}.{name}]]" if is_list else f"[{path}.{name}]"
            yield _Table(header, inner, field.description or "")


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any type
    """The section that a field's type is, or holds; none for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for each in get_args(annotation) if (model := _model_in(each))), None)


def _section(table: _Table, schema: Schema) -> Iterator[str]:
    name = table.model.__name__
    own = schema if table.model is VersionSpec else schema["$defs"][name]
    yield f"## `{table.header}`\n" if table.header else "## At the top of the file\n"
    yield from _paragraphs(str(own["description"]))
    if table.said:
        yield from _paragraphs(table.said)
    loose = _single_or_list(table.model)
    for key, field in own["properties"].items():
        if _model_in(table.model.model_fields[key].annotation) is None:
            yield from _entry(key, field, is_loose=key in loose, is_required=key in own.get("required", ()))


def _single_or_list(model: type[BaseModel]) -> tuple[str, ...]:
    """Fields in which one value may stand for a list of one."""
    validator = model.__pydantic_decorators__.field_validators.get("_one_or_many")
    return validator.info.fields if validator else ()


def _entry(key: str, field: Schema, *, is_loose: bool, is_required: bool) -> Iterator[str]:
    default = "required" if is_required else _default(field.get("default"))
    takes = _takes(field)
    if is_loose:
        takes, default = f"{_takes(field['items'])}; or a list of such", _default(field["default"][0])
    yield f"- **`{key}`**: {takes}; {default}.  "
    yield textwrap.fill(
        " ".join(str(field["description"]).split()),
        WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    yield ""


def _takes(field: Schema) -> str:
    """The values that a field takes, in words."""
    if "anyOf" in field:
        return " or ".join(_takes(each) for each in field["anyOf"] if each.get("type") != "null")
    if "enum" in field or "const" in field:
        values = [f"`{json.dumps(value)}`" for value in field.get("enum", [field.get("const")])]
        return f"{', '.join(values[:-1])} or {values[-1]}" if len(values) > 1 else values[0]
    if field["type"] == "array":
        return f"list, {'not empty, ' if field.get('minItems') else ''}each entry {_takes(field['items'])}"
    return f"{_KINDS[field['type']]}{_limits(field)}"


def _limits(field: Schema) -> str:
    if "minimum" in field and "maximum" in field:
        return f" from {field['minimum']:g} to {field['maximum']:g}"
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{said} {field[limit]:g}" for limit, said in words.items() if limit in field]
    return f", {' and '.join(limits)}" if limits else ""


def _default(default: object) -> str:
    return "not set by default" if default is None else f"by default `{json.dumps(default, ensure_ascii=False)}`"


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of a docstring, filled, each with an empty line after it."""
    for paragraph in text.split("\n\n"):
        yield textwrap.fill(" ".join(paragraph.split()), WIDTH, break_long_words=False, break_on_hyphens=False)
        yield ""


if __name__ == "__main__":
    sys.stdout.write(spec_reference())
