"""Features through real shards and a real DuckDB file, held against the rows that went in."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.features import ENTRY_COLUMNS, FeatureRows, pool
from saerl_assets.domain.spec import Pooling
from saerl_assets.storage import feature_store, prompt_order
from saerl_assets.storage.duckdb_file import DuckdbFile
from saerl_assets.storage.feature_store import EncodedLayer, WarehouseFeatures
from saerl_assets.storage.home import Home
from saerl_assets.storage.shards import ShardStore
from saerl_assets.storage.warehouse import Warehouse

N_PROMPTS = 23
LAYERS = (EncodedLayer("encoder-a", 0, 6), EncodedLayer("encoder-b", 6, 4))


def made_up_rows(layer: EncodedLayer, n_texts: int) -> pl.DataFrame:
    """Rows of `prompt_features` of texts t00, t01 and so on; the fourth has no active feature."""
    rng = np.random.default_rng(layer.n_latents)
    rows = []
    for text in range(n_texts):
        ids = np.flatnonzero(rng.random(layer.n_latents) < (0.0 if text == 3 else 0.5))
        row: dict[str, object] = {"encoder_id": layer.encoder_id, "text_id": f"t{text:02}", "n_tokens": text + 1}
        row |= {"n_sink_tokens": 1, "feature_ids": ids.tolist()}
        row |= {name: rng.integers(1, 9, len(ids)).astype(float).tolist() for name in ("max", "sum", "last")}
        row |= {name: rng.integers(1, 9, len(ids)).tolist() for name in ("n_active", "argmax_token")}
        rows.append(row)
    lists = {"max": pl.Float32, "sum": pl.Float32, "last": pl.Float32, "n_active": pl.UInt16, "argmax_token": pl.UInt16}
    types = {name: pl.List(kind) for name, kind in ({"feature_ids": pl.UInt32} | lists).items()}
    return pl.DataFrame(rows, schema_overrides=types | {"n_tokens": pl.UInt32, "n_sink_tokens": pl.UInt32})


def prompts_of(n_prompts: int) -> pl.DataFrame:
    """Prompts whose ids are in another order than their texts; the last two have the same text."""
    texts = [f"t{min(number, n_prompts - 2):02}" for number in range(n_prompts)]
    return pl.DataFrame(
        {"prompt_id": [f"p{7 * number % n_prompts:02}" for number in range(n_prompts)], "text_id": texts}
    )


def prompt_table(prompts: pl.DataFrame) -> pl.DataFrame:
    empty = dict.fromkeys(("text", "messages", "extra"), "") | {"split": "train", "is_chat": False}
    numbers = dict.fromkeys(("position", "n_tokens", "n_prefix_tokens", "n_rows"), 1)
    return prompts.with_columns(
        **{name: pl.lit(value) for name, value in (empty | numbers).items()},
        **{name: pl.lit(None, pl.String) for name in ("response", "answer", "topic")},
        token_ids=pl.lit([0], pl.List(pl.UInt32)),
    )


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """Two encoders' rows of all texts, loaded from shards of five in parts of eight, and read in blocks of four."""
    monkeypatch.setattr(prompt_order, "ROWS_IN_PART", 8)
    monkeypatch.setattr(DuckdbFile, "rows_in_transaction", 20)
    monkeypatch.setattr(feature_store, "BLOCK_PROMPTS", 4)
    warehouse = Warehouse(Home(tmp_path / "home").create())
    warehouse.store("prompts", prompt_table(prompts_of(N_PROMPTS)), "x-v1")
    files = shards(warehouse, [made_up_rows(layer, N_PROMPTS - 1) for layer in LAYERS])
    assert warehouse.store_shards("prompt_features", files, "a test") == 2 * (N_PROMPTS - 1)
    return warehouse


def shards(warehouse: Warehouse, tables: list[pl.DataFrame]) -> tuple[Path, ...]:
    store = ShardStore(warehouse.home.work("x-v1") / "shards")
    parts = [part for table in tables for part in table.iter_slices(5)]
    ids = [f"{number:02}" for number in range(len(parts))]
    for shard_id, part in zip(ids, parts, strict=True):
        store.write(shard_id, {"prompt_features": part.to_arrow(compat_level=pl.CompatLevel.oldest())})
    return store.files("prompt_features", ids)


def expected(prompts: pl.DataFrame, layer: EncodedLayer) -> FeatureRows:
    """The features as they went in, prompt after prompt."""
    rows = prompts.sort("prompt_id").join(
        made_up_rows(layer, N_PROMPTS), on="text_id", how="left", maintain_order="left"
    )
    flat = {name: np.concatenate([np.array(cell) for cell in rows[name]]) for name in rows.columns[5:]}
    return FeatureRows(
        prompt_ids=rows["prompt_id"].to_list(),
        n_tokens=rows["n_tokens"].to_numpy().astype(np.int64),
        indptr=np.concatenate([[0], np.cumsum([len(ids) for ids in rows["feature_ids"]])]),
        feature_ids=flat["feature_ids"].astype(np.int32),
        maximum=flat["max"].astype(np.float32),
        total=flat["sum"].astype(np.float32),
        last=flat["last"].astype(np.float32),
        n_active=flat["n_active"].astype(np.int32),
        argmax_token=flat["argmax_token"].astype(np.int32),
    )


