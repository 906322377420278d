"""Shards, batches and pooling, against loops that anybody can read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.activations import ActivationCache, sink_threshold, without_sinks
from saerl_assets.models.extraction import (
    MAX_PADDING_FRACTION,
    Activations,
    Shard,
    Text,
    batches,
    plan_shards,
    pool_shard,
    read_shard,
)
from saerl_assets.models.saes import TopKEncoder

D_MODEL, N_LATENTS, K = 8, 24, 3


def encoder(seed: int = 0) -> TopKEncoder:
    generator = torch.Generator().manual_seed(seed)
    weights = {
        "W_enc": torch.randn(D_MODEL, N_LATENTS, generator=generator),
        "W_dec": torch.randn(N_LATENTS, D_MODEL, generator=generator),
        "b_enc": torch.randn(N_LATENTS, generator=generator),
        "b_dec": torch.randn(D_MODEL, generator=generator),
    }
    return TopKEncoder({"k": K, "apply_b_dec_to_input": True}, weights, "cpu")


class LookUp:
    """A reader whose activations are a function of the token id and its place, and that counts its passes."""

    def __init__(self, scale: float = 1.0) -> None:
        self.table = torch.randn(64, D_MODEL, generator=torch.Generator().manual_seed(1)) * scale
        self.n_passes = 0

    def read(self, token_ids: Sequence[Sequence[int]]) -> dict[int, torch.Tensor]:
        self.n_passes += 1
        return {5: torch.cat([self.table[torch.tensor(list(ids))] for ids in token_ids])}


texts_strategy = st.lists(
    st.tuples(st.lists(st.integers(0, 63), min_size=1, max_size=12), st.integers(0, 3)), min_size=1, max_size=20
).map(lambda rows: [Text(f"{place:04d}", ids, min(first, len(ids) - 1)) for place, (ids, first) in enumerate(rows)])


@given(texts_strategy, st.integers(1, 6), st.integers(0, 100))
def test_shards_hold_every_text_once_whatever_the_order(texts: list[Text], size: int, seed: int) -> None:
    shuffled = [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]
    shards = plan_shards(texts, texts_per_shard=size)
    assert plan_shards(shuffled, texts_per_shard=size) == shards
    assert sorted(text.text_id for shard in shards for text in shard.texts) == [text.text_id for text in texts]
    assert all(len(shard.texts) <= size for shard in shards)
    assert len({shard.shard_id for shard in shards}) == len(shards)


@given(texts_strategy, st.integers(1, 40))
def test_batches_keep_to_the_budget(texts: list[Text], budget: int) -> None:
    ordered = sorted(texts, key=lambda text: len(text.token_ids))
    found = list(batches(ordered, budget))
    assert [text for batch in found for text in batch] == ordered
    for batch in found:
        padded = len(batch) * max(len(text.token_ids) for text in batch)
        assert padded <= budget or len(batch) == 1


@settings(deadline=None, max_examples=40)
@given(texts_strategy, st.floats(1.0, 6.0))
def test_pooling_equals_a_loop_over_tokens(texts: list[Text], threshold: float) -> None:
    (shard,) = plan_shards(texts, texts_per_shard=len(texts))
    reader, sae = LookUp(), encoder()
    rows = pool_shard(read_shard(reader, shard, token_budget=16), shard, {5: sae}, {5: threshold})
    features = {row["text_id"]: row for row in rows.features[5].to_pylist()}
    states = {row["text_id"]: row for row in rows.states[5].to_pylist()}
    for text in texts:
        expected, n_tokens, n_sinks = _by_loop(text, reader.table, sae, threshold)
        row = features[text.text_id]
        assert (row["n_tokens"], row["n_sink_tokens"]) == (n_tokens, n_sinks)
        assert row["feature_ids"] == sorted(expected)
        for place, latent in enumerate(row["feature_ids"]):
            values = expected[latent]
            assert row["max"][place] == pytest.approx(max(value for _, value in values), abs=1e-4)
            assert row["sum"][place] == pytest.approx(sum(value for _, value in values), abs=1e-3)
            assert row["n_active"][place] == len(values)
            assert dict(values)[row["argmax_token"][place]] == pytest.approx(row["max"][place], abs=1e-4)
        last = reader.table[text.token_ids[-1]].tolist()
        assert states[text.text_id]["last"] == pytest.approx(last, abs=1e-6)


def _by_loop(
    text: Text, table: torch.Tensor, sae: TopKEncoder, threshold: float
) -> tuple[dict[int, list[tuple[int, float]]], int, int]:
    found: dict[int, list[tuple[int, float]]] = {}
    n_tokens = n_sinks = 0
    for place, token in enumerate(text.token_ids):
        if place < text.first_pooled:
            continue
        state = table[token]
        if float(state.norm()) > threshold:
            n_sinks += 1
            continue
        n_tokens += 1
        pre = (state - sae._b_dec) @ sae._w_enc + sae._b_enc
        for latent in pre.topk(K).indices.tolist():
            if pre[latent] > 0:
                found.setdefault(latent, []).append((place, float(pre[latent])))
    return found, n_tokens, n_sinks


def test_a_text_of_sinks_alone_has_an_empty_row() -> None:
    (shard,) = plan_shards([Text("a", [1, 2]), Text("b", [3])], texts_per_shard=2)
    rows = pool_shard(read_shard(LookUp(), shard, token_budget=8), shard, {5: encoder()}, {5: 0.0})
    for row in rows.features[5].to_pylist():
        assert row["feature_ids"] == []
        assert row["n_tokens"] == 0
        assert row["n_sink_tokens"] > 0
    assert all(value == 0.0 for row in rows.states[5].to_pylist() for value in row["mean"])


def test_activations_that_are_not_finite_name_the_text() -> None:
    reader = LookUp()
    reader.table[7] = float("nan")
    (shard,) = plan_shards([Text("fine", [1, 2, 3]), Text("broken", [1, 7])], texts_per_shard=2)
    with pytest.raises(SaerlError, match="broken"):
        read_shard(reader, shard, token_budget=8)


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    class Small(LookUp):
        def read(self, token_ids: Sequence[Sequence[int]]) -> dict[int, torch.Tensor]:
            if len(token_ids) > 2:
                raise torch.cuda.OutOfMemoryError
            return super().read(token_ids)

    (shard,) = plan_shards([Text(f"{i}", [i, i + 1]) for i in range(7)], texts_per_shard=7)
    found, whole = read_shard(Small(), shard, token_budget=100), read_shard(LookUp(), shard, token_budget=100)
    assert torch.equal(found.layers[5], whole.layers[5])


def test_one_text_too_large_for_the_memory_says_what_to_do() -> None:
    class Full(LookUp):
        def read(self, token_ids: Sequence[Sequence[int]]) -> dict[int, torch.Tensor]:  # noqa: ARG002
            raise torch.cuda.OutOfMemoryError

    (shard,) = plan_shards([Text("long", [1] * 9)], texts_per_shard=1)
    with pytest.raises(SaerlError, match="max_tokens"):
        read_shard(Full(), shard, token_budget=100)


def rows_from(activations: Activations, shard: Shard) -> bytes:
    rows = pool_shard(activations, shard, {5: encoder()}, {5: 4.0})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.features[5].schema) as writer:
        writer.write_table(rows.features[5])
    return bytes(sink.getvalue().to_pybytes())


def test_rows_from_the_cache_are_the_very_rows_of_a_fresh_pass(tmp_path: Path) -> None:
    (shard,) = plan_shards([Text(f"{i}", [i, i + 1, 3]) for i in range(9)], texts_per_shard=9)
    reader, cache = LookUp(), ActivationCache(tmp_path)
    fresh = read_shard(reader, shard, token_budget=12)
    kept = cache.get_or_read(reader, shard, token_budget=12)
    passes = reader.n_passes
    again = cache.get_or_read(reader, shard, token_budget=12)
    assert reader.n_passes == passes
    assert rows_from(fresh, shard) == rows_from(kept, shard) == rows_from(again, shard)


def test_a_truncated_cache_file_is_read_again(tmp_path: Path) -> None:
    (shard,) = plan_shards([Text("a", [1, 2, 3])], texts_per_shard=1)
    reader, cache = LookUp(), ActivationCache(tmp_path)
    cache.get_or_read(reader, shard, token_budget=12)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-4])
    assert cache.get(shard) is None
    assert len(cache.get_or_read(reader, shard, token_budget=12).layers[5]) == 3


def test_a_disk_that_refuses_the_cache_is_named_and_keeps_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("saerl_assets.models.activations.save_file", full)
    (shard,) = plan_shards([Text("a", [1, 2, 3])], texts_per_shard=1)
    with pytest.raises(SaerlError) as caught:
        ActivationCache(tmp_path).get_or_read(LookUp(), shard, token_budget=12)
    assert caught.value.code == "disk_full"
    assert list(tmp_path.iterdir()) == []


def test_half_precision_activations_come_back_as_they_were(tmp_path: Path) -> None:
    (shard,) = plan_shards([Text("a", [1, 2, 3])], texts_per_shard=1)
    states = torch.randn(3, D_MODEL).bfloat16()
    cache = ActivationCache(tmp_path)
    cache.put(shard, Activations({5: states, 7: states * 2}))
    kept = cache.get(shard)
    assert kept is not None
    assert sorted(kept.layers) == [5, 7]
    assert kept.layers[5].dtype == torch.bfloat16
    assert torch.equal(kept.layers[5], states)


def test_the_sink_threshold_is_a_multiple_of_the_median_norm() -> None:
    ordinary = torch.nn.functional.normalize(torch.randn(99, D_MODEL), dim=-1) * 2
    sink = torch.full((1, D_MODEL), 100.0)
    blocks = [ordinary[:50], torch.cat([ordinary[50:], sink])]
    threshold = sink_threshold(blocks, 10.0)
    assert threshold == pytest.approx(20.0, rel=1e-4)
    assert len(without_sinks(blocks, threshold)) == 99


@settings(deadline=None)
@given(texts_strategy, st.integers(16, 200))
def test_padding_stays_small_where_there_are_texts_to_choose_from(texts: list[Text], budget: int) -> None:
    ordered = sorted(texts, key=lambda text: len(text.token_ids))
    for batch in batches(ordered, budget):
        n_tokens = sum(len(text.token_ids) for text in batch)
        without_last = n_tokens - len(batch[-1].token_ids)
        padded = len(batch) * len(batch[-1].token_ids)
        assert 4 * without_last <= budget or padded - n_tokens <= MAX_PADDING_FRACTION * padded


def test_an_empty_text_is_not_read_and_has_an_empty_row() -> None:
    (shard,) = plan_shards([Text("a", []), Text("b", [3, 4]), Text("c", [])], texts_per_shard=3)
    rows = pool_shard(read_shard(LookUp(), shard, token_budget=8), shard, {5: encoder()}, {5: 1e9})
    counts = {row["text_id"]: (row["n_tokens"], len(row["feature_ids"]) > 0) for row in rows.features[5].to_pylist()}
    assert counts == {"a": (0, False), "b": (2, True), "c": (0, False)}


def test_seconds_tell_the_parts() -> None:
    (shard,) = plan_shards([Text("b", [3, 4])], texts_per_shard=3)
    rows = pool_shard(read_shard(LookUp(), shard, token_budget=8), shard, {5: encoder()}, {5: 1e9})
    assert rows.seconds.keys() == {"encoding", "pooling"}
    assert all(seconds > 0 for seconds in rows.seconds.values())
