"""From texts to rows: what is read of a shard, what is made of it, one shard after the other.

Belongs here: the way from a batch of texts to a shard's rows. Does not belong here: which texts are read together
(texts), the reductions (pooling), where shards are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import torch

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.device import Stopwatch, TokenBudget, release_memory, to_host, wait_for
from saerl_assets.models.pooling import (
    FeatureRows,
    PackedTexts,
    StateRows,
    features_table,
    on_host,
    pool_features,
    pool_states,
    states_table,
)
from saerl_assets.models.saes import Encoder
from saerl_assets.models.texts import Shard, Text, TokenIds, batches

Made = TypeVar("Made")


@dataclass(frozen=True)
class Activations:
    """Activations of a shard's texts, text after text in the shard's order: layer -> [n_tokens, d_model]."""

    layers: Mapping[int, torch.Tensor]


@dataclass
class ShardRows:
    """Rows of one shard: by layer the columns of `prompt_features` and of `prompt_states`, ids apart."""

    features: dict[int, pa.Table]
    states: dict[int, pa.Table]
    controls: dict[int, pa.Table] = field(default_factory=dict)
    """What control encoders make of the same tokens, like `features`."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of the device for `reading`, `encoding` and `pooling`."""


class ReadsBatches(Protocol):
    """What a batch is read with: `saerl_assets.models.reader.Reader`."""

    def read(self, token_ids: Sequence[TokenIds]) -> dict[int, torch.Tensor]:
        """Activations of all tokens by layer."""


def read_shard(reader: ReadsBatches, shard: Shard, *, budget: TokenBudget) -> Activations:
    """Runs the reader over a shard and gives its activations, on the host and in the reader's own number format.

    Raises:
        SaerlError: `activations_not_finite`, naming the text; `out_of_memory` if one text alone does not fit.
    """
    device = torch.device("cpu")

    def read(batch: Sequence[Text], _start: int) -> dict[int, torch.Tensor]:
        nonlocal device
        found = _read(reader, batch)
        device = next(iter(found.values())).device if found else device
        return {layer: to_host(states) for layer, states in found.items()}

    found = [layers for layers in _in_batches(shard.texts, budget, read) if layers]
    wait_for(device)
    joined = {layer: torch.cat([layers[layer] for layers in found]) for layer in (found[0] if found else ())}
    for layer, states in joined.items():
        _check_finite(torch.isfinite(_norms(states)), layer, shard)
    return Activations(joined)


def pool_shard(
    source: ReadsBatches | Activations,
    shard: Shard,
    encoders: Mapping[int, Encoder],
    sink_thresholds: Mapping[int, float],
    *,
    budget: TokenBudget,
    controls: Mapping[int, Encoder] | None = None,
) -> ShardRows:
    """Reads, encodes and pools a shard's texts; see `extract_shards`, which does it for many."""
    return _Pooled(source, shard, encoders, controls or {}, sink_thresholds, budget).rows()


def extract_shards(
    shards: Iterable[Shard],
    source: Callable[[Shard], ReadsBatches | Activations],
    encoders: Mapping[int, Encoder],
    sink_thresholds: Mapping[int, float],
    *,
    budget: TokenBudget,
    write: Callable[[Shard, ShardRows], None],
    controls: Mapping[int, Encoder] | None = None,
) -> Iterator[tuple[Shard, dict[str, float]]]:
    """Reads, encodes and pools shard after shard; a shard is turned into tables and written while the next is read.

    A shard is read in batches of at most the budget's tokens, padding included, and each batch is encoded and pooled
    before the next is read: no more than a batch of activations is in memory. A batch that does not fit the device's
    memory halves the budget, also for all later ones; see TokenBudget. Other texts in the batch change a row no further
    than other sums of the same numbers do.

    Tokens before `first_pooled` do not count, nor do those before the first position that the layer's SAE was trained
    on, nor attention sinks: those whose norm is above the layer's threshold.

    Args:
        shards: The shards.
        source: What a shard is read with: the reader, or the shard's activations where they are kept. Either gives
            the very same rows.
        encoders: By layer its SAE.
        sink_thresholds: By layer the norm above which a token is a sink.
        budget: Tokens in one pass.
        write: Keeps a shard's rows. It is called from another thread, for one shard after the other in their order.
        controls: By layer another SAE, whose features are wanted too.

    Yields:
        Each shard once it is written, with seconds by part: `reading`, `encoding` and `pooling` on the device, and
        `writing`, which passes beside them.

    Raises:
        SaerlError: `activations_not_finite`, naming the text; `out_of_memory` if one text alone does not fit; what
            `write` raises. Shards yielded before stay written.
    """

    def finish(pooled: _Pooled) -> tuple[Shard, dict[str, float]]:
        rows = pooled.rows()
        started = time.perf_counter()
        write(pooled.shard, rows)
        return pooled.shard, rows.seconds | {"writing": time.perf_counter() - started}

    with ThreadPoolExecutor(1, thread_name_prefix="shards") as background:
        in_flight: Future[tuple[Shard, dict[str, float]]] | None = None
        for shard in shards:
            pooled = _Pooled(source(shard), shard, encoders, controls or {}, sink_thresholds, budget)
            if in_flight is not None:
                yield in_flight.result()
            in_flight = background.submit(finish, pooled)
        if in_flight is not None:
            yield in_flight.result()


_OfBatch = tuple[FeatureRows, StateRows, torch.Tensor, FeatureRows | None]


