"""From texts to rows: shards of texts, batches within them, what is read and what is made of it.

Belongs here: what one shard's rows are. Does not belong here: the reductions (pooling), where shards are kept.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import torch

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.pooling import PackedTexts, pool_features, pool_states
from saerl_assets.models.saes import Encoder

MAX_PADDING_FRACTION = 0.03
"""Share of a batch that padding may take where there are enough texts to choose from."""


@dataclass(frozen=True)
class Text:
    """One text to read.

    `first_pooled` is the index of the first token that counts: 0, or where the response starts.
    """

    text_id: str
    token_ids: Sequence[int]
    first_pooled: int = 0


@dataclass(frozen=True)
class Shard:
    """Texts that are read together. Its rows are a function of its texts alone."""

    shard_id: str
    texts: tuple[Text, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens of all its texts."""
        return sum(len(text.token_ids) for text in self.texts)


@dataclass(frozen=True)
class Activations:
    """Activations of a shard's texts, text after text in the shard's order: layer -> [n_tokens, d_model]."""

    layers: Mapping[int, torch.Tensor]


@dataclass
class ShardRows:
    """Rows of one shard: by layer the columns of `prompt_features` and of `prompt_states`, ids apart."""

    features: dict[int, pa.Table]
    states: dict[int, pa.Table]
    seconds: dict[str, float] = field(default_factory=dict)


class ReadsBatches(Protocol):
    """What a batch is read with: `saerl_assets.models.reader.Reader`."""

    def read(self, token_ids: Sequence[Sequence[int]]) -> dict[int, torch.Tensor]:
        """Activations of all tokens by layer."""


def plan_shards(texts: Sequence[Text], *, texts_per_shard: int) -> list[Shard]:
    """Cuts texts into shards in the order of their ids, which are hashes: every shard is a random sample.

    Within a shard the texts are sorted by length, so that a batch has little padding.
    """
    ordered = sorted(texts, key=lambda text: text.text_id)
    return [_shard(ordered[start : start + texts_per_shard]) for start in range(0, len(ordered), texts_per_shard)]


def read_shard(reader: ReadsBatches, shard: Shard, *, token_budget: int) -> Activations:
    """Runs the reader over a shard in batches of at most `token_budget` tokens, padding included.

    A batch that does not fit the device's memory is cut in half until it does.

    Raises:
        SaerlError: `activations_not_finite`, naming the text; `out_of_memory` if one text alone does not fit.
    """
    found: dict[int, list[torch.Tensor]] = {}
    for batch in batches([text for text in shard.texts if len(text.token_ids)], token_budget):
        for layer, states in _read(reader, batch).items():
            found.setdefault(layer, []).append(states)
    joined = {layer: torch.cat(parts) for layer, parts in sorted(found.items())}
    for layer, states in joined.items():
        _check_finite(states, layer, shard)
    return Activations(joined)


def pool_shard(
    activations: Activations,
    shard: Shard,
    encoders: Mapping[int, Encoder],
    sink_thresholds: Mapping[int, float],
) -> ShardRows:
    """Encodes a shard's activations and pools them per text.

    Tokens before `first_pooled` do not count, nor do attention sinks: those whose norm is above the layer's threshold.

    Args:
        activations: Of the shard, from a fresh pass or from the cache.
        shard: The texts.
        encoders: By layer its SAE.
        sink_thresholds: By layer the norm above which a token is a sink.
    """
    rows = ShardRows({}, {}, {"encoding": 0.0, "pooling": 0.0})
    for layer, encoder in encoders.items():
        states = activations.layers[layer]
        states = states.float() if states.is_cuda else states.float().cpu()
        texts = _packed(shard, states, sink_thresholds[layer])
        started = _now(states)
        sparse = encoder.encode(states[texts.kept]).to(states.device)
        encoded = _now(states)
        rows.features[layer] = pool_features(sparse, encoder.n_latents, texts)
        rows.states[layer] = pool_states(states, texts)
        rows.seconds["encoding"] += encoded - started
        rows.seconds["pooling"] += _now(states) - encoded
    return rows


def batches(texts: Sequence[Text], token_budget: int) -> Iterator[list[Text]]:
    """Cuts texts, sorted by length, into batches of similar length.

    A batch has at most `token_budget` tokens with its padding, or is one text. Once it holds a quarter of the budget,
    a text that would bring the padding over MAX_PADDING_FRACTION starts the next one.
    """
    batch: list[Text] = []
    n_tokens = 0
    for text in texts:
        length = len(text.token_ids)
        padded = (len(batch) + 1) * length
        wasted = padded - (n_tokens + length)
        too_much_waste = 4 * n_tokens > token_budget and wasted > MAX_PADDING_FRACTION * padded
        if batch and (padded > token_budget or too_much_waste):
            yield batch
            batch, n_tokens = [], 0
        batch.append(text)
        n_tokens += length
    if batch:
        yield batch


def _shard(texts: Sequence[Text]) -> Shard:
    sha = hashlib.sha256("\n".join(f"{text.text_id} {text.first_pooled}" for text in texts).encode())
    by_length = sorted(texts, key=lambda text: (len(text.token_ids), text.text_id))
    return Shard(sha.hexdigest()[:32], tuple(by_length))


def _packed(shard: Shard, states: torch.Tensor, sink_threshold: float) -> PackedTexts:
    lengths = torch.tensor([len(text.token_ids) for text in shard.texts])
    first = torch.tensor([text.first_pooled for text in shard.texts])
    place = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    in_scope = (place >= first.repeat_interleave(lengths)).to(states.device)
    kept = in_scope & (states.norm(dim=-1) <= sink_threshold)
    return PackedTexts([text.text_id for text in shard.texts], lengths.to(states.device), in_scope, kept)


def _now(states: torch.Tensor) -> float:
    """The time once all work on the tensor's device is done."""
    if states.is_cuda:
        torch.cuda.synchronize(states.device)
    return time.perf_counter()


def _read(reader: ReadsBatches, batch: list[Text]) -> dict[int, torch.Tensor]:
    try:
        return reader.read([text.token_ids for text in batch])
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        if len(batch) == 1:
            remedy = "Lower reader.max_tokens, use reader.dtype = 'bfloat16', or a device with more memory."
            problem = f"One text of {len(batch[0].token_ids)} tokens does not fit the device's memory."
            raise SaerlError("out_of_memory", problem, where=batch[0].text_id, remedy=remedy) from error
        half = len(batch) // 2
        left, right = _read(reader, batch[:half]), _read(reader, batch[half:])
        return {layer: torch.cat([left[layer], right[layer]]) for layer in left}


def _check_finite(states: torch.Tensor, layer: int, shard: Shard) -> None:
    bad = ~torch.isfinite(states).all(dim=-1)
    if bad.any():
        place, total = int(bad.nonzero()[0]), 0
        for text in shard.texts:
            total += len(text.token_ids)
            if place < total:
                remedy = "Set reader.dtype = 'float32'; if it stays, the model's weights are damaged."
                problem = f"The activations of layer {layer} are not finite for this text."
                raise SaerlError("activations_not_finite", problem, where=f"text_id {text.text_id}", remedy=remedy)
