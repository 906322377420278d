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
from saerl_assets.resources.worker_jobs import ReadingJob, SaeCopy
from saerl_assets.resources.workers import Crew
from saerl_assets.storage.shards import ShardFiles, ShardStore

if TYPE_CHECKING:
    from saerl_assets.models.extraction import Activations, ShardRows
    from saerl_assets.models.reader import Reader
    from saerl_assets.models.texts import Shard

N_SAMPLED_STATES = 2_000
PARTS = ("reading", "encoding", "pooling", "control", "writing")


@dataclass(frozen=True)
class Extraction:
    """What one extraction hands over."""

    features: ShardFiles
    states: ShardFiles
    figures: Mapping[str, float | int | str]
    counts: pl.DataFrame
    """text_id, n_tokens, n_active_features of every text, new or read before."""
    sample_states: pl.DataFrame


def extract(
    reading: Reading, prompts: pl.DataFrame, weights: pl.DataFrame, controls: pl.DataFrame, progress: Progress
) -> Extraction:
    """Reads the texts that the version's encoders have not read yet, shard by shard.

    Args:
        reading: The version.
        prompts: Table `prompts`.
        weights: Table `sae_weights`.
        controls: Table `control_saes`; may be empty.
        progress: Told after every shard.
    """
    reading.check_reader(weights)
    missing = _missing(reading, prompts, weights, controls)
    shards = reading.shards(missing)
    encoders = digest(sorted([*weights["encoder_id"], *controls["encoder_id"]]))[:32]
    store = ShardStore.of(reading.home.open(), reading.work / "shards" / encoders)
    names = [f"{table}-{layer}" for layer in weights["layer"] for table in ("prompt_features", "prompt_states")]
    names += [f"control-{layer}" for layer in controls["layer"]]
    n_tokens = sum(shard.n_tokens for shard in shards)
    started, n_read, seconds = time.monotonic(), 0, dict.fromkeys(PARTS, 0.0)
    missing_shards = [shard for shard in shards if not store.has(shard.shard_id, names)]
    n_done = n_tokens - sum(shard.n_tokens for shard in missing_shards)
    n_passed, seconds_passed = 0, 0.0
    done = _Extracted(reading, weights, controls, store)
    for shard, parts in done.shards(missing_shards):
        if shard.shard_id not in done.kept:
            n_passed += shard.n_tokens
            seconds_passed += sum(parts[part] for part in parts if part != "writing") / done.n_workers
        seconds = {part: seconds[part] + parts.get(part, 0.0) for part in PARTS}
        n_read += shard.n_tokens
        n_done += shard.n_tokens
        progress(n_done, n_tokens, unit="tokens")
    elapsed, n_texts = time.monotonic() - started, prompts["text_id"].n_unique()
    figures: dict[str, float | int | str] = {
        "texts_read": missing.height,
        "texts_known": n_texts - missing.height,
        "tokens_read": n_read,
        "tokens_from_cache": n_read - n_passed,
        "tokens_per_second": round(n_passed / seconds_passed, 1) if n_passed and seconds_passed else 0.0,
        **{f"share_{part}": round(seconds[part] / elapsed / done.n_workers, 3) for part in PARTS if n_read and elapsed},
        "dtype": reading.spec.reader.dtype,
        "tokens_a_pass": reading.compute.budget_for(reading.version).tokens,
        **reading.compute.as_metadata(),
        **done.figures(),
    }
    ids = [shard.shard_id for shard in shards]

    def files(table: str, *parts: str) -> ShardFiles:
        found = tuple(path for part in parts for path in store.files(part, ids))
        return ShardFiles(table, found, n_texts * len(parts), (n_texts - missing.height) * len(parts))

    features = files("prompt_features", *(name for name in names if not name.startswith("prompt_states")))
    states = files("prompt_states", *(name for name in names if name.startswith("prompt_states")))
    counts = _counts(reading, prompts, weights, features.files[: len(ids)])
    return Extraction(features, states, figures, counts, _sample(reading, weights, states))


def _missing(reading: Reading, prompts: pl.DataFrame, weights: pl.DataFrame, controls: pl.DataFrame) -> pl.DataFrame:
    """Prompts whose text some encoder has not read yet, one row per text."""
    texts = prompts.unique("text_id", keep="first", maintain_order=True)
    warehouse = reading.home.warehouse()
    wanted = pl.Series([True] * texts.height) if weights.is_empty() else pl.Series([False] * texts.height)
    named = [("prompt_states", "reading_id", identity) for identity in weights["reading_id"]]
    named += [
        ("prompt_features", "encoder_id", identity) for identity in (*weights["encoder_id"], *controls["encoder_id"])
    ]
    for table, column, identity in named:
        read = warehouse.rows(table, ["text_id"], **{column: identity})["text_id"]
        wanted = wanted | ~texts["text_id"].is_in(read.implode())
    return texts.filter(wanted)