class _Pooled:
    """A shard that is read, encoded and pooled, its rows on their way from the device."""

    def __init__(
        self,
        source: ReadsBatches | Activations,
        shard: Shard,
        encoders: Mapping[int, Encoder],
        controls: Mapping[int, Encoder],
        sink_thresholds: Mapping[int, float],
        budget: TokenBudget,
    ) -> None:
        self.shard = shard
        self._source, self._encoders, self._controls = source, encoders, controls
        self._sink_thresholds = sink_thresholds
        self._watch = Stopwatch(next(iter(encoders.values())).device)
        self._batches = list(_in_batches(shard.texts, budget, self._pool))
        self._watch.mark("pooling")

    def rows(self) -> ShardRows:
        """The rows, once the device has come so far."""
        seconds = {"reading": 0.0, "encoding": 0.0, "pooling": 0.0} | self._watch.seconds()
        ids = [text.text_id for text in self.shard.texts]
        rows = ShardRows({}, {}, seconds=seconds)
        for layer in self._encoders:
            features, states, finite, control = zip(*(batch[layer] for batch in self._batches), strict=True)
            _check_finite(torch.cat(finite), layer, self.shard)
            rows.features[layer], rows.states[layer] = features_table(ids, features), states_table(ids, states)
            if layer in self._controls:
                rows.controls[layer] = features_table(ids, control)
        return rows

    @torch.inference_mode()
    def _pool(self, batch: Sequence[Text], start: int) -> dict[int, _OfBatch]:
        lengths = np.array([len(text.token_ids) for text in batch])
        first_pooled = np.array([text.first_pooled for text in batch])
        if isinstance(self._source, Activations):
            kept, end = self._source.layers, start + int(lengths.sum())
            layers = {layer: states[start:end] for layer, states in kept.items()}
        else:
            layers = _read(self._source, batch)
        self._watch.mark("reading")
        found = {}
        for layer, encoder in self._encoders.items():
            states = layers[layer].to(encoder.device) if layers else torch.zeros(0, encoder.d_in, device=encoder.device)
            norms = _norms(states)
            first_in_scope = np.maximum(first_pooled, encoder.first_position)
            texts = PackedTexts.pack(lengths, first_in_scope, norms, self._sink_thresholds[layer])
            kept_states = states.index_select(0, texts.kept)
            self._watch.mark("pooling")
            sparse = encoder.encode(kept_states)
            self._watch.mark("encoding")
            features = pool_features(sparse, encoder.n_latents, texts)
            dense = pool_states(states, kept_states, texts)
            self._watch.mark("pooling")
            control = None
            if layer in self._controls:
                encoded = self._controls[layer].encode(kept_states)
                control = on_host(pool_features(encoded, self._controls[layer].n_latents, texts))
                self._watch.mark("control")
            found[layer] = (on_host(features), on_host(dense), to_host(torch.isfinite(norms)), control)
            self._watch.mark("pooling")
        return found


def _in_batches(
    texts: Sequence[Text], budget: TokenBudget, work: Callable[[Sequence[Text], int], Made]
) -> Iterator[Made]:
    """Works batch by batch. A batch that does not fit the device's memory is planned anew with half the budget.

    Args:
        texts: Texts sorted by length.
        budget: Tokens in one batch.
        work: What to do with a batch; it is told how many tokens came before.
    """
    start = n_tokens = 0
    while start < len(texts):
        for batch in batches(texts[start:], budget.tokens):
            made = _unless_out_of_memory(batch, n_tokens, work)
            if made is None:
                budget.shrink(len(batch) * len(batch[-1].token_ids))
                release_memory()
                break
            yield made[0]
            start += len(batch)
            n_tokens += sum(len(text.token_ids) for text in batch)


def _unless_out_of_memory(
    batch: Sequence[Text], n_tokens: int, work: Callable[[Sequence[Text], int], Made]
) -> tuple[Made] | None:
    """What `work` makes, or None: the error is left behind here, since it holds on to what was allocated."""
    try:
        return (work(batch, n_tokens),)
    except torch.OutOfMemoryError as error:
        if len(batch) > 1:
            return None
        remedy = "Lower reader.max_tokens, use reader.dtype = 'bfloat16', or a device with more memory."
        problem = f"One text of {len(batch[0].token_ids)} tokens does not fit the device's memory."
        raise SaerlError("out_of_memory", problem, where=f"text_id {batch[0].text_id}", remedy=remedy) from error


def _read(reader: ReadsBatches, batch: Sequence[Text]) -> dict[int, torch.Tensor]:
    """Activations by layer; a batch of empty texts has none."""
    token_ids = [text.token_ids for text in batch if len(text.token_ids)]
    return reader.read(token_ids) if token_ids else {}


def _norms(states: torch.Tensor) -> torch.Tensor:
    """Norm of each token, float32 [n_tokens]: not finite where any of its activations is not."""
    norms: torch.Tensor = torch.linalg.vector_norm(states, dim=-1, dtype=torch.float32)
    return norms


def _check_finite(finite: torch.Tensor, layer: int, shard: Shard) -> None:
    """Holds every token of a shard to be finite, bool [n_tokens]."""
    if bool(finite.all()):
        return
    ends = np.cumsum([len(text.token_ids) for text in shard.texts])
    text = shard.texts[int(np.searchsorted(ends, int((~finite).nonzero()[0]), side="right"))]
    remedy = "Set reader.dtype = 'float32'; if it stays, the model's weights are damaged."
    problem = f"The activations of layer {layer} are not finite for this text."
    raise SaerlError("activations_not_finite", problem, where=f"text_id {text.text_id}", remedy=remedy)
