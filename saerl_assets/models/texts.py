"""Texts to read, the shards they are kept in and the batches they are read in.

Belongs here: which texts are read together. Does not belong here: reading them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

MAX_PADDING_FRACTION = 0.03
"""Share of a batch that padding may take where there are enough texts to choose from."""

MAX_SHARD_TOKENS = 1 << 18
"""A shard of long texts has fewer of them: its activations and rows are in memory at once when an SAE is trained."""

TokenIds: TypeAlias = Sequence[int] | NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False, slots=True)
class Text:
    """One text to read.

    `token_ids` may be a view into the ids of all texts. `first_pooled` is the index of the first token that counts: 0,
    or where the response starts.
    """

    text_id: str
    token_ids: TokenIds
    first_pooled: int = 0


@dataclass(frozen=True)
class Shard:
    """Texts that are kept together, shortest first. Its rows are a function of its texts and the token budget."""

    shard_id: str
    texts: tuple[Text, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens of all its texts."""
        return sum(len(text.token_ids) for text in self.texts)


def plan_shards(texts: Sequence[Text], *, texts_per_shard: int) -> list[Shard]:
    """Cuts texts into shards in the order of their ids, which are hashes: every shard is a random sample.

    Within a shard the texts are sorted by length, so that a batch has little padding. A shard has `texts_per_shard`
    texts, or fewer where they have more than MAX_SHARD_TOKENS tokens.
    """
    shards, chosen, n_tokens = [], list[Text](), 0
    for text in sorted(texts, key=lambda text: text.text_id):
        length = len(text.token_ids)
        if chosen and (len(chosen) == texts_per_shard or n_tokens + length > MAX_SHARD_TOKENS):
            shards.append(_shard(chosen))
            chosen, n_tokens = [], 0
        chosen.append(text)
        n_tokens += length
    return [*shards, _shard(chosen)] if chosen else shards


def batches(texts: Sequence[Text], token_budget: int) -> Iterator[Sequence[Text]]:
    """Cuts texts, sorted by length, into batches of similar length; see `batch_end`."""
    start = 0
    while start < len(texts):
        end = batch_end(texts, start, token_budget)
        yield texts[start:end]
        start = end


def batch_end(texts: Sequence[Text], start: int, token_budget: int) -> int:
    """Where the batch that begins at `start` ends, for texts sorted by length.

    A batch has at most `token_budget` tokens with its padding, or is one text. Once it holds a quarter of the budget,
    a text that would bring the padding over MAX_PADDING_FRACTION starts the next one.
    """
    n_tokens = 0
    for place in range(start, len(texts)):
        length = len(texts[place].token_ids)
        padded = (place + 1 - start) * length
        wasted = padded - (n_tokens + length)
        too_much_waste = 4 * n_tokens > token_budget and wasted > MAX_PADDING_FRACTION * padded
        if place > start and (padded > token_budget or too_much_waste):
            return place
        n_tokens += length
    return len(texts)


def _shard(texts: Sequence[Text]) -> Shard:
    sha = hashlib.sha256("\n".join(f"{text.text_id} {text.first_pooled}" for text in texts).encode())
    by_length = sorted(texts, key=lambda text: (len(text.token_ids), text.text_id))
    return Shard(sha.hexdigest()[:32], tuple(by_length))
