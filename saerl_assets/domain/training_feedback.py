"""Labels and training logs that arrive later: which prompt a row speaks of, and what it says of it.

Belongs here: a row per step and prompt, what was not taken and why. Does not belong here: reading files (storage),
whose format a row has (log_formats), finding a prompt by its text (prompt_texts), what follows from it (curriculum,
difficulty).

A row names its prompt by `prompt_id`, or has it under the data's own name or `prompt`, with at least one value. The
reward of TRL's completions is the sum of the numbers between `completion` and `advantage`.

Of a row with a `step`, or of a log, `reward`, `loss`, `pass_rate` and `correct` are what a training measured. Of a row
without, `reward` and `loss` are too, and everything else that is a label's name, or `pass_rate`, `correct` or
`difficulty`, is an observation of that label.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.domain.agreement import spearman
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import MISSING, Field, RowError, SourceRow, raw_of, shown
from saerl_assets.domain.frames import FrameBuilder
from saerl_assets.domain.labels import OBSERVATION_SCHEMA, label_value, observation_id
from saerl_assets.domain.log_formats import FIRST_STEP, LogFormat, log_format, named_prompt
from saerl_assets.domain.messages import canonical_messages, canonical_text
from saerl_assets.domain.prompt_texts import PromptTexts

if TYPE_CHECKING:
    from saerl_assets.domain.spec import VersionSpec

FEEDBACK_SCHEMA: dict[str, pl.DataType] = {
    "run_name": pl.String(),
    "manifest_id": pl.String(),
    "epoch": pl.UInt32(),
    "step": pl.UInt64(),
    "prompt_id": pl.String(),
    "reward": pl.Float64(),
    "loss": pl.Float64(),
    "pass_rate": pl.Float64(),
    "line": pl.UInt64(),
}
REJECTED_SCHEMA: dict[str, pl.DataType] = {
    "line": pl.UInt64(),
    "reason_code": pl.String(),
    "reason": pl.String(),
    "raw": pl.String(),
}
CORRECT_NAMES = ("pass_rate", "correct", "correctness", "is_correct", "acc")
"""Fields that say whether, or how often, an answer was right."""


@dataclass(frozen=True)
class Feedback:
    """What was taken from a file."""

    format: LogFormat
    observations: pl.DataFrame
    """Table label_observations without observed_at."""
    feedback: pl.DataFrame
    """Table training_feedback without file_digest, place and observed_at; `line` is the first of each."""
    rejected: pl.DataFrame
    """Table rejected_feedback without file_digest."""
    n_rows: int

    @property
    def n_unmatched(self) -> int:
        """Rows that speak of no prompt of the version."""
        return int((self.rejected["reason_code"] == "no_such_prompt").sum())

    @property
    def explanation(self) -> str:
        """What the file was taken for, in words."""
        labels = self.observations["label"].unique().sort().to_list()
        parts = [f"{self.observations.height:,} observations of {', '.join(labels)}"] if labels else []
        if self.feedback.height:
            n_steps = self.feedback.select("run_name", "step").n_unique()
            parts.append(f"feedback of {n_steps:,} steps on {self.feedback['prompt_id'].n_unique():,} prompts")
        left = f"{self.rejected.height:,} of {self.n_rows:,} rows were not taken" if self.rejected.height else ""
        return "; ".join([*(parts or ["nothing that is of this version"]), *([left] if left else [])]) + "."


def read_feedback(
    rows: Iterable[SourceRow],
    prompts: pl.DataFrame,
    spec: VersionSpec,
    *,
    file: str,
    digest: str,
    manifest_id: str | None = None,
    run_name: str | None = None,
) -> Feedback:
    """Takes up the rows of one file.

    Args:
        rows: The file's rows.
        prompts: Columns prompt_id and messages of the version's prompts.
        spec: The version.
        file: The file's name.
        digest: SHA-256 of the file, which names its observations.
        manifest_id: The manifest that a log is of which does not say.
        run_name: What the training is called; else what the log says, else its format or the file's name.

    Returns:
        What was taken, a row per run, step and prompt, and what was not. The same for the same file and prompts.

    Raises:
        SaerlError: `source_empty` for a file without rows.
    """
    reading = _Reading(_PromptIndex(prompts, spec), spec, _Origin(file, digest, manifest_id, run_name))
    for row in rows:
        reading.add(row)
    return reading.result()


@dataclass(frozen=True)
class _Origin:
    """Where the rows come from, as `read_feedback` has it."""

    file: str
    digest: str
    manifest_id: str | None
    run_name: str | None


def fullest(feedback: pl.DataFrame) -> pl.DataFrame:
    """One row per run, step and prompt of the table training_feedback: of logs that came again, the fullest."""
    ordered = feedback.sort("n_completions", "observed_at", "file_digest", descending=[True, False, False])
    return ordered.unique(["run_name", "step", "prompt_id"], keep="first", maintain_order=True)


def difficulty_correlation(feedback: pl.DataFrame, difficulty: pl.DataFrame, measure: str) -> tuple[int, float | None]:
    """How difficulty and what a training measured go together over prompts: their number, and Spearman's correlation.

    Args:
        feedback: Rows of training_feedback.
        difficulty: Columns prompt_id and difficulty.
        measure: `reward`, `loss` or `pass_rate`.
    """
    pairs = (
        fullest(feedback)
        .drop_nulls(measure)
        .group_by("prompt_id", maintain_order=True)
        .agg((pl.col(measure) * pl.col("n_completions")).sum() / pl.col("n_completions").sum())
        .join(difficulty.select("prompt_id", "difficulty"), on="prompt_id")
        .sort("prompt_id")
    )
    return pairs.height, spearman(pairs["difficulty"].to_numpy(), pairs[measure].to_numpy())


class _Reading:
    """One pass over a file."""

    def __init__(self, index: _PromptIndex, spec: VersionSpec, origin: _Origin) -> None:
        self._index, self._origin = index, origin
        self._names = _label_names(spec)
        self._format: LogFormat | None = None
        self._n_rows = 0
        self._observations = FrameBuilder(OBSERVATION_SCHEMA)
        self._lines = FrameBuilder(FEEDBACK_SCHEMA)
        self._rejected = FrameBuilder(REJECTED_SCHEMA)

    def add(self, row: SourceRow) -> None:
        """Takes one row, or keeps it with the reason."""
        self._n_rows += 1
        if row.value is None:
            code, reason = row.problem or ("broken_row", "The row cannot be read.")
            self._rejected.add(row.line, code, reason, raw_of(row))
            return
        try:
            self._take(row, row.value)
        except RowError as error:
            self._rejected.add(row.line, error.code, error.reason, raw_of(row))

    def result(self) -> Feedback:
        """What was taken."""
        if not self._n_rows:
            remedy = "Put a file there that has rows."
            raise SaerlError("source_empty", "The file has no rows.", where=self._origin.file, remedy=remedy)
        return Feedback(
            format=self._format or "plain",
            observations=self._observations.frame(),
            feedback=_by_step(self._lines.frame()),
            rejected=self._rejected.frame(),
            n_rows=self._n_rows,
        )

    def _take(self, row: SourceRow, value: Mapping[str, object]) -> None:
        kind = log_format(value)
        self._format = self._format or kind
        measured, observed = _values(kind, value, self._names)
        if not measured and not observed:
            known = ", ".join(["reward", "loss", "pass_rate", "correct", *sorted(self._names)])
            raise RowError("no_value", f"The row has none of the fields {known}, or they are null.")
        identities = self._index.find(kind, value)
        if not identities:
            raise RowError("no_such_prompt", f"The version has no prompt {shown(_said(kind, value))}.")
        for identity in identities:
            for label, number in observed.items():
                named = observation_id("file", self._origin.digest, row.line, label, identity)
                self._observations.add(label, named, identity, number, "file", f"{self._origin.file}:{row.line}")
            if measured:
                self._measure(row, value, kind, identity, measured)

    def _measure(
        self, row: SourceRow, value: Mapping[str, object], kind: LogFormat, identity: str, measured: dict[str, float]
    ) -> None:
        step = _whole(value, "step")
        if step is not None:
            step = max(step - FIRST_STEP.get(kind, 0), 0)
        said = next((value[name] for name in ("run_name", "run", "run_id") if isinstance(value.get(name), str)), None)
        manifest, epoch = value.get("manifest_id"), label_value(value.get("epoch"))
        self._lines.add(
            str(self._origin.run_name or said or (kind if kind in {"trl", "verl"} else _run_of(self._origin.file))),
            manifest if isinstance(manifest, str) else self._origin.manifest_id,
            int(epoch) if epoch is not None and epoch >= 0 and epoch == int(epoch) else None,  # others count in parts
            step or 0,
            identity,
            measured.get("reward"),
            measured.get("loss"),
            measured.get("pass_rate"),
            row.line,
        )


class _PromptIndex:
    """Finds the prompts that a row speaks of."""

    def __init__(self, prompts: pl.DataFrame, spec: VersionSpec) -> None:
        self._fields = [Field(spec.data.prompt), Field("prompt")]
        known = prompts.select("prompt_id", "messages").sort("prompt_id")
        self._ids = frozenset(known["prompt_id"])
        self._texts = PromptTexts((identity, json.loads(messages)) for identity, messages in known.iter_rows())

    def find(self, kind: LogFormat, row: Mapping[str, object]) -> list[str]:
        """Ids of the version's prompts that the row belongs to: all responses to a prompt where it names the prompt.

        Raises:
            RowError: The row's prompt cannot be read, or it has none.
        """
        named = named_prompt(row)
        if named is not None:
            return [named] if named in self._ids else []
        if kind == "verl":
            return self._texts.find(canonical_text(str(row.get("input"))))
        held = next((field.of(row) for field in self._fields if field.of(row) is not MISSING), MISSING)
        if held is MISSING:
            wanted = " or ".join(dict.fromkeys(["prompt_id", *(field.path for field in self._fields)]))
            raise RowError("missing_field", f"The row has no field {wanted}.")
        canonical_messages(held, "prompt")  # raises for what can be no prompt
        return self._texts.find(held)


def _values(
    kind: LogFormat, row: Mapping[str, object], names: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, float]]:
    """What a training measured, and what is an observation of a label.

    Raises:
        RowError: `not_a_number`.
    """
    is_log = kind != "plain" or row.get("step") is not None
    measured = {name: _number(row, name) for name in ("reward", "loss")}
    if kind == "verl":
        measured["reward"] = _number(row, "score")
    elif kind == "trl" and measured["reward"] is None:
        measured["reward"] = _reward_of_trl(row)
    if is_log:
        said = (_number(row, name) for name in CORRECT_NAMES)
        measured["pass_rate"] = next((value for value in said if value is not None), None)
        return {name: value for name, value in measured.items() if value is not None}, {}
    labels: dict[str, float] = {}
    for name, label in names.items():  # several names may mean one label: the first that the row has counts
        value = _number(row, name)
        if value is not None:
            labels.setdefault(label, value)
    return {name: value for name, value in measured.items() if value is not None and name not in names}, labels


def _reward_of_trl(row: Mapping[str, object]) -> float | None:
    """The sum of the reward functions' columns, which TRL writes between `completion` and `advantage`."""
    columns = list(row)
    between = columns[columns.index("completion") + 1 : columns.index("advantage")]
    numbers = [row[name] for name in between if isinstance(row[name], float)]
    known = [value for number in numbers if (value := label_value(number)) is not None]
    return sum(known) if known else None


