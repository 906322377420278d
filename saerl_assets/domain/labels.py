"""Labels: numbers observed about some of the prompts, and the one value that they fold into.

Belongs here: reading a value, naming an observation, matching a label file's rows to prompts, folding. Does
not belong
here: what a label is used for (difficulty, quality), and taking prompts up (prompts).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import (
    MISSING,
    Field,
    RowError,
    SourceRow,
    field_names,
    shown,
    unknown_field,
)
from saerl_assets.domain.frames import FrameBuilder
from saerl_assets.domain.messages import (
    ID_HEX_DIGITS,
    canonical_messages,
    canonical_response,
    prompt_id,
)
from saerl_assets.domain.progress import Progress, silent
from saerl_assets.domain.spec import VersionSpec

OBSERVATION_SCHEMA: dict[str, pl.DataType] = {
    "label": pl.String(),
    "observation_id": pl.String(),
    "prompt_id": pl.String(),
    "value": pl.Float64(),
    "source": pl.String(),
    "place": pl.String(),
}

_COUNTS = (
    "rows",
    "observations",
    "rows_without_prompt",
    "rows_without_value",
    "rows_unusable",
    "labels_unreadable",
)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_N_SAMPLED_ROWS = 100
_PROGRESS_ROWS = 5_000


@dataclass(frozen=True)
class LabelFile:
    """What was taken from a label file."""

    observations: pl.DataFrame
    """Table label_observations without observed_at."""
    counts: dict[str, int]
    """`rows`, `observations`, `rows_without_prompt` (no such prompt in the version), `rows_without_value`,
    `rows_unusable` (no readable row or prompt) and `labels_unreadable`."""
    notes: dict[str, str] = field(default_factory=dict)
    """`first_<count>`: the first place, with its reason, for each count of what was left out."""


def label_value(value: object) -> float | None:
    """A label's value as a number, truth values as 0 and 1.

    None for NaN, infinity and text, unless the text is a number, as in a CSV file.
    """
    if isinstance(value, str):
        value = float(value) if _NUMBER.fullmatch(value.strip()) else None
    if not isinstance(value, bool | int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def observation_id(*origin: str | int) -> str:
    """Identity of an observation: a hash of where it was made, so that reading it again adds nothing."""
    return hashlib.sha256("\0".join(map(str, origin)).encode(errors="surrogatepass")).hexdigest()[:ID_HEX_DIGITS]


def observations_from_file(
    rows: Iterable[SourceRow],
    label: str,
    prompts: pl.DataFrame,
    *,
    spec: VersionSpec,
    file: str,
    digest: str,
    progress: Progress = silent,
) -> LabelFile:
    """Matches the rows of a label file to the version's prompts.

    A row belongs to the prompt with the same canonical messages, affixes included. Where the version has
    responses and the row has `data.response` too, both must be the same; a row without a response tells
    something of the prompt with every one of its responses, and becomes one observation for each.

    Args:
        rows: The file's rows.
        label: A label of the spec.
        prompts: Columns prompt_id and messages of the version's prompts.
        spec: The version.
        file: The file's name, for places and messages.
        digest: SHA-256 of the file, which names its observations.
        progress: Told every few thousand rows.

    Returns:
        Observations in the file's order, and what was left out.

    Raises:
        SaerlError: `source_empty`, `unknown_field` where no row has the value's or the prompt's field,
            `labels_unmatched` where none gives a value for a prompt of the version.
    """
    matching = _Matching(label, spec, prompts, file, digest)
    for row in rows:
        matching.add(row)
        if matching.counts["rows"] % _PROGRESS_ROWS == 0:
            progress(matching.counts["rows"], matching.counts["rows"], unit="rows", note=label)
    return matching.result()


def fold_labels(observations: pl.DataFrame) -> pl.DataFrame:
    """One row per prompt and label (table labels): mean of its observations, their number, their spread.

    An observation that occurs twice counts once. The result does not depend on the order of the rows, down to
    the last bit of the mean.
    """
    return (
        observations.unique(["label", "observation_id"], keep="first", maintain_order=True)
        .sort("prompt_id", "label", "observation_id")
        .group_by("prompt_id", "label", maintain_order=True)
        .agg(
            value=pl.col("value").mean(),
            n_observations=pl.len().cast(pl.UInt32),
            spread=pl.col("value").max() - pl.col("value").min(),
        )
        .select("prompt_id", "label", "value", "n_observations", "spread")
    )


def unreadable(path: str, value: object) -> str:
    """Why a label's value was not taken, in words."""
    return f"{path} = {shown(value)} is not a finite number."


