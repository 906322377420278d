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

BATCH_COST_TOKENS = 16
BATCHES_IN_BUDGET = 256
"""Starting a batch is taken to cost as much as 16 tokens, which was measured on a processor, or this part of a larger
token budget: 256 tokens on a GPU, a millisecond."""

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
    """Cuts texts, sorted by length, into the batches that cost least: padding against the number of batches.

    A batch has at most `token_budget` tokens with its padding, or is one text. The best last batch of each first part
    of the texts follows from the best batches of all shorter parts, so that every way to cut is considered.
    """
    lengths = np.array([len(text.token_ids) for text in texts], dtype=np.int64)
    batch_cost = max(token_budget // BATCHES_IN_BUDGET, BATCH_COST_TOKENS)
    least, starts = np.zeros(len(texts) + 1, dtype=np.int64), np.zeros(len(texts) + 1, dtype=np.int64)
    for end, longest in enumerate(lengths, start=1):
        first = max(end - max(token_budget // longest, 1), 0) if longest else 0
        costs = least[first:end] + longest * np.arange(end - first, 0, -1)
        starts[end] = first + costs.argmin()
        least[end] = costs.min() + batch_cost
    ends = [len(texts)]
    while ends[-1]:
        ends.append(int(starts[ends[-1]]))
    for end, start in zip(ends[-2::-1], ends[::-1], strict=False):
        yield texts[start:end]


def _shard(texts: Sequence[Text]) -> Shard:
    sha = hashlib.sha256("\n".join(f"{text.text_id} {text.first_pooled}" for text in texts).encode())
    by_length = sorted(texts, key=lambda text: (len(text.token_ids), text.text_id))
    return Shard(sha.hexdigest()[:32], tuple(by_length))
