"""From texts to rows: shards of texts, batches within them, sparse features and dense states pooled over tokens.

Belongs here: what one shard's rows are. Does not belong here: where shards are kept.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.saes import Encoder

LARGEST_USHORT = 65_535
HELD_OUT_FRACTION = 0.05


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
    for batch in batches(shard.texts, token_budget):
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
    """
    started = time.perf_counter()
    rows = ShardRows({}, {})
    lengths = np.array([len(text.token_ids) for text in shard.texts])
    text_of_token = np.repeat(np.arange(len(lengths)), lengths)
    place_in_text = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    first = np.repeat([text.first_pooled for text in shard.texts], lengths)
    for layer, encoder in encoders.items():
        states = activations.layers[layer]
        norms = states.float().norm(dim=-1).cpu().numpy()
        in_scope = place_in_text >= first
        kept = in_scope & (norms <= sink_thresholds[layer])
        chosen = np.flatnonzero(kept)
        sparse = encoder.encode(states[torch.as_tensor(chosen, device=states.device)])
        n_tokens = np.bincount(text_of_token[chosen], minlength=len(lengths))
        n_sinks = np.bincount(text_of_token[in_scope & ~kept], minlength=len(lengths))
        token = chosen[sparse.token.cpu().numpy()]
        rows.features[layer] = _feature_table(
            shard,
            text_of_token[token],
            place_in_text[token],
            sparse.latent.cpu().numpy(),
            sparse.value.cpu().numpy(),
            encoder.n_latents,
            n_tokens,
            n_sinks,
        )
        rows.states[layer] = _state_table(shard, states.float().cpu().numpy(), kept, lengths)
    rows.seconds["encoding and pooling"] = time.perf_counter() - started
    return rows


def batches(texts: Sequence[Text], token_budget: int) -> Iterator[list[Text]]:
    """Consecutive texts, sorted by length, whose padded batch has at most `token_budget` tokens; at least one text."""
    batch: list[Text] = []
    for text in texts:
        if batch and (len(batch) + 1) * max(len(text.token_ids), len(batch[-1].token_ids)) > token_budget:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


def _shard(texts: Sequence[Text]) -> Shard:
    sha = hashlib.sha256("\n".join(f"{text.text_id} {text.first_pooled}" for text in texts).encode())
    by_length = sorted(texts, key=lambda text: (len(text.token_ids), text.text_id))
    return Shard(sha.hexdigest()[:32], tuple(by_length))


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


def _feature_table(
    shard: Shard,
    text: NDArray[np.int64],
    place: NDArray[np.int64],
    latent: NDArray[np.int64],
    value: NDArray[np.float32],
    n_latents: int,
    n_tokens: NDArray[np.int64],
    n_sinks: NDArray[np.int64],
) -> pa.Table:
    """One row per text: segment reductions over (text, latent), no dense array of texts x latents."""
    key = text * n_latents + latent
    order = np.argsort(key, kind="stable")  # keeps tokens in order within a segment
    key, value, place = key[order], value[order], place[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    counts = np.diff(starts, append=len(key))
    maximum = np.maximum.reduceat(value, starts) if len(starts) else np.zeros(0, np.float32)
    total = np.add.reduceat(value.astype(np.float64), starts) if len(starts) else np.zeros(0)
    is_max = np.flatnonzero(value == np.repeat(maximum, counts))
    first_max = is_max[np.searchsorted(is_max, starts)] if len(starts) else starts
    n_features = np.bincount(key[starts] // n_latents, minlength=len(shard.texts))
    offsets = pa.array(np.concatenate([[0], np.cumsum(n_features)]), pa.int32())

    def lists(values: NDArray[np.generic], kind: pa.DataType) -> pa.ListArray:
        return pa.ListArray.from_arrays(offsets, pa.array(values, kind))

    return pa.table(
        {
            "text_id": pa.array([each.text_id for each in shard.texts]),
            "n_tokens": pa.array(n_tokens, pa.uint32()),
            "n_sink_tokens": pa.array(n_sinks, pa.uint32()),
            "feature_ids": lists(key[starts] % n_latents, pa.uint32()),
            "max": lists(maximum, pa.float32()),
            "sum": lists(total.astype(np.float32), pa.float32()),
            "n_active": lists(np.minimum(counts, LARGEST_USHORT), pa.uint16()),
            "argmax_token": lists(np.minimum(place[first_max], LARGEST_USHORT), pa.uint16()),
        }
    )


def _state_table(
    shard: Shard, states: NDArray[np.float32], kept: NDArray[np.bool_], lengths: NDArray[np.int64]
) -> pa.Table:
    """Mean over the tokens that count, and the last token's state. A text without such tokens has a mean of zeros."""
    starts = np.cumsum(lengths) - lengths
    weights = kept.astype(np.float64)
    sums = np.add.reduceat(states.astype(np.float64) * weights[:, None], starts, axis=0)
    n_kept = np.add.reduceat(weights, starts)
    mean = sums / np.maximum(n_kept, 1.0)[:, None]
    last = states[starts + lengths - 1]
    offsets = pa.array(np.arange(len(lengths) + 1) * states.shape[1], pa.int32())
    return pa.table(
        {
            "text_id": pa.array([each.text_id for each in shard.texts]),
            "mean": pa.ListArray.from_arrays(offsets, pa.array(mean.astype(np.float32).ravel())),
            "last": pa.ListArray.from_arrays(offsets, pa.array(last.ravel())),
        }
    )