class _Matching:
    """One pass over a label file."""

    def __init__(self, label: str, spec: VersionSpec, prompts: pl.DataFrame, file: str, digest: str) -> None:
        self.counts = dict.fromkeys(_COUNTS, 0)
        self._label, self._file, self._digest = label, file, digest
        label_spec = spec.labels[label]
        self._value = Field(label_spec.column)
        self._prompts = _PromptIndex(prompts, spec, label_spec.prompt or spec.data.prompt)
        self._unseen = {f"labels.{label}.prompt": self._prompts.field, f"labels.{label}.column": self._value}
        self._sample: list[dict[str, object]] = []
        self._notes: dict[str, str] = {}
        self._observations = FrameBuilder(OBSERVATION_SCHEMA)

    def add(self, row: SourceRow) -> None:
        """Takes one row, or counts why not."""
        self.counts["rows"] += 1
        if row.value is None:
            self._leave_out("rows_unusable", row, row.problem[1] if row.problem else "The row cannot be read.")
            return
        self._unseen = {key: field for key, field in self._unseen.items() if field.of(row.value) is MISSING}
        if len(self._sample) < _N_SAMPLED_ROWS:
            self._sample.append(row.value)
        raw = self._value.of(row.value)
        if raw is MISSING or raw is None:
            self._leave_out("rows_without_value", row, f"{self._value.path} is null or missing.")
        elif (value := label_value(raw)) is None:
            self._leave_out("labels_unreadable", row, unreadable(self._value.path, raw))
        else:
            self._observe(row, row.value, value)

    def result(self) -> LabelFile:
        """What was taken."""
        if self.counts["rows"] == 0:
            remedy = "Fill it, or take the label out of the spec."
            raise SaerlError("source_empty", "The label file has no rows.", where=self._file, remedy=remedy)
        if self._sample and self._unseen:
            key, field = next(iter(self._unseen.items()))
            raise unknown_field(field.path, key, field_names(self._sample), self._file)
        if not self.counts["observations"]:
            raise self._unmatched()
        return LabelFile(self._observations.frame(), self.counts, self._notes)

    def _observe(self, row: SourceRow, fields: dict[str, object], value: float) -> None:
        try:
            matches = self._prompts.find(fields)
        except RowError as error:
            self._leave_out("rows_unusable", row, error.reason)
            return
        if not matches:
            prompt = shown(self._prompts.field.of(fields))
            self._leave_out("rows_without_prompt", row, f"The version has no prompt {prompt}.")
        place = f"{self._file}:{row.line}"
        for match in matches:
            origin = observation_id("file", self._digest, row.line, self._label, match)
            self._observations.add(self._label, origin, match, value, "file", place)
            self.counts["observations"] += 1

    def _leave_out(self, what: str, row: SourceRow, reason: str) -> None:
        self.counts[what] += 1
        self._notes.setdefault(f"first_{what}", f"{self._file}:{row.line}: {reason}")

    def _unmatched(self) -> SaerlError:
        found = ", ".join(f"{name} {number:,}" for name, number in self.counts.items() if number)
        first = next(iter(self._notes.values()), "")
        return SaerlError(
            "labels_unmatched",
            f"No row gives {self._label!r} for a prompt of the version ({found}). First: {first}",
            where=self._file,
            remedy=f"Let labels.{self._label}.prompt name the field with the prompt as the data has it, "
            f"shared endings included, and labels.{self._label}.column the field with the number.",
        )


class _PromptIndex:
    """Finds the prompts that a row of a label file speaks of."""

    def __init__(self, prompts: pl.DataFrame, spec: VersionSpec, prompt: str) -> None:
        self.field = Field(prompt)
        self._response = Field(spec.data.response) if spec.data.response else None
        self._ids = frozenset(prompts["prompt_id"])
        self._by_messages: dict[str, list[str]] = {}
        if self._response:
            for identity, messages in prompts.select("prompt_id", "messages").sort("prompt_id").iter_rows():
                self._by_messages.setdefault(prompt_id(json.loads(messages), None), []).append(identity)

    def find(self, row: dict[str, object]) -> Sequence[str]:
        """Ids of the version's prompts that the row belongs to.

        Raises:
            RowError: The row's prompt or response cannot be read.
        """
        messages, _ = canonical_messages(self.field.of(row), self.field.path)
        response = None
        if self._response:
            response = canonical_response(self._response.of(row), self._response.path, is_needed=False)
            if response is None:
                return self._by_messages.get(prompt_id(messages, None), ())
        identity = prompt_id(messages, response)
        return (identity,) if identity in self._ids else ()
