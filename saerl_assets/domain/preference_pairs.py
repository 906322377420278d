"""Preference pairs: a better and a worse answer to one prompt, and the prompt that both may begin with.

Belongs here: the pair of one row in canonical form, why it is none, which pair of a prompt an epoch takes. Does not
belong here: prompts as such (messages), going through rows (gathering), what a trainer reads (trainers).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.domain.fields import MISSING, RowError
from saerl_assets.domain.messages import canonical_message, canonical_text, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from saerl_assets.domain.fields import Field
    from saerl_assets.domain.messages import Messages

PAIRS_SCHEMA: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "pair": pl.UInt32(),
    "chosen": pl.String(),
    "rejected": pl.String(),
    "is_chat": pl.Boolean(),
    "position": pl.UInt64(),
}

_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_NOT_ANSWERING = ("user", "system")


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, each as the chat messages that follow the prompt's."""

    chosen: Messages
    rejected: Messages
    is_chat: bool
    """The row held chat messages; text is one message by the assistant."""


@dataclass(frozen=True)
class PairFields:
    """The two fields of a pair."""

    chosen: Field
    rejected: Field

    def after(self, prompt: Messages, row: Mapping[str, object]) -> PreferencePair:
        """The pair of a row whose prompt has a field of its own.

        Chat messages may begin with those of the prompt, which are then left out.

        Raises:
            RowError: `missing_pair`, `empty_pair`, `equal_pair`, `other_prompt` if the messages belong to another
                prompt, `not_text`, `bad_messages` or `not_utf8`.
        """
        chosen, chosen_chat = _answer(self.chosen, row)
        rejected, rejected_chat = _answer(self.rejected, row)
        n = len(prompt)
        pair = PreferencePair(
            chosen[n:] if chosen_chat and chosen[:n] == prompt else chosen,
            rejected[n:] if rejected_chat and rejected[:n] == prompt else rejected,
            chosen_chat or rejected_chat,
        )
        return self._checked(pair, "other_prompt", "the messages of the prompt come first, or none of them")

    def with_prompt(self, row: Mapping[str, object]) -> tuple[Messages, PreferencePair]:
        """The prompt that both conversations of a row begin with, and the pair after it.

        The prompt is all messages that both have in common from the first one on. Text has to be a transcript of turns
        by `Human:` and `Assistant:`, an empty line before each.

        Raises:
            RowError: As `after`, or `no_shared_prompt` where there is no such beginning.
        """
        chosen, rejected = _conversation(self.chosen, row), _conversation(self.rejected, row)
        n = 0
        while n < min(len(chosen), len(rejected)) and chosen[n] == rejected[n]:
            n += 1
        if n == len(chosen) == len(rejected):
            raise self._equal()
        if not any(message["role"] != "system" for message in chosen[:n]):
            raise RowError(
                "no_shared_prompt",
                f"{self.chosen.path} and {self.rejected.path} do not begin with the same prompt. Correct the row, or "
                "name the prompt's own field in data.prompt.",
            )
        pair = PreferencePair(chosen[n:], rejected[n:], is_chat=True)
        return chosen[:n], self._checked(pair, "other_prompt", "they differ in an answer, not in what is asked")

    def _checked(self, pair: PreferencePair, code: str, rule: str) -> PreferencePair:
        for field, messages in ((self.chosen, pair.chosen), (self.rejected, pair.rejected)):
            if not any(message["content"].strip() for message in messages):
                raise RowError("empty_pair", f"{field.path} holds no answer. Fill it or remove the row.")
            if messages[0]["role"] in _NOT_ANSWERING:
                reason = f"{field.path} does not answer the prompt: its first message after it is by the "
                remedy = "Correct the row, or name the field of data.chosen in data.prompt too."
                raise RowError(code, f"{reason}{messages[0]['role']}; in a pair {rule}. {remedy}")
        if _stripped(pair.chosen) == _stripped(pair.rejected):
            raise self._equal()
        return pair

    def _equal(self) -> RowError:
        reason = f"{self.chosen.path} and {self.rejected.path} are the same, which prefers nothing. Remove the row."
        return RowError("equal_pair", reason)


def pairs_of_slots(slots: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """One pair for each slot of an order: epoch e takes pair e mod n of a prompt's n pairs.

    Args:
        slots: Columns epoch and prompt_id; others are kept.
        pairs: Table preference_pairs.

    Returns:
        The slots in their order with pair, chosen, rejected and pair_is_chat; null where a prompt has no pair.
    """
    numbers = pairs.group_by("prompt_id").agg(n_pairs=pl.len())
    answers = pairs.select("prompt_id", pl.col("pair").cast(pl.Int64), "chosen", "rejected", pair_is_chat="is_chat")
    return (
        slots.join(numbers, on="prompt_id", how="left", maintain_order="left")
        .with_columns(pair=pl.col("epoch").cast(pl.Int64) % pl.col("n_pairs").cast(pl.Int64))
        .drop("n_pairs")
        .join(answers, on=["prompt_id", "pair"], how="left", maintain_order="left")
    )


def transcript(text: str) -> Messages | None:
    """The messages of a text whose turns begin with `Human:` and `Assistant:`, as in Anthropic's hh-rlhf; else none."""
    parts = _TURN.split(text)
    if parts[0] or len(parts) < 3 or parts[1] != "Human":
        return None
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return [{"role": _ROLES[speaker], "content": said.strip()} for speaker, said in turns]


def _answer(field: Field, row: Mapping[str, object]) -> tuple[Messages, bool]:
    """One side of a pair, and whether it was chat messages.

    The white space in front of a text stays: a trainer that reads text joins it to the prompt as it is.
    """
    value = _present(field, row)
    if isinstance(value, list):
        return _messages(value, field), True
    text = canonical_text(value)
    indent = value[: len(value) - len(value.lstrip())].replace("\r\n", "\n") if text else ""
    return [{"role": "assistant", "content": indent + text}], False


def _conversation(field: Field, row: Mapping[str, object]) -> Messages:
    """One side of a pair that begins with its prompt."""
    value = _present(field, row)
    if isinstance(value, list):
        return _messages(value, field)
    messages = transcript(canonical_text(value))
    if messages is None:
        reason = f"{field.path} is text and no transcript of turns by 'Human:' and 'Assistant:'."
        raise RowError("no_shared_prompt", f"{reason} Name the prompt's own field in data.prompt.")
    return messages


def _messages(value: list[object], field: Field) -> Messages:
    messages = [canonical_message(message, place, field.path) for place, message in enumerate(value)]
    if not messages:
        raise RowError("empty_pair", f"{field.path} is an empty list. Fill it or remove the row.")
    return messages


def _present(field: Field, row: Mapping[str, object]) -> str | list[object]:
    value = field.of(row)
    if value is MISSING or value is None:
        what = "missing" if value is MISSING else "null"
        raise RowError("missing_pair", f"{field.path} is {what}; a pair has both answers. Fill it or remove the row.")
    if not isinstance(value, str | list):
        raise RowError("not_text", f"{field.path} is {kind_of(value)} where text or a list of messages is due.")
    return value


def _stripped(messages: Messages) -> Messages:
    return [{**message, "content": message["content"].strip()} for message in messages]