class _Extracted:
    """Reads shards, from the activations that are kept or with a pass of the reader, and writes their rows."""

    def __init__(self, reading: Reading, weights: pl.DataFrame, controls: pl.DataFrame, store: ShardStore) -> None:
        self.kept: set[str] = set()
        """Ids of the shards whose activations were kept: they say nothing of the reader's speed."""
        self.n_workers = 1
        """Processes that read at once."""
        self._crew: Crew[Shard, ShardRows] | None = None
        self._reading, self._weights, self._controls, self._store = reading, weights, controls, store

    def shards(self, shards: "list[Shard]") -> "Iterator[tuple[Shard, dict[str, float]]]":
        """Each shard once its rows are written, with the seconds of its parts."""
        cache = self._reading.cache()
        to_read = [shard for shard in shards if not cache.has(shard)]
        if to_read:
            self._crew = self._reading.compute.crew(self._job(), self._reading.say)
        if self._crew is None:
            yield from self._alone(shards)
            return
        here = {shard.shard_id: shard for shard in to_read}
        yield from self._alone([shard for shard in shards if shard.shard_id not in here])
        self.n_workers = self._crew.n_workers
        named = {f"shard {shard.shard_id}, which begins with text {shard.texts[0].text_id}": shard for shard in to_read}
        for name, rows in self._crew.results(named):
            started = time.perf_counter()
            self._write(named[name], rows)
            yield named[name], rows.seconds | {"writing": time.perf_counter() - started}

    def figures(self) -> dict[str, float | int | str]:
        """What is to be told of the workers, if there were any."""
        if self._crew is None:
            return {}
        lost, again = self._crew.n_lost, self._crew.n_retried
        engine = self._reading.compute.chosen_engine()
        return {"engine": engine, "workers": self.n_workers, "workers_lost": lost, "shards_retried": again}

    def _job(self) -> ReadingJob:
        def copies(table: pl.DataFrame) -> dict[int, SaeCopy]:
            artifacts = self._reading.home.artifacts()
            return {row["layer"]: SaeCopy.read(artifacts.find("sae", row["digest"])) for row in table.to_dicts()}

        reading, thresholds = self._reading, dict(self._weights.select("layer", "sink_threshold").iter_rows())
        saes, controls = copies(self._weights), copies(self._controls)
        return ReadingJob(
            reading.compute.settings(), reading.version, reading.files().digest, saes, thresholds, controls
        )

    def _alone(self, shards: "list[Shard]") -> "Iterator[tuple[Shard, dict[str, float]]]":
        """In this process, where a shard is written while the next is read."""
        if not shards:
            return iter(())
        from saerl_assets.models.extraction import extract_shards

        reading, cache = self._reading, self._reading.cache()

        def source(shard: "Shard") -> "Activations | Reader":
            found = cache.get(shard)
            if found is None:
                return reading.reader()
            self.kept.add(shard.shard_id)
            return found

        return extract_shards(
            shards,
            source,
            {row["layer"]: reading.encoder(row["digest"]) for row in self._weights.to_dicts()},
            dict(self._weights.select("layer", "sink_threshold").iter_rows()),
            budget=reading.compute.budget_for(reading.version),
            write=self._write,
            controls={row["layer"]: reading.encoder(row["digest"]) for row in self._controls.to_dicts()},
        )

    def _write(self, shard: "Shard", rows: "ShardRows") -> None:
        self._store.write(shard.shard_id, _tagged(rows, self._weights, self._controls))


def _tagged(rows: "ShardRows", weights: pl.DataFrame, controls: pl.DataFrame) -> dict[str, Any]:
    """The shard's tables with the ids that key them in the warehouse, a control's features beside the SAE's."""
    import pyarrow as pa

    tagged: dict[str, object] = {}
    for name, table, column, frames in (
        ("prompt_features", weights, "encoder_id", rows.features),
        ("prompt_states", weights, "reading_id", rows.states),
        ("control", controls, "encoder_id", rows.controls),
    ):
        for layer, identity in table.select("layer", column).iter_rows():
            ids = pa.array([identity] * frames[layer].num_rows, pa.string())
            tagged[f"{name}-{layer}"] = frames[layer].add_column(0, column, ids)
    return tagged


def _counts(reading: Reading, prompts: pl.DataFrame, weights: pl.DataFrame, new: Sequence[Path]) -> pl.DataFrame:
    """Active features and tokens of every text at the first layer, new or read before."""
    columns = ["text_id", "n_tokens", pl.col("feature_ids").list.len().alias("n_active_features")]
    parts = [pl.scan_parquet(file).select(columns).collect() for file in new]
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
