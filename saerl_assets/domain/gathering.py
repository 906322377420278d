"""The first pass over a source: which rows can be used, which prompt each belongs to, what they say of it.

Belongs here: one row after the other into columns, memory growing by little more than what the tables will
hold. Does not belong here: what needs all rows, such as affixes, tokens and the tables themselves (prompts).
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from saerl_assets.domain.affixes import AffixFinder
from saerl_assets.domain.fields import (
    MISSING,
    Field,
    RowError,
    SourceRow,
    field_names,
    raw_of,
    to_json,
    unknown_field,
    without,
)
from saerl_assets.domain.frames import FrameBuilder
from saerl_assets.domain.labels import label_value, unreadable
from saerl_assets.domain.messages import (
    Messages,
    as_text,
    asking_message,
    canonical_messages,
    canonical_response,
    prompt_id,
    question_id,
)
from saerl_assets.domain.preference_pairs import PairFields, PreferencePair
from saerl_assets.domain.spec import SplitSpec, VersionSpec

REJECTED_SCHEMA: dict[str, pl.DataType] = {
    "position": pl.UInt64(),
    "file": pl.String(),
    "line": pl.UInt64(),
    "reason_code": pl.String(),
    "reason": pl.String(),
    "raw": pl.String(),
}
GATHERED_SCHEMA: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "position": pl.UInt64(),
    "messages": pl.String(),
    "is_chat": pl.Boolean(),
    "response": pl.String(),
    "topic": pl.String(),
    "extra": pl.String(),
}
GATHERED_PAIRS_SCHEMA: dict[str, pl.DataType] = {
    "prompt": pl.Int64(),  # row of the prompts
    "chosen": pl.String(),
    "rejected": pl.String(),
    "is_chat": pl.Boolean(),
    "position": pl.UInt64(),
}

NO_VALUE = float("nan")

_N_SAMPLED_ROWS = 100
_N_ROWS_WITHOUT_PROMPT = 10_000


class Gathering:
    """What has been gathered: prompts in the order of their appearance, and every row that was taken.

    Prompt i is row i of `prompts` and entry i of `answers` and `is_evaluation`; the taken rows are parallel
    arrays.
    """

    def __init__(self, spec: VersionSpec, file: str) -> None:
        self.spec, self.file = spec, file
        self.fields = MappedFields.of(spec)
        self.affixes = AffixFinder(spec.data.strip_prefix, spec.data.strip_suffix)
        self.prompts = FrameBuilder(GATHERED_SCHEMA)
        self.pairs = FrameBuilder(GATHERED_PAIRS_SCHEMA)
        self.rejected = FrameBuilder(REJECTED_SCHEMA)
        self.n_rows = self.n_rejected = 0
        self.answers: list[str | None] = []
        self.is_evaluation = bytearray()
        self.on_both_sides: set[int] = set()
        self.row_prompt, self.row_position, self.row_line = array("q"), array("q"), array("q")
        self.row_labels = {name: array("d") for name in self.fields.labels}
        self.other_answers: dict[int, str] = {}  # taken row -> its answer, where it is not the prompt's
        self.n_unreadable = 0
        self.first_unreadable = ""
        self._index: dict[str, int] = {}
        self._sample: list[dict[str, object]] = []
        self._unseen = self.fields.by_key()

    def add(self, row: SourceRow) -> None:
        """Takes one row or rejects it."""
        self.n_rows += 1
        if row.value is None:
            self._reject(row, *(row.problem or ("broken_row", "The row cannot be read.")))
            return
        self._watch_fields(row.value)
        try:
            self._take(row, row.value)
        except RowError as error:
            self._reject(row, error.code, error.reason)
        except RecursionError:
            self._reject(row, "broken_json", "The row's values are nested too deeply to be read.")

    def check_fields(self) -> None:
        """Holds the spec's fields against those that rows have.

        Raises:
            SaerlError: `unknown_field` for the first one that no row has.
        """
        for key, field in self._unseen.items():
            if self._sample:
                raise unknown_field(field.path, key, field_names(self._sample), self.file)

    def prompt_ids(self) -> list[str]:
        """Ids of the prompts, in the order in which they turned up."""
        return list(self._index)

    def _take(self, row: SourceRow, value: dict[str, object]) -> None:
        fields = self.fields
        messages, is_chat, pair = fields.asked_and_preferred(value)
        response = None
        if fields.response:
            is_needed = self.spec.reader.scope != "prompt"
            response = canonical_response(fields.response.of(value), fields.response.path, is_needed=is_needed)
        answer = as_text(fields.answer.of(value), fields.answer.path) if fields.answer else None
        identity = prompt_id(messages, response)
        question = identity if response is None else question_id(messages)
        prompt = self._index.get(identity)
        if prompt is None:
            topic = as_text(fields.topic.of(value), fields.topic.path) if fields.topic else None
            extra = to_json(fields.carried_along(value))
            prompt = self._index[identity] = len(self._index)
            self.prompts.add(identity, row.position, to_json(messages), is_chat, response, topic, extra)
            self.affixes.add(messages[asking_message(messages)]["content"])
            self.answers.append(answer)
            self.is_evaluation.append(self._is_evaluation(question, value))
        else:
            self._fold(prompt, answer, is_evaluation=self._is_evaluation(question, value))
        if pair is not None:
            self.pairs.add(prompt, to_json(pair.chosen), to_json(pair.rejected), pair.is_chat, row.position)
        self._keep_row(row, value, prompt)

    def _fold(self, prompt: int, answer: str | None, *, is_evaluation: bool) -> None:
        """Adds what a duplicate says: an answer, known before or not, and its side of the split."""
        known = self.answers[prompt]
        if known is None:
            self.answers[prompt] = answer
        elif answer is not None and answer != known:
            self.other_answers[len(self.row_prompt)] = answer
        if is_evaluation != self.is_evaluation[prompt]:
            self.on_both_sides.add(prompt)
            self.is_evaluation[prompt] = True

    def _keep_row(self, row: SourceRow, value: dict[str, object], prompt: int) -> None:
        self.row_prompt.append(prompt)
        self.row_position.append(row.position)
        self.row_line.append(row.line)
        for name, field in self.fields.labels.items():
            self.row_labels[name].append(self._label(row, field, field.of(value)))

    def _label(self, row: SourceRow, field: Field, raw: object) -> float:
        if raw is None or raw is MISSING:
            return NO_VALUE
        number = label_value(raw)
        if number is not None:
            return number
        self.n_unreadable += 1
        self.first_unreadable = self.first_unreadable or f"{self.file}:{row.line}: {unreadable(field.path, raw)}"
        return NO_VALUE

    def _is_evaluation(self, question: str, value: dict[str, object]) -> bool:
        if self.fields.split is None:
            return is_set_apart(question, self.spec.split.evaluation_fraction)
        return _names_evaluation(self.fields.split.of(value), self.spec.split)

    def _watch_fields(self, value: dict[str, object]) -> None:
        """Crosses off mapped fields that a row has, and gives up early where none has the prompt."""
        if len(self._sample) < _N_SAMPLED_ROWS:
            self._sample.append(value)
        if self._unseen:
            self._unseen = {key: field for key, field in self._unseen.items() if field.of(value) is MISSING}
            if self.n_rows >= _N_ROWS_WITHOUT_PROMPT and "data.prompt" in self._unseen:
                self.check_fields()

    def _reject(self, row: SourceRow, code: str, reason: str) -> None:
        self.n_rejected += 1
        self.rejected.add(row.position, self.file, row.line, code, reason, raw_of(row))


@dataclass(frozen=True)
class MappedFields:
    """The fields that a spec gives a meaning to."""

    prompt: Field
    response: Field | None
    answer: Field | None
    topic: Field | None
    pair: PairFields | None
    split: Field | None
    labels: dict[str, Field]
    kept: tuple[Field, ...] | None
    """Fields that exports carry along; none stands for all that have no other meaning."""

    @cached_property
    def _mapped(self) -> tuple[Field, ...]:
        return tuple(self.by_key().values())

    @classmethod
    def of(cls, spec: VersionSpec) -> MappedFields:
        """The fields of a spec. Labels from files of their own are not among them."""
        data = spec.data
        return cls(
            prompt=Field(data.prompt),
            response=Field(data.response) if data.response else None,
            answer=Field(data.answer) if data.answer else None,
            topic=Field(data.topic) if data.topic else None,
            pair=PairFields(Field(data.chosen), Field(data.rejected)) if data.chosen and data.rejected else None,
            split=Field(spec.split.column) if spec.split.column else None,
            labels={name: Field(label.column) for name, label in sorted(spec.labels.items()) if not label.source},
            kept=None if data.keep == "all" else tuple(Field(path) for path in data.keep),
        )

    def by_key(self) -> dict[str, Field]:
        """Every mapped field, by the key of the spec that names it."""
        single = {
            "data.prompt": self.prompt,
            "data.response": self.response,
            "data.answer": self.answer,
            "data.topic": self.topic,
            "data.chosen": self.pair.chosen if self.pair else None,
            "data.rejected": self.pair.rejected if self.pair else None,
            "split.column": self.split,
        }
        return (
            {key: field for key, field in single.items() if field is not None}
            | {f"labels.{name}.column": field for name, field in self.labels.items()}
            | {f"data.keep.{place}": field for place, field in enumerate(self.kept or ())}
        )

    def asked_and_preferred(self, value: dict[str, object]) -> tuple[Messages, bool, PreferencePair | None]:
        """The prompt of a row, whether it was a chat, and the row's pair where the spec names one.

        Raises:
            RowError: The row has no prompt, or no pair.
        """
        if self.pair is not None and self.pair.chosen.path == self.prompt.path:
            messages, pair = self.pair.with_prompt(value)
            return messages, True, pair
        messages, is_chat = canonical_messages(self.prompt.of(value), self.prompt.path)
        return messages, is_chat, self.pair.after(messages, value) if self.pair else None

    def carried_along(self, value: dict[str, object]) -> dict[str, object]:
        """The further fields of a row that exports carry along."""
        if self.kept is None:
            return without(value, self._mapped)
        found = {field.path: field.of(value) for field in self.kept}
        return {path: item for path, item in found.items() if item is not MISSING}


def is_set_apart(question: str, fraction: float) -> bool:
    """Whether a prompt is set apart for evaluation, by what it asks alone: the same in every version.

    All responses to a question are on one side, and one without a response is where its id puts it. The id of the
    question is hashed once more, so that the split is independent of other choices made by the id's digits.
    """
    if fraction <= 0.0:
        return False
    number = int.from_bytes(hashlib.sha256(f"split\0{question}".encode()).digest()[:8], "big")
    return number < fraction * 2**64


def _names_evaluation(value: object, split: SplitSpec) -> bool:
    """Whether a split's name, as text or as JSON writes it, is one of those that mean evaluation."""
    if value is MISSING or value is None:
        return False
    return (value.strip() if isinstance(value, str) else to_json(value)) in split.evaluation_values