def dense(pooling: Pooling, layers: tuple[EncodedLayer, ...] = LAYERS) -> np.ndarray:
    prompts = prompts_of(N_PROMPTS)
    return np.hstack([pool(expected(prompts, layer), pooling, layer.n_latents).toarray() for layer in layers])


@pytest.mark.parametrize("layers", [LAYERS[:1], LAYERS])
@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_all_rows_some_rows_and_blocks_are_what_went_in(
    warehouse: Warehouse, pooling: Pooling, layers: tuple[EncodedLayer, ...]
) -> None:
    features = WarehouseFeatures(warehouse, prompts_of(N_PROMPTS), layers)
    wanted = dense(pooling, layers)
    assert np.array_equal(features.csr(pooling).toarray(), wanted)
    for rows in ([0], [2, 3, 11, 12, 20, 22], [5, 6, 7], []):
        some = features.csr(pooling, np.array(rows, dtype=np.int64))
        assert some.shape == (len(rows), wanted.shape[1])
        assert some.has_sorted_indices
        assert np.array_equal(some.toarray(), wanted[rows])
    starts, blocks = zip(*features.blocks(pooling), strict=True)
    assert starts == (0, 4, 8, 12, 16, 20)
    assert np.array_equal(np.vstack([block.toarray() for block in blocks]), wanted)


def test_what_is_handed_out_may_be_changed(warehouse: Warehouse) -> None:
    features = WarehouseFeatures(warehouse, prompts_of(N_PROMPTS), LAYERS)
    for pooling in get_args(Pooling):
        for _, block in features.blocks(pooling):
            block.data *= 2
            block.indices += 0
    assert np.array_equal(features.csr("max").toarray(), dense("max"))


@pytest.mark.parametrize("column", ENTRY_COLUMNS)
def test_only_the_columns_asked_for_are_read(warehouse: Warehouse, column: str) -> None:
    features = WarehouseFeatures(warehouse, prompts_of(N_PROMPTS), LAYERS[:1])
    blocks = list(features.activations((column,)))  # type: ignore[arg-type]
    whole = expected(prompts_of(N_PROMPTS), LAYERS[0])
    assert [prompt_id for block in blocks for prompt_id in block.prompt_ids] == whole.prompt_ids
    for name in ENTRY_COLUMNS:
        found = np.concatenate([getattr(block, name) for block in blocks])
        assert found.dtype == getattr(whole, name).dtype
        assert np.array_equal(found, getattr(whole, name) if name == column else getattr(whole, name)[:0])


def test_rows_that_have_moved_are_found_again(warehouse: Warehouse) -> None:
    features = WarehouseFeatures(warehouse, prompts_of(N_PROMPTS), LAYERS[:1])
    wanted = features.csr("max")
    known = features._row_ids["encoder-a"]
    for moved in (known[::-1].copy(), known + 10_000):
        features._row_ids["encoder-a"] = moved
        assert np.array_equal(features.csr("max").toarray(), wanted.toarray())


def test_a_prompt_without_features_is_said(warehouse: Warehouse) -> None:
    more = pl.concat([prompts_of(N_PROMPTS), pl.DataFrame({"prompt_id": ["q"], "text_id": ["nowhere"]})])
    with pytest.raises(SaerlError, match="1 prompts have no features") as caught:
        WarehouseFeatures(warehouse, more, LAYERS).csr("max")
    assert caught.value.code == "features_missing"


def test_rows_lie_in_the_order_of_prompts(warehouse: Warehouse) -> None:
    lying = warehouse.query("SELECT encoder_id, text_id FROM prompt_features ORDER BY rowid")
    texts = prompts_of(N_PROMPTS).sort("prompt_id")["text_id"].unique(maintain_order=True).to_list()
    for layer in LAYERS:
        assert lying.filter(pl.col("encoder_id") == layer.encoder_id)["text_id"].to_list() == texts
    assert not list(warehouse.home.work("x-v1").rglob("order-*"))


def test_known_rows_stay_and_rows_that_come_twice_are_added_once(warehouse: Warehouse) -> None:
    more = made_up_rows(LAYERS[0], N_PROMPTS + 4).with_columns(n_tokens=pl.lit(99, pl.UInt32))
    files = shards(warehouse, [more, more])
    assert warehouse.store_shards("prompt_features", files, "a test") == 5
    found = warehouse.query("SELECT text_id FROM prompt_features WHERE n_tokens = 99 ORDER BY rowid")
    assert found["text_id"].to_list() == ["t22", "t23", "t24", "t25", "t26"]
    assert np.array_equal(
        WarehouseFeatures(warehouse, prompts_of(N_PROMPTS), LAYERS).csr("max").toarray(), dense("max")
    )
