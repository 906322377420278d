"""Prompts: the rows of a source as tables, duplicates folded in, each one as the reader will see it.

Belongs here: `take_prompts` with its result, and when too much was rejected. Does not belong here: single
rows (gathering), what a prompt is (messages), tokenizers (models), files (storage).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import polars as pl
from numpy.typing import NDArray

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import MAX_RAW_CHARACTERS, SourceRow, shown, to_json
from saerl_assets.domain.frames import FrameBuilder
from saerl_assets.domain.gathering import REJECTED_SCHEMA, Gathering
from saerl_assets.domain.labels import OBSERVATION_SCHEMA, observation_id
from saerl_assets.domain.preference_pairs import PAIRS_SCHEMA
from saerl_assets.domain.progress import Progress, silent
from saerl_assets.domain.readings import Readings, Tokenise, TokenisedText, read_prompts
from saerl_assets.domain.spec import VersionSpec

__all__ = ["Intake", "Tokenise", "TokenisedText", "check_rejected", "take_prompts"]

PROMPTS_SCHEMA: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "position": pl.UInt64(),
    "messages": pl.String(),
    "is_chat": pl.Boolean(),
    "text": pl.String(),
    "response": pl.String(),
    "answer": pl.String(),
    "topic": pl.String(),
    "split": pl.String(),
    "text_id": pl.String(),
    "token_ids": pl.List(pl.UInt32()),
    "n_tokens": pl.UInt32(),
    "n_prefix_tokens": pl.UInt32(),
    "extra": pl.String(),
    "n_rows": pl.UInt32(),
}

_PROGRESS_ROWS = 5_000
_N_ROWS_SHOWN = 3


@dataclass(frozen=True)
class Intake:
    """What was taken from a source."""

    prompts: pl.DataFrame
    """Table prompts, sorted by prompt_id."""
    rejected: pl.DataFrame
    """Table rejected_rows, sorted by position."""
    observations: pl.DataFrame
    """Table label_observations without observed_at: labels in the source's own rows, by label and
    position."""
    counts: dict[str, int]
    """`rows` = `rows_taken` + `rejected`; `prompts` = `rows_taken` - `duplicates_folded`.

    `label_conflicts` counts prompts whose rows disagree on a label; `label_conflicts_folded` those of them
    that were taken, with the mean.

    Of preference data, `pairs_folded` counts pairs that an earlier row had already, and `pair_conflicts` prompts of
    which one row chose what another rejected."""
    affixes: dict[str, str]
    """`prefix` and `suffix` that are left out for reading; empty where there is none."""
    notes: dict[str, str] = field(default_factory=dict)
    """`first_<count>`: the first place, with its reason, for a count of what was left out."""
    file: str = ""
    """The source."""
    pairs: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PAIRS_SCHEMA))
    """Table preference_pairs, by prompt_id and pair; empty where the spec names none."""


def take_prompts(
    rows: Iterable[SourceRow],
    spec: VersionSpec,
    tokenise: Tokenise,
    *,
    file: str,
    n_rows: int = 0,
    progress: Progress = silent,
) -> Intake:
    """Takes the prompts of a source.

    Every row ends up in exactly one place: in the `n_rows` of its prompt, or in `rejected`. Rows with the
    same canonical messages and response are one prompt, which has the position, topic and further fields of
    the first of them. If their reference answers differ by more than outer white space, the prompt is
    rejected with all of its rows. A prompt that one row sets apart for evaluation is set apart.

    Args:
        rows: The source's rows.
        spec: The version.
        tokenise: The reader's tokenizer.
        file: The source's name, for places and messages.
        n_rows: Rows expected; 0 if unknown.
        progress: Told every few thousand rows and prompts.

    Raises:
        SaerlError: `source_empty` for a source without rows, `unknown_field` for a field of the spec that no
            row has.
    """
    gathering = Gathering(spec, file)
    n_rows = min(n_rows, spec.data.limit) if spec.data.limit and n_rows else n_rows
    for row in islice(rows, spec.data.limit):
        gathering.add(row)
        if gathering.n_rows % _PROGRESS_ROWS == 0:
            progress(gathering.n_rows, max(n_rows, gathering.n_rows), unit="rows")
    if gathering.n_rows == 0:
        raise SaerlError("source_empty", "The source has no rows.", where=file, remedy="Name a source with rows.")
    gathering.check_fields()
    return _Assembly(gathering).intake(tokenise, progress)


def check_rejected(intake: Intake, spec: VersionSpec) -> None:
    """Stops a version of which too much cannot be used. The rejected rows can have been stored by then.

    Raises:
        SaerlError: `too_many_rejected` above `data.max_rejected_fraction`, `no_prompts` where nothing is
            left.
    """
    n_rejected, n_rows = intake.counts["rejected"], intake.counts["rows"]
    if n_rejected <= spec.data.max_rejected_fraction * n_rows and intake.prompts.height:
        return
    reasons = intake.rejected["reason_code"].value_counts().sort(["count", "reason_code"], descending=[True, False])
    by_reason = ", ".join(f"{code} {number:,}" for code, number in reasons.iter_rows())
    first = intake.rejected.head(_N_ROWS_SHOWN).select("line", "reason").iter_rows()
    examples = " ".join(f"Line {line}: {reason}" for line, reason in first)
    code = "too_many_rejected" if intake.prompts.height else "no_prompts"
    raise SaerlError(
        code,
        f"{n_rejected:,} of {n_rows:,} rows ({n_rejected / n_rows:.1%}) cannot be used: {by_reason}. {examples}",
        where=intake.file,
        remedy="Correct them (the table rejected_rows lists all), or raise data.max_rejected_fraction, "
        f"which is {spec.data.max_rejected_fraction:g}.",
    )


class _Assembly:
    """Turns what was gathered into tables."""

    def __init__(self, gathering: Gathering) -> None:
        self._gathering = gathering
        self._spec = gathering.spec
        self._gathered = gathering.prompts.frame()
        self._row_prompt: NDArray[np.int64] = np.asarray(gathering.row_prompt, dtype=np.int64)
        self._dropped: dict[int, tuple[str, str]] = {}  # prompt -> reason code and reason

    def intake(self, tokenise: Tokenise, progress: Progress) -> Intake:
        gathering = self._gathering
        affixes = gathering.affixes.found()
        self._drop_conflicting_answers()
        readings = read_prompts(self._gathered, self._kept(), affixes, self._spec.reader, tokenise, progress)
        self._dropped |= readings.unusable
        prompts = self._prompts(readings.frame)
        rejected = pl.concat([gathering.rejected.frame(), self._rejected()]).sort("position")
        observations = self._observations()
        pairs, of_pairs = self._pairs()
        counts = self._counts(prompts, readings) | of_pairs
        counts |= {"rejected": rejected.height, "observations": observations.height}
        notes = {"first_labels_unreadable": gathering.first_unreadable} if gathering.first_unreadable else {}
        return Intake(prompts, rejected, observations, counts, vars(affixes), notes, gathering.file, pairs)

    def _counts(self, prompts: pl.DataFrame, readings: Readings) -> dict[str, int]:
        gathering = self._gathering
        n_taken = int(prompts["n_rows"].sum())
        conflicting = self._label_conflicts()
        return {
            "rows": gathering.n_rows,
            "rows_taken": n_taken,
            "prompts": prompts.height,
            "evaluation_prompts": int((prompts["split"] == "evaluation").sum()),
            "duplicates_folded": n_taken - prompts.height,
            "tokens": int(prompts["n_tokens"].sum()),
            "prompts_without_answer": prompts["answer"].null_count(),
            "prompts_without_prefix": readings.n_without_prefix,
            "prompts_without_suffix": readings.n_without_suffix,
            "labels_unreadable": gathering.n_unreadable,
            "label_conflicts": int(conflicting.sum()),
            "label_conflicts_folded": int((conflicting & self._is_kept()).sum()),
            "answer_conflicts": sum(code == "answer_conflict" for code, _ in self._dropped.values()),
            "split_conflicts": len(gathering.on_both_sides - self._dropped.keys()),
        }

    def _drop_conflicting_answers(self) -> None:
        for row, other in self._gathering.other_answers.items():
            prompt = int(self._row_prompt[row])
            known = self._gathering.answers[prompt]
            place = f"on line {self._gathering.row_line[row]}"
            reason = f"Its rows give different reference answers: {shown(known)}, but {shown(other)} {place}."
            self._dropped.setdefault(prompt, ("answer_conflict", reason))

    def _prompts(self, readings: pl.DataFrame) -> pl.DataFrame:
        gathering = self._gathering
        identities = self._gathered["prompt_id"].gather(readings["prompt"])
        readings = readings[identities.arg_sort()]
        taken = readings["prompt"].to_list()
        answers = [gathering.answers[prompt] for prompt in taken]
        splits = ["evaluation" if gathering.is_evaluation[prompt] else "train" for prompt in taken]
        n_rows = np.bincount(self._row_prompt, minlength=self._gathered.height)[taken]
        return (
            self._gathered[taken]
            .with_columns(
                readings.drop("prompt"),
                answer=pl.Series(answers, dtype=pl.String),
                split=pl.Series(splits, dtype=pl.String),
                n_rows=pl.Series(n_rows, dtype=pl.UInt32),
            )
            .select(*PROMPTS_SCHEMA)
        )

    def _rejected(self) -> pl.DataFrame:
        """The rows of dropped prompts. What is shown of them is what decided: prompt, response and answer."""
        gathering, data = self._gathering, self._spec.data
        builder = FrameBuilder(REJECTED_SCHEMA)
        for row in np.flatnonzero(np.isin(self._row_prompt, list(self._dropped))).tolist():
            prompt = int(self._row_prompt[row])
            first = self._gathered.row(prompt, named=True)
            messages = json.loads(first["messages"])
            decisive: dict[str, object] = {data.prompt: messages if first["is_chat"] else messages[0]["content"]}
            if data.response:
                decisive[data.response] = first["response"]
            if data.answer:
                decisive[data.answer] = gathering.other_answers.get(row, gathering.answers[prompt])
            raw = to_json(decisive)[:MAX_RAW_CHARACTERS]
            position, line = gathering.row_position[row], gathering.row_line[row]
            builder.add(position, gathering.file, line, *self._dropped[prompt], raw)
        return builder.frame()

    def _observations(self) -> pl.DataFrame:
        gathering, identities = self._gathering, self._gathering.prompt_ids()
        builder = FrameBuilder(OBSERVATION_SCHEMA)
        is_kept = self._is_kept()
        for label, values in gathering.row_labels.items():
            for row in np.flatnonzero(~np.isnan(values) & is_kept[self._row_prompt]).tolist():
                origin = observation_id("column", label, gathering.row_position[row])
                place = f"{gathering.file}:{gathering.row_line[row]}"
                builder.add(label, origin, identities[gathering.row_prompt[row]], values[row], "column", place)
        return builder.frame()

    def _pairs(self) -> tuple[pl.DataFrame, dict[str, int]]:
        """Table preference_pairs of the prompts that are kept, and what is to be counted of it."""
        gathering = self._gathering
        if gathering.fields.pair is None:
            return pl.DataFrame(schema=PAIRS_SCHEMA), {}
        every = gathering.pairs.frame()
        kept = every.filter(pl.Series(self._is_kept()).gather(every["prompt"]))
        distinct = kept.unique(["prompt", "chosen", "rejected"], keep="first", maintain_order=True)
        swapped = distinct.select("prompt", chosen="rejected", rejected="chosen")
        conflicting = distinct.join(swapped, on=["prompt", "chosen", "rejected"], how="semi")["prompt"].n_unique()
        pairs = distinct.with_columns(
            prompt_id=pl.Series(gathering.prompt_ids(), dtype=pl.String).gather(distinct["prompt"]),
            pair=pl.int_range(pl.len(), dtype=pl.UInt32).over("prompt"),
        )
        counts = {
            "pairs": pairs.height,
            "pairs_folded": kept.height - pairs.height,
            "pair_conflicts": conflicting,
        }
        return pairs.select(*PAIRS_SCHEMA).sort("prompt_id", "pair"), counts

    def _label_conflicts(self) -> NDArray[np.bool_]:
        """Whether the rows of each prompt disagree on a label."""
        n_prompts = self._gathered.height
        conflicting = np.zeros(n_prompts, dtype=np.bool_)
        for values in self._gathering.row_labels.values():
            numbers = np.asarray(values)
            known = ~np.isnan(numbers)
            lowest, highest = np.full(n_prompts, np.inf), np.full(n_prompts, -np.inf)
            np.minimum.at(lowest, self._row_prompt[known], numbers[known])
            np.maximum.at(highest, self._row_prompt[known], numbers[known])
            conflicting |= highest > lowest
        return conflicting

    def _is_kept(self) -> NDArray[np.bool_]:
        is_kept = np.ones(self._gathered.height, dtype=np.bool_)
        is_kept[list(self._dropped)] = False
        return is_kept

    def _kept(self) -> list[int]:
        kept: list[int] = np.flatnonzero(self._is_kept()).tolist()
        return kept
