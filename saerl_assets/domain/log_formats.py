"""Rows of a training's log: whose format they have, and which prompt they name by its id.

Belongs here: what all that read logs must agree on. Does not belong here: reading files, finding a prompt by its text
(prompt_texts), what a row measured (training_feedback).

A row is known by its fields:

- `saerl_log`: `manifest_id`, `step` and `prompt_id`, as this package's own callbacks write it.
- `trl`: `step`, `prompt`, `completion`, a column for each reward function and `advantage`, as `GRPOTrainer.log`
  writes `completions_*.parquet`.
- `verl`: `input`, `output`, `score` and `step`, as `RayPPOTrainer._dump_generations` writes `<step>.jsonl`. The input
  is the prompt as the chat template renders it.
- `plain`: any other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

LogFormat: TypeAlias = Literal["saerl_log", "trl", "verl", "plain"]

FIRST_STEP: dict[LogFormat, int] = {"saerl_log": 0, "trl": 1, "verl": 1}
"""The number that a log gives the first batch; that of a plain one is not known."""

ID_FIELDS = ("prompt_id", "saerl_prompt_id")
ID_PLACES = ("extra_info", "label")
"""Objects of a row in which trainers hand on what an export gave them."""

_FIELDS: dict[LogFormat, frozenset[str]] = {
    "verl": frozenset({"input", "output", "score"}),
    "trl": frozenset({"step", "completion", "advantage"}),
    "saerl_log": frozenset({"manifest_id", "prompt_id", "step"}),
}


def log_format(fields: Collection[str]) -> LogFormat:
    """Whose log has rows of these fields."""
    present = frozenset(fields)
    return next((name for name, needed in _FIELDS.items() if needed <= present), "plain")


def named_prompt(row: Mapping[str, object]) -> str | None:
    """The prompt id that a row names, itself or in what a trainer handed on; none where it names none."""
    for part in (row, *(row.get(place) for place in ID_PLACES)):
        if isinstance(part, Mapping):
            named = next((part[name] for name in ID_FIELDS if isinstance(part.get(name), str) and part[name]), None)
            if named is not None:
                return str(named)
    return None
