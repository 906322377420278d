"""What a reader reads of a prompt: its text without affixes, as token ids.

Belongs here: the tokenizer's shape, what is handed to it, which prompts it makes unusable. Does not belong
here: tokenizers themselves and chat templates (models).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from saerl_assets.domain.affixes import Affixes
from saerl_assets.domain.frames import FrameBuilder
from saerl_assets.domain.messages import ID_HEX_DIGITS, Messages, asking_message
from saerl_assets.domain.progress import Progress
from saerl_assets.domain.spec import ReaderSpec

READINGS_SCHEMA: dict[str, pl.DataType] = {
    "prompt": pl.UInt32(),
    "text": pl.String(),
    "text_id": pl.String(),
    "token_ids": pl.List(pl.UInt32()),
    "n_tokens": pl.UInt32(),
    "n_prefix_tokens": pl.UInt32(),
}

_BLOCK_PROMPTS = 2_000


@dataclass(frozen=True)
class TokenisedText:
    """The token ids that are read."""

    token_ids: list[int]
    n_prefix_tokens: int
    """Leading tokens that belong to the prompt where a response is read too; else 0."""


class Tokenise(Protocol):
    """A reader's tokenizer with its template."""

    def __call__(self, prompts: Sequence[Messages | str], responses: Sequence[str | None]) -> list[TokenisedText]:
        """Tokenises messages (template `chat`) or texts, and responses where they are read."""


@dataclass(frozen=True)
class Readings:
    """How prompts are read."""

    frame: pl.DataFrame
    """READINGS_SCHEMA; `prompt` is the prompt's number. Prompts that cannot be read are left out."""
    unusable: dict[int, tuple[str, str]]
    """Those, with code and reason."""
    n_without_prefix: int
    """Prompts that lack the prefix that was to be stripped."""
    n_without_suffix: int
    """Prompts that lack the suffix that was to be stripped."""


def read_prompts(
    prompts: pl.DataFrame,
    numbers: Sequence[int],
    affixes: Affixes,
    reader: ReaderSpec,
    tokenise: Tokenise,
    progress: Progress,
) -> Readings:
    """Tokenises prompts, in blocks.

    Args:
        prompts: Columns messages (JSON) and response of all prompts.
        numbers: Rows of `prompts` to read.
        affixes: What is left out of each prompt's asking message.
        reader: Template, scope and token limit.
        tokenise: The reader's tokenizer.
        progress: Told after every block.
    """
    accepted = FrameBuilder(READINGS_SCHEMA)
    unusable: dict[int, tuple[str, str]] = {}
    n_without_prefix = n_without_suffix = 0
    for start in range(0, len(numbers), _BLOCK_PROMPTS):
        block = numbers[start : start + _BLOCK_PROMPTS]
        rows = prompts[block]
        conversations: list[Messages] = [json.loads(messages) for messages in rows["messages"]]
        asked = [messages[asking_message(messages)]["content"] for messages in conversations]
        n_without_prefix += sum(map(affixes.lacks_prefix, asked))
        n_without_suffix += sum(map(affixes.lacks_suffix, asked))
        read = [_with_asked(*pair) for pair in zip(conversations, map(affixes.strip, asked), strict=True)]
        texts = ["\n".join(message["content"] for message in messages) for messages in read]
        responses = rows["response"].to_list() if reader.scope != "prompt" else [None] * len(block)
        tokenised = tokenise(read if reader.template == "chat" else texts, responses)
        for number, text, tokens in zip(block, texts, tokenised, strict=True):
            if problem := _problem(tokens, reader):
                unusable[number] = problem
            else:
                identity = text_id(tokens, reader)
                accepted.add(number, text, identity, tokens.token_ids, len(tokens.token_ids), tokens.n_prefix_tokens)
        progress(start + len(block), len(numbers), unit="prompts")
    return Readings(accepted.frame(), unusable, n_without_prefix, n_without_suffix)


def text_id(tokens: TokenisedText, reader: ReaderSpec) -> str:
    """Identity of what is read: the first 32 hex digits of the SHA-256 over its ids as little-endian uint32.

    Where only the response's tokens are pooled, their start decides the features too, and enters the hash.
    """
    ids = [*tokens.token_ids, tokens.n_prefix_tokens] if reader.scope == "response" else tokens.token_ids
    return hashlib.sha256(np.asarray(ids, dtype="<u4").tobytes()).hexdigest()[:ID_HEX_DIGITS]


def _with_asked(messages: Messages, content: str) -> Messages:
    """The messages with another content of the asking one."""
    asking = asking_message(messages)
    return [{**message, "content": content} if place == asking else message for place, message in enumerate(messages)]


def _problem(tokens: TokenisedText, reader: ReaderSpec) -> tuple[str, str] | None:
    """Why a text cannot be read, as code and reason."""
    n_tokens = len(tokens.token_ids)
    if n_tokens > reader.max_tokens:
        limit = f"reader.max_tokens = {reader.max_tokens:,}"
        return "too_long", f"{n_tokens:,} tokens, over {limit}. Raise it or shorten the text."
    n_pooled = n_tokens - tokens.n_prefix_tokens if reader.scope == "response" else n_tokens
    if n_pooled <= 0:
        return (
            "no_tokens",
            "The tokenizer makes no token of what is to be read. Look for invisible characters.",
        )
    return None