def _number(row: Mapping[str, object], name: str) -> float | None:
    """A field's number; none where it is missing or null.

    Raises:
        RowError: `not_a_number`.
    """
    raw = row.get(name)
    if raw is None:
        return None
    value = label_value(raw)
    if value is None:
        raise RowError("not_a_number", f"{name} = {shown(raw)} is not a finite number.")
    return value


def _whole(row: Mapping[str, object], name: str) -> int | None:
    """A field's whole number, 0 or more; none where it is missing or null.

    Raises:
        RowError: `not_a_number`.
    """
    value = _number(row, name)
    if value is None:
        return None
    if value < 0 or value != int(value):
        raise RowError("not_a_number", f"{name} = {shown(row[name])} is no whole number of 0 or more.")
    return int(value)


def _label_names(spec: VersionSpec) -> dict[str, str]:
    """By field of a row the label that it is an observation of: the spec's own names, and common ones."""
    own = {name: name for name in spec.labels} | {label.column: name for name, label in spec.labels.items()}
    common = dict.fromkeys(CORRECT_NAMES, spec.quality.label) | {"difficulty": spec.difficulty.label}
    return own | {name: label for name, label in common.items() if name not in own}


def _said(kind: LogFormat, row: Mapping[str, object]) -> object:
    return named_prompt(row) or (row.get("input") if kind == "verl" else row.get("prompt"))


def _run_of(file: str) -> str:
    """The name of a file without its ending and its number, so that `log_0001.jsonl` and `log_0002.jsonl` are one."""
    stem = file.rpartition("/")[2].partition(".")[0]
    return re.sub(r"[_-]?\d+$", "", stem) or stem


def _by_step(lines: pl.DataFrame) -> pl.DataFrame:
    """One row per run, step and prompt: means over its lines."""
    return (
        lines.group_by("run_name", "step", "prompt_id", maintain_order=True)
        .agg(
            pl.col("manifest_id").first(),
            pl.col("epoch").first(),
            n_completions=pl.len().cast(pl.UInt32),
            reward=pl.col("reward").mean(),
            loss=pl.col("loss").mean(),
            pass_rate=pl.col("pass_rate").mean(),
            line=pl.col("line").min(),
        )
        .sort("run_name", "step", "line")
    )
