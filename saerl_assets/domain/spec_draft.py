"""A first spec for an unknown source, as commented TOML that says what was guessed.

Belongs here: the TOML. Does not belong here: the guess (column_guesses), the spec itself (spec).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from saerl_assets.domain.affixes import Affixes
from saerl_assets.domain.column_guesses import Guess, guess_columns
from saerl_assets.domain.columns import Column, inspect_columns
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import SourceRow, shown

N_SAMPLED_ROWS = 1_000
_MAX_DRAFTED_CHARACTERS = 80

_SIDES = ("chosen", "rejected")
_FINAL_ANSWER_MARK = "\n#### "


def draft_spec(rows: Iterable[SourceRow], *, source: str, key: str) -> str:
    """A commented TOML spec for a source, from a look at its first rows.

    Args:
        rows: The source's rows, of which the first `N_SAMPLED_ROWS` are looked at.
        source: The source as the spec is to name it.
        key: Key of the version, see `draft_key`.

    Returns:
        TOML that `parse_spec` accepts.

    Raises:
        SaerlError: `source_empty` where no row can be read, `no_prompt_column` where no column can be a
            prompt.
    """
    values = [row.value for row in islice(rows, N_SAMPLED_ROWS) if row.value is not None]
    if not values:
        remedy = "Name a source with rows."
        raise SaerlError("source_empty", "No row of the source can be read.", where=source, remedy=remedy)
    columns = inspect_columns(values)
    return _render(guess_columns(columns, values, source), columns, len(values), source, key)


def draft_key(source: str) -> str:
    """A version key made of a source's name: `path:data/My Rows.jsonl` becomes `my-rows-v1`."""
    name = re.split(r"[@#]", source.partition(":")[2] or source)[0].rstrip("/").rsplit("/", 1)[-1]
    words = re.findall(r"[a-z0-9]+", re.sub(r"\.[a-z]+$", "", name.lower()))
    return f"{'-'.join(words)[:_MAX_DRAFTED_CHARACTERS].strip('-') or 'data'}-v1"


def _render(guess: Guess, columns: Sequence[Column], n_rows: int, source: str, key: str) -> str:
    by_path = {column.path: column for column in columns}
    sections = [
        [
            f"# Drafted from the first {n_rows:,} rows. What each column means is a guess: read it first.",
            f"key = {_toml(key)}",
            'description = ""',
        ],
        ["[data]", f"source = {_toml(source)}", *_data_lines(guess, by_path), *_affix_lines(guess.affixes)],
        *_label_sections(guess, by_path),
        ["[split]", _split_line(guess, by_path)],
        [
            "[reader]",
            "layers = [15]  # block 15 of the default model; model, dtype and template have defaults",
        ],
        ["[batches]", "batch_size = 32  # prompts in one optimizer step of your trainer"],
        *([["[exports]", 'trainers = ["trl_dpo"]  # the pairs, for DPO']] if guess.pair else []),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _data_lines(guess: Guess, by_path: Mapping[str, Column]) -> list[str]:
    lines = [_field_line("prompt", guess.prompt, by_path)]
    if guess.pair:
        if guess.prompt == guess.pair[0]:
            lines[0] = f"prompt = {_toml(guess.prompt)}  # what chosen and rejected both begin with"
        lines += [_field_line(side, path, by_path) for side, path in zip(_SIDES, guess.pair, strict=True)]
        lines.append("# Rows with the same prompt become one prompt with several pairs.")
    if guess.answer:
        lines.append(_field_line("answer", guess.answer, by_path))
        if _FINAL_ANSWER_MARK in str(by_path[guess.answer].example):
            lines.append("# The answers hold their working, and the final one after '####'. Exports keep it all.")
    elif not guess.pair:
        lines.append('# answer = "..."  # no column looks like a reference answer; verl needs one')
    if guess.topic:
        lines.append(_field_line("topic", guess.topic, by_path))
    if guess.response:
        lines.append(f"# {_field_line('response', guess.response, by_path)}")
        lines.append("# With it, each pair of prompt and response is a prompt of its own; see reader.scope.")
    return lines


def _field_line(key: str, path: str, by_path: Mapping[str, Column]) -> str:
    column = by_path.get(path) or by_path[path.rsplit(".", 2)[0]]  # an element that not all lists have
    return f"{key} = {_toml(path)}  {_comment(f'such as {shown(column.example)}')}"


def _affix_lines(affixes: Affixes) -> list[str]:
    lines = []
    if affixes.prefix:
        lines += ["# All prompts seen start with this. It is left out for reading; exports keep it."]
        lines += [f"strip_prefix = {_toml(affixes.prefix)}"]
    if affixes.suffix:
        lines += ["# All prompts seen end in this. It is left out for reading; exports keep it."]
        lines += [f"strip_suffix = {_toml(affixes.suffix)}"]
    return lines


def _label_sections(guess: Guess, by_path: Mapping[str, Column]) -> list[list[str]]:
    sections = []
    for label, path in guess.labels.items():
        column = by_path[path]
        meaning = "larger must mean harder" if label == "difficulty" else "1 must mean correct, 0 wrong"
        seen = f"{column.smallest:g} to {column.largest:g} in the rows seen; {meaning}"
        sections.append([f"[labels.{label}]", f"column = {_toml(path)}  # {seen}"])
    others = [
        column.path
        for column in by_path.values()
        if column.kind in {"number", "truth"} and column.path not in {*guess.labels.values(), guess.answer}
    ]
    if others:
        sections.append([_comment(f"More columns with numbers, which labels could be: {', '.join(others)}")])
    if not sections:
        sections.append(
            [
                "# No column with numbers. Without labels, difficulty is the features' summed activation and",
                "# nothing is filtered. A file can hold them: [labels.difficulty], source, prompt, column.",
            ]
        )
    return sections


def _split_line(guess: Guess, by_path: Mapping[str, Column]) -> str:
    if guess.split is None:
        return "evaluation_fraction = 0.0  # share of the prompts set apart, which never enters a manifest"
    return _field_line("column", guess.split, by_path)


def _toml(text: str) -> str:
    """A basic TOML string: JSON's, but for DEL."""
    return json.dumps(text.encode(errors="replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    """A TOML comment, which may hold no control character."""
    return "# " + "".join(character if character.isprintable() else " " for character in text)
