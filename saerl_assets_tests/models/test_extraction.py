"""From texts to rows, against loops that anybody can read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, LlamaConfig

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.device import TokenBudget
from saerl_assets.models.extraction import Activations, ReadsBatches, ShardRows, extract_shards, pool_shard, read_shard
from saerl_assets.models.reader import Reader
from saerl_assets.models.saes import TopKEncoder
from saerl_assets.models.sources import ModelFiles
from saerl_assets.models.texts import Shard, Text, plan_shards
from saerl_assets_tests.models.readers import D_MODEL, N_LATENTS, K, LookUp, encoder, texts_strategy

LAYER = 5


def one_shard(texts: Sequence[Text]) -> Shard:
    (shard,) = plan_shards(texts, texts_per_shard=len(texts))
    return shard


def rows_of(
    source: ReadsBatches | Activations, texts: Sequence[Text], *, threshold: float = 4.0, budget: int = 16
) -> ShardRows:
    return pool_shard(source, one_shard(texts), {LAYER: encoder()}, {LAYER: threshold}, budget=TokenBudget(budget))


def as_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


@settings(max_examples=40)
@given(texts_strategy(), st.floats(1.0, 6.0), st.integers(1, 60))
def test_rows_equal_a_loop_over_tokens(texts: list[Text], threshold: float, budget: int) -> None:
    reader, sae = LookUp(), encoder()
    rows = rows_of(reader, texts, threshold=threshold, budget=budget)
    features = {row["text_id"]: row for row in rows.features[LAYER].to_pylist()}
    states = {row["text_id"]: row for row in rows.states[LAYER].to_pylist()}
    assert features.keys() == states.keys() == {text.text_id for text in texts}
    for text in texts:
        table = reader.tables[LAYER]
        expected, kept, n_sinks = by_loop(text, table, sae, threshold)
        row = features[text.text_id]
        assert (row["n_tokens"], row["n_sink_tokens"]) == (len(kept), n_sinks)
        assert row["feature_ids"] == sorted(expected)
        for place, latent in enumerate(row["feature_ids"]):
            values = expected[latent]
            assert row["max"][place] == pytest.approx(max(values.values()), abs=1e-4)
            assert row["sum"][place] == pytest.approx(sum(values.values()), abs=1e-3)
            assert row["last"][place] == pytest.approx(values.get(len(text.token_ids) - 1, 0.0), abs=1e-4)
            assert row["n_active"][place] == len(values)
            assert values[row["argmax_token"][place]] == pytest.approx(row["max"][place], abs=1e-4)
        zeros = torch.zeros(D_MODEL)
        mean = torch.stack([table[text.token_ids[place]] for place in kept]).mean(dim=0) if kept else zeros
        last = table[text.token_ids[-1]] if len(text.token_ids) else zeros
        assert states[text.text_id]["mean"] == pytest.approx(mean.tolist(), abs=1e-5)
        assert states[text.text_id]["last"] == last.tolist()


def by_loop(
    text: Text, table: torch.Tensor, sae: TopKEncoder, threshold: float
) -> tuple[dict[int, dict[int, float]], list[int], int]:
    """By active latent its value at each place; the places that count; the number of sinks."""
    found: dict[int, dict[int, float]] = {}
    kept, n_sinks = [], 0
    for place, token in enumerate(text.token_ids):
        if place < text.first_pooled:
            continue
        state = table[token]
        if float(state.norm()) > threshold:
            n_sinks += 1
            continue
        kept.append(place)
        pre = (state - sae._b_dec) @ sae._w_enc + sae._b_enc
        for latent in pre.topk(K).indices.tolist():
            if pre[latent] > 0:
                found.setdefault(latent, {})[place] = float(pre[latent])
    return found, kept, n_sinks


@settings(max_examples=25)
@given(texts_strategy(), st.integers(1, 5))
def test_tokens_before_the_first_that_an_sae_was_trained_on_do_not_count(texts: list[Text], first: int) -> None:
    trained_from, shard = encoder(), one_shard(texts)
    trained_from.first_position = first
    rows = pool_shard(LookUp(), shard, {LAYER: trained_from}, {LAYER: 4.0}, budget=TokenBudget(16))
    later = [Text(text.text_id, text.token_ids, max(text.first_pooled, first)) for text in shard.texts]
    expected = rows_of(LookUp(), later)
    assert rows.features[LAYER].equals(expected.features[LAYER])
    assert rows.states[LAYER].equals(expected.states[LAYER])


def test_a_text_of_sinks_alone_has_an_empty_row() -> None:
    rows = rows_of(LookUp(), [Text("a", [1, 2]), Text("b", [3])], threshold=0.0)
    for row in rows.features[LAYER].to_pylist():
        assert row["feature_ids"] == []
        assert row["n_tokens"] == 0
        assert row["n_sink_tokens"] > 0
    assert all(value == 0.0 for row in rows.states[LAYER].to_pylist() for value in row["mean"])


@pytest.mark.parametrize("budget", [1, 100])
def test_a_text_without_tokens_is_not_read_and_has_an_empty_row(budget: int) -> None:
    rows = rows_of(LookUp(), [Text("a", []), Text("b", [3, 4]), Text("c", [])], threshold=1e9, budget=budget)
    counts = {row["text_id"]: (row["n_tokens"], len(row["max"]) > 0) for row in rows.features[LAYER].to_pylist()}
    assert counts == {"a": (0, False), "b": (2, True), "c": (0, False)}
    assert [row["mean"] for row in rows.states[LAYER].to_pylist()][:2] == [[0.0] * D_MODEL] * 2


def test_texts_that_all_have_no_tokens_need_no_reader() -> None:
    reader = LookUp()
    shard = one_shard([Text("a", []), Text("b", [])])
    assert read_shard(reader, shard, budget=TokenBudget(9)).layers == {}
    assert rows_of(reader, shard.texts).features[LAYER]["n_tokens"].to_pylist() == [0, 0]
    assert reader.passes == []


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("budget", [1, 3, 100])
def test_activations_that_are_not_finite_name_the_text(damage: float, budget: int) -> None:
    reader = LookUp()
    reader.tables[LAYER][7, 2] = damage
    texts = [Text("fine", [1, 2, 3]), Text("broken", [7, 1]), Text("empty", []), Text("sound", [4])]
    with pytest.raises(SaerlError, match="text_id broken") as caught:
        rows_of(reader, texts, budget=budget)
    assert caught.value.code == "activations_not_finite"
    with pytest.raises(SaerlError, match="text_id broken"):
        read_shard(reader, one_shard(texts), budget=TokenBudget(budget))


@settings(max_examples=25)
@given(texts_strategy(), st.integers(1, 60))
def test_kept_activations_give_the_very_rows_of_a_fresh_pass(texts: list[Text], budget: int) -> None:
    kept = read_shard(LookUp(), one_shard(texts), budget=TokenBudget(budget))
    fresh, again = rows_of(LookUp(), texts, budget=budget), rows_of(kept, texts, budget=budget)
    assert as_bytes(fresh.features[LAYER]) == as_bytes(again.features[LAYER])
    assert as_bytes(fresh.states[LAYER]) == as_bytes(again.states[LAYER])


def test_each_layer_has_its_own_sae_and_threshold() -> None:
    reader, shard = LookUp(layers=(5, 7)), one_shard([Text("a", [1, 2, 3])])
    both = pool_shard(reader, shard, {5: encoder(), 7: encoder(1)}, {5: 4.0, 7: 2.5}, budget=TokenBudget(9))
    assert len(reader.passes) == 1
    alone = pool_shard(reader, shard, {7: encoder(1)}, {7: 2.5}, budget=TokenBudget(9))
    assert both.features[7].equals(alone.features[7])
    assert not both.features[7].equals(both.features[5])


# ---------------------------------------------------------------- neighbours


def tiny_model(dtype: torch.dtype = torch.float32) -> Reader:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    config = LlamaConfig(**sizes, num_attention_heads=4)
    model = AutoModel.from_config(config, dtype=dtype).eval()  # type: ignore[no-untyped-call]
    return Reader(model, model.layers, [1], ModelFiles("path:tiny", None, None, "tiny", None))  # type: ignore[arg-type]


@settings(max_examples=20)
@given(texts_strategy(min_tokens=1), st.integers(1, 100))
def test_a_row_does_not_depend_on_the_texts_beside_it_nor_on_padding(texts: list[Text], budget: int) -> None:
    """The sums are the same, in an order that depends on the batch: 1e-5 in float32."""
    reader = tiny_model()
    together = read_shard(reader, one_shard(texts), budget=TokenBudget(budget)).layers[1]
    alone = [reader.read([text.token_ids])[1] for text in one_shard(texts).texts]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_the_rows_of_a_model_are_the_same_bytes_again() -> None:
    rng = np.random.default_rng(0)
    sae = TopKEncoder(
        {"architecture": "topk", "k": K},
        {
            "W_enc": torch.randn(32, N_LATENTS),
            "W_dec": torch.randn(N_LATENTS, 32),
            "b_enc": torch.zeros(N_LATENTS),
            "b_dec": torch.zeros(32),
        },
        "cpu",
    )
    shard = one_shard([Text(f"{n}", rng.integers(0, 64, n, dtype=np.int32)) for n in range(1, 30)])
    rows = [pool_shard(tiny_model(), shard, {1: sae}, {1: 1e9}, budget=TokenBudget(64)) for _ in range(2)]
    assert as_bytes(rows[0].features[1]) == as_bytes(rows[1].features[1])
    assert as_bytes(rows[0].states[1]) == as_bytes(rows[1].states[1])


# ---------------------------------------------------------------- memory


def test_out_of_memory_halves_the_budget_for_all_later_batches() -> None:
    texts = [Text(f"{number:02d}", [number, number + 1]) for number in range(40)]
    reader, remembered = LookUp(too_many_tokens=20), list[int]()
    budget = TokenBudget(64, remembered.append)
    found = read_shard(reader, one_shard(texts), budget=budget)
    assert [2 * len(lengths) for lengths in reader.passes] == [16, 64, 32, 16, 16, 16, 16]
    assert remembered == [32, 16]
    assert (budget.planned, budget.tokens) == (64, 16)
    whole = read_shard(LookUp(), one_shard(texts), budget=TokenBudget(100))
    assert torch.equal(found.layers[LAYER], whole.layers[LAYER])
    read_shard(reader, one_shard(texts[:8]), budget=budget)
    assert reader.passes[-1] == [2] * 8


def test_a_batch_far_below_the_budget_that_does_not_fit_sets_the_budget() -> None:
    budget = TokenBudget(10_000)
    read_shard(
        LookUp(too_many_tokens=6), one_shard([Text("a", [1, 2]), Text("b", [3, 4]), Text("c", [5, 6])]), budget=budget
    )
    assert budget.tokens == 3


def test_memory_that_encoding_lacks_is_found_too() -> None:
    class Narrow(TopKEncoder):
        def _encode(self, states: torch.Tensor):  # type: ignore[no-untyped-def]  # noqa: ANN202
            if len(states) > 8:
                raise torch.OutOfMemoryError
            return super()._encode(states)

    narrow = encoder()
    narrow.__class__ = Narrow
    shard, budget = one_shard([Text(f"{number:02d}", [number, 3]) for number in range(20)]), TokenBudget(64)
    rows = pool_shard(LookUp(), shard, {LAYER: narrow}, {LAYER: 4.0}, budget=budget)
    assert budget.tokens <= 8
    assert rows.features[LAYER].equals(rows_of(LookUp(), shard.texts, budget=budget.tokens).features[LAYER])


def test_one_text_too_large_for_the_memory_says_what_to_do() -> None:
    with pytest.raises(SaerlError, match="max_tokens") as caught:
        rows_of(LookUp(too_many_tokens=1), [Text("long", [1] * 9)], budget=100)
    assert caught.value.code == "out_of_memory"
    assert "long" in str(caught.value)


# ---------------------------------------------------------------- shard after shard


def extracted(
    shards: Sequence[Shard], write: Callable[[Shard, ShardRows], None], reader: ReadsBatches | None = None
) -> list[tuple[Shard, dict[str, float]]]:
    found = extract_shards(
        shards,
        lambda _shard: reader or LookUp(),
        {LAYER: encoder()},
        {LAYER: 4.0},
        budget=TokenBudget(16),
        write=write,
    )
    return list(found)


def some_shards() -> list[Shard]:
    return plan_shards([Text(f"{number:02d}", [number, number + 1]) for number in range(20)], texts_per_shard=4)


def test_shards_are_written_in_their_order_with_the_rows_of_each_alone() -> None:
    shards, written = some_shards(), list[tuple[Shard, ShardRows]]()
    found = extracted(shards, lambda shard, rows: written.append((shard, rows)))
    assert [shard for shard, _ in found] == [shard for shard, _ in written] == shards
    for shard, rows in written:
        alone = rows_of(LookUp(), shard.texts)
        assert as_bytes(rows.features[LAYER]) == as_bytes(alone.features[LAYER])
        assert as_bytes(rows.states[LAYER]) == as_bytes(alone.states[LAYER])


def test_seconds_tell_the_parts() -> None:
    for _, seconds in extracted(some_shards(), lambda _shard, _rows: time.sleep(0.01)):
        assert seconds.keys() == {"reading", "encoding", "pooling", "writing"}
        assert all(passed > 0 for passed in seconds.values())
        assert seconds["writing"] >= 0.01


def test_a_shard_is_written_while_the_next_is_read_and_no_more_than_one_waits() -> None:
    second_is_read, main = threading.Event(), threading.current_thread()
    events: list[str] = []

    class Noting(LookUp):
        def read(self, token_ids):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            events.append("read")
            if events.count("read") == 2:
                second_is_read.set()
            return super().read(token_ids)

    def write(_shard: Shard, _rows: ShardRows) -> None:
        assert threading.current_thread() is not main
        assert second_is_read.wait(10)
        time.sleep(0.02)
        events.append("written")

    extracted(some_shards(), write, Noting())
    for place in range(len(events)):
        ahead = events[: place + 1].count("read") - events[: place + 1].count("written")
        assert ahead <= 2
    assert events.count("read") == events.count("written") == 5


def test_what_goes_wrong_in_writing_is_raised_and_ends_the_reading() -> None:
    reader, shards = LookUp(), some_shards()

    def write(shard: Shard, _rows: ShardRows) -> None:
        if shard is shards[1]:
            raise SaerlError("disk_full", "No room.", where="here", remedy="Make some.")

    with pytest.raises(SaerlError, match="No room"):
        extracted(shards, write, reader)
    assert len(reader.passes) == 3


def test_what_goes_wrong_in_reading_leaves_the_shard_before_written() -> None:
    shards, written = some_shards(), list[Shard]()
    reader = LookUp()
    reader.tables[LAYER][10] = float("nan")
    with pytest.raises(SaerlError, match="text_id 09"):
        extracted(shards, lambda shard, _rows: written.append(shard), reader)
    assert written == shards[:2]
