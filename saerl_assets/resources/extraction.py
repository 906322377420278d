"""Extraction: the texts that the version's encoders have not read yet, as finished shards.

Belongs here: what is missing, reading it shard by shard, handing it over. Does not belong here: the forward pass, the
pooling (models), loading shards (tables).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from saerl_assets.domain.progress import Progress
from saerl_assets.domain.spec import digest
from saerl_assets.resources.reading import Reading
from saerl_assets.storage.shards import ShardFiles, ShardStore

if TYPE_CHECKING:
    from saerl_assets.models.extraction import ShardRows
    from saerl_assets.models.texts import Shard

N_SAMPLED_STATES = 2_000
PARTS = ("reading", "encoding", "pooling", "writing")


@dataclass(frozen=True)
class Extraction:
    """What one extraction hands over."""

    features: ShardFiles
    states: ShardFiles
    figures: Mapping[str, float | int | str]
    counts: pl.DataFrame
    """text_id, n_tokens, n_active_features of every text, new or read before."""
    sample_states: pl.DataFrame


def extract(reading: Reading, prompts: pl.DataFrame, weights: pl.DataFrame, progress: Progress) -> Extraction:
    """Reads the texts that the version's encoders have not read yet, shard by shard."""
    reading.check_reader(weights)
    missing = _missing(reading, prompts, weights)
    shards = reading.shards(missing)
    store = ShardStore(reading.work / "shards" / digest(sorted(weights["encoder_id"]))[:32])
    names = [f"{table}-{layer}" for layer in weights["layer"] for table in ("prompt_features", "prompt_states")]
    n_tokens = sum(shard.n_tokens for shard in shards)
    started, n_read, seconds = time.monotonic(), 0, dict.fromkeys(PARTS, 0.0)
    missing_shards = [shard for shard in shards if not store.has(shard.shard_id, names)]
    n_done = n_tokens - sum(shard.n_tokens for shard in missing_shards)
    for shard, parts in _extracted(reading, missing_shards, weights, store):
        seconds = {part: seconds[part] + parts[part] for part in PARTS}
        n_read += shard.n_tokens
        n_done += shard.n_tokens
        progress(n_done, n_tokens, unit="tokens")
    elapsed, n_texts = time.monotonic() - started, prompts["text_id"].n_unique()
    figures: dict[str, float | int | str] = {
        "texts_read": missing.height,
        "texts_known": n_texts - missing.height,
        "tokens_read": n_read,
        "tokens_per_second": round(n_read / elapsed, 1) if n_read and elapsed else 0.0,
        **{f"share_{part}": round(seconds[part] / elapsed, 3) for part in PARTS if n_read and elapsed},
        "dtype": reading.spec.reader.dtype,
        **reading.compute.as_metadata(),
    }
    ids = [shard.shard_id for shard in shards]

    def files(table: str) -> ShardFiles:
        found = tuple(path for layer in weights["layer"] for path in store.files(f"{table}-{layer}", ids))
        return ShardFiles(table, found, n_texts * weights.height, (n_texts - missing.height) * weights.height)

    features, states = files("prompt_features"), files("prompt_states")
    counts = _counts(reading, prompts, weights, features.files[: len(ids)])
    return Extraction(features, states, figures, counts, _sample(reading, weights, states))


def _missing(reading: Reading, prompts: pl.DataFrame, weights: pl.DataFrame) -> pl.DataFrame:
    """Prompts whose text some encoder has not read yet, one row per text."""
    texts = prompts.unique("text_id", keep="first", maintain_order=True)
    warehouse = reading.home.warehouse()
    wanted = pl.Series([True] * texts.height) if weights.is_empty() else pl.Series([False] * texts.height)
    for table, column in (("prompt_features", "encoder_id"), ("prompt_states", "reading_id")):
        for identity in weights[column]:
            read = warehouse.rows(table, ["text_id"], **{column: identity})["text_id"]
            wanted = wanted | ~texts["text_id"].is_in(read.implode())
    return texts.filter(wanted)


def _extracted(
    reading: Reading, shards: "list[Shard]", weights: pl.DataFrame, store: ShardStore
) -> "Iterator[tuple[Shard, dict[str, float]]]":
    """Reads shards, from the activations that are kept or with a pass of the reader, and writes their rows."""
    if not shards:
        return iter(())
    from saerl_assets.models.extraction import extract_shards

    cache = reading.cache()
    return extract_shards(
        shards,
        lambda shard: cache.get(shard) or reading.reader(),
        {row["layer"]: reading.encoder(row["digest"]) for row in weights.to_dicts()},
        dict(weights.select("layer", "sink_threshold").iter_rows()),
        budget=reading.compute.budget_for(reading.version),
        write=lambda shard, rows: store.write(shard.shard_id, _tagged(rows, weights)),
    )


def _tagged(rows: "ShardRows", weights: pl.DataFrame) -> dict[str, Any]:
    """The shard's tables with the ids that key them in the warehouse."""
    import pyarrow as pa

    tagged: dict[str, object] = {}
    for row in weights.to_dicts():
        for table, column, frames in (
            ("prompt_features", "encoder_id", rows.features),
            ("prompt_states", "reading_id", rows.states),
        ):
            frame = frames[row["layer"]]
            ids = pa.array([row[column]] * frame.num_rows, pa.string())
            tagged[f"{table}-{row['layer']}"] = frame.add_column(0, column, ids)
    return tagged


def _counts(reading: Reading, prompts: pl.DataFrame, weights: pl.DataFrame, new: Sequence[Path]) -> pl.DataFrame:
    """Active features and tokens of every text at the first layer, new or read before."""
    columns = ["text_id", "n_tokens", pl.col("feature_ids").list.len().alias("n_active_features")]
    parts = [pl.read_parquet(file).select(columns) for file in new]
    first = weights["encoder_id"][0]
    before = reading.home.warehouse().query(
        "SELECT text_id, n_tokens, len(feature_ids)::UINTEGER AS n_active_features FROM prompt_features "
        "WHERE encoder_id = ?",
        [first],
    )
    wanted = prompts.select("text_id").unique()
    return pl.concat([before.cast({"n_active_features": pl.UInt32}), *parts]).join(wanted, on="text_id", how="semi")


def _sample(reading: Reading, weights: pl.DataFrame, new: ShardFiles) -> pl.DataFrame:
    """Dense states of some texts, for the figure."""
    if new.files:
        return pl.concat([pl.read_parquet(file) for file in new.files[:8]]).head(N_SAMPLED_STATES)
    return reading.home.warehouse().query(
        "SELECT * FROM prompt_states WHERE reading_id = ? ORDER BY text_id LIMIT ?",
        [weights.sort("layer")["reading_id"][0], N_SAMPLED_STATES],
    )
