"""One version's reading: its texts, its reader, its SAEs and its shards, wired to the home.

Belongs here: which texts and SAEs are there already, and where new ones are put. Does not belong here: the forward
pass, pooling and training, which are `models`'.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.progress import Progress
from saerl_assets.domain.sae_health import judge
from saerl_assets.domain.spec import digest
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.shards import ShardFiles, ShardStore

if TYPE_CHECKING:
    from saerl_assets.models.activations import ActivationCache
    from saerl_assets.models.extraction import Shard, ShardRows
    from saerl_assets.models.reader import Reader
    from saerl_assets.models.saes import Encoder

N_SAMPLED_STATES = 2_000
MAX_HELD_OUT_SHARDS = 8
AUTO, TRAIN = "auto", "train"

HISTORY_SCHEMA = {
    "step": pl.Int64,
    "tokens": pl.Int64,
    "loss": pl.Float64,
    "explained_variance": pl.Float64,
    "l0": pl.Float64,
    "dead_fraction": pl.Float64,
}


@dataclass(frozen=True)
class Extraction:
    """What one extraction hands over."""

    features: ShardFiles
    states: ShardFiles
    figures: Mapping[str, float | int | str]
    counts: pl.DataFrame
    sample_states: pl.DataFrame


class Reading:
    """Reads one version."""

    def __init__(self, home: HomeResource, compute: ComputeResource, key: str, say: Callable[[str], None]) -> None:
        self._home, self._compute, self._say = home, compute, say
        self._version = home.version(key)
        self._spec = self._version.spec
        self._work = home.open().work(key)
        self._has_told_of_reader = False

    # ---------------------------------------------------------------- SAEs

    def obtain_saes(
        self, prompts: pl.DataFrame, progress: Callable[[str], Progress]
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """One SAE per layer: the parent's, a loaded one, or one trained here.

        Returns:
            Rows of `sae_weights`, and the training history of the first layer (empty where nothing was trained).

        Raises:
            SaerlError: `parent_without_sae`, `parent_other_reader`, or what is wrong with the SAE.
        """
        if self._spec.parent and self._spec.sae.source == (AUTO,):
            return self._parents_saes(), pl.DataFrame(schema=HISTORY_SCHEMA)
        layers = self._spec.reader.layers
        named = [TRAIN] * len(layers) if self._trains() else list(self._spec.sae.source)
        shards = self._shards(prompts)
        rows, histories, offset = [], [], 0
        for layer, source in zip(layers, named, strict=True):
            made = (
                self._train(layer, shards, progress) if source == TRAIN else self._load(layer, source, shards, progress)
            )
            history = made.pop("history")
            histories.append(pl.DataFrame(history, schema=HISTORY_SCHEMA))
            rows.append(self._row(layer, source, offset, made))
            offset += int(rows[-1]["n_latents"])
        return pl.DataFrame(rows), histories[0]

    def _trains(self) -> bool:
        """Whether the version's SAEs are trained here rather than loaded."""
        return self._spec.sae.source in ((AUTO,), (TRAIN,))

    def _check_reader(self, weights: pl.DataFrame) -> None:
        """Holds the model on disk against the one that the version's SAEs were made for.

        Raises:
            SaerlError: `reader_changed`.
        """
        if set(weights["reader_digest"]) - {self._compute.files(self._version).digest}:
            raise SaerlError(
                "reader_changed",
                "The reader's files are no longer those that this version's SAE was made for.",
                where=self._spec.reader.model.partition("#")[0],
                remedy=f"Put them back, or make the SAE anew: saerl run {self._spec.key} --only sae_weights",
            )

    def _parents_saes(self) -> pl.DataFrame:
        parent = str(self._spec.parent)
        weights = self._home.warehouse().rows("sae_weights", dataset_version=parent).drop("dataset_version")
        if weights.is_empty():
            remedy = f"Run the parent first: saerl run {parent}; or set sae.source to something else."
            raise SaerlError("parent_without_sae", f"{parent!r} has no SAE yet.", where="parent", remedy=remedy)
        parent_spec = self._home.version(parent).spec.reader
        if parent_spec != self._spec.reader.model_copy(update={"max_tokens": parent_spec.max_tokens}):
            remedy = "Use the parent's [reader], or train an SAE in a version without a parent."
            raise SaerlError(
                "parent_other_reader",
                f"{parent!r} reads with another [reader].",
                where="reader",
                remedy=remedy,
            )
        if set(weights["reader_digest"]) != {self._compute.files(self._version).digest}:
            remedy = "Put the parent's model back, or train an SAE in a version without a parent."
            raise SaerlError(
                "parent_other_reader", "The model's files have changed.", where="reader.model", remedy=remedy
            )
        for row in weights.to_dicts():
            self._home.artifacts().find("sae", row["digest"])
        return weights.with_columns(source=pl.lit(f"parent:{parent}"))

    def _train(self, layer: int, shards: "list[Shard]", progress: Callable[[str], Progress]) -> dict[str, Any]:
        """Trains on the activations of the shards that are not held out, or finds what the same recipe made before."""
        recipe = self._recipe(layer, shards)
        remembered = self._home.artifacts().recall("sae", recipe)
        if remembered is not None:
            self._say(f"layer {layer}: the SAE of this recipe and these texts is there already")
            return remembered
        from saerl_assets.models.activations import sink_threshold, without_sinks
        from saerl_assets.models.sae_training import train_sae

        wanted = self._training_shards(shards)
        # Those held out are read along, so that measuring the SAE's health needs no pass of its own.
        read = self._activations(layer, [*wanted, *self._held_out(shards)], progress(f"layer {layer} activations"))
        blocks = read[: len(wanted)]
        threshold = sink_threshold(blocks, self._spec.reader.sink_multiple)
        kept = without_sinks(blocks, threshold)
        del read, blocks
        folder = self._work / "training" / recipe[:32]
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        trained = train_sae(
            kept,
            self._spec.sae,
            layer=layer,
            seed=self._spec.seed,
            folder=folder,
            device=self._compute.chosen_device(),
            progress=progress(f"layer {layer} SAE training"),
        )
        history = trained.history.to_dicts()
        facts = {
            "training_tokens": self._spec.sae.training_tokens,
            "distinct_tokens": len(kept),
            "seconds": round(time.monotonic() - started, 1),
            **{f"final_{name}": round(float(value), 4) for name, value in history[-1].items()},
        }
        sae_digest, path = self._home.artifacts().put("sae", trained.folder)
        record = {
            "digest": sae_digest,
            "path": path,
            "sink_threshold": threshold,
            "training": facts | {"history": history},
            "history": history,
        }
        self._home.artifacts().remember("sae", recipe, record)
        return record

    def _load(
        self, layer: int, source: str, shards: "list[Shard]", progress: Callable[[str], Progress]
    ) -> dict[str, Any]:
        """Loads an SAE; its sink threshold comes from a sample of the version's own prompts."""
        from saerl_assets.models.activations import sink_threshold
        from saerl_assets.models.saes import fetch_sae

        found = fetch_sae(source, folder=self._version.folder, into=self._work / "fetched" / str(layer))
        sae_digest, path = self._home.artifacts().put("sae", found)
        recipe = digest(
            [
                "sink",
                self._compute.files(self._version).digest,
                layer,
                self._spec.reader.sink_multiple,
                self._spec.reader.dtype,
                [shard.shard_id for shard in self._held_out(shards)],
            ]
        )
        remembered = self._home.artifacts().recall("sink", recipe)
        if remembered is None:
            blocks = self._activations(layer, self._held_out(shards), progress(f"layer {layer} sample"))
            remembered = {"threshold": sink_threshold(blocks, self._spec.reader.sink_multiple)}
            self._home.artifacts().remember("sink", recipe, remembered)
        return {
            "digest": sae_digest,
            "path": path,
            "sink_threshold": remembered["threshold"],
            "training": {},
            "history": [],
        }

    def _row(self, layer: int, source: str, offset: int, made: Mapping[str, Any]) -> dict[str, Any]:
        from saerl_assets.models.saes import check_layer, check_width, load_encoder

        encoder = load_encoder(self._home.artifacts().find("sae", str(made["digest"])), "cpu")
        check_width(encoder, self._reader().d_model, f"sae.source = {source!r}")
        check_layer(encoder, layer, f"sae.source = {source!r}")
        spec = self._spec.reader
        reader_digest = self._compute.files(self._version).digest
        reading_id = digest([reader_digest, layer, spec.dtype, spec.scope, spec.template, made["sink_threshold"]])[:32]
        return {
            "layer": layer,
            "encoder_id": digest([reading_id, made["digest"]])[:32],
            "reading_id": reading_id,
            "feature_offset": offset,
            "n_latents": encoder.n_latents,
            "d_in": encoder.d_in,
            "architecture": encoder.architecture,
            "source": source,
            "digest": made["digest"],
            "path": made["path"],
            "reader_digest": reader_digest,
            "sink_threshold": made["sink_threshold"],
            "training": json.dumps(made["training"], sort_keys=True),
        }

    def _recipe(self, layer: int, shards: "list[Shard]") -> str:
        """Everything that decides the bytes of an SAE trained here, the machine's arithmetic apart."""
        limits = {"max_dead_fraction", "min_explained_variance", "source"}
        return digest(
            [
                self._compute.files(self._version).digest,
                layer,
                self._spec.reader.dtype,
                self._spec.reader.sink_multiple,
                self._spec.sae.model_dump(mode="json", exclude=limits),
                self._spec.seed,
                [shard.shard_id for shard in self._training_shards(shards)],
            ]
        )

    # ---------------------------------------------------------------- health

    def measure_health(
        self, prompts: pl.DataFrame, weights: pl.DataFrame, density: pl.DataFrame, progress: Progress
    ) -> pl.DataFrame:
        """Rows of `sae_health`, measured on shards that were kept out of training."""
        from saerl_assets.models.health import measure_fit
        from saerl_assets.models.saes import load_encoder

        self._check_reader(weights)
        shards = self._shards(prompts)
        held_out = self._held_out(shards)
        is_held_out = len(shards) > 1 or not self._trains()
        rows = []
        for row in weights.sort("layer").to_dicts():
            encoder = load_encoder(self._home.artifacts().find("sae", row["digest"]), self._compute.chosen_device())
            fit = measure_fit(encoder, self._activations(row["layer"], held_out, progress), row["sink_threshold"])
            dead = density.filter(pl.col("layer") == row["layer"]).select((pl.col("n_prompts") == 0).mean()).item()
            verdict, words = judge(
                explained_variance=fit.explained_variance,
                l0=fit.l0,
                dead_fraction=float(dead or 0.0),
                k=encoder.k,
                on_held_out=is_held_out,
                spec=self._spec.sae,
            )
            rows.append(
                {
                    "layer": row["layer"],
                    "encoder_id": row["encoder_id"],
                    "explained_variance": fit.explained_variance,
                    "l0": fit.l0,
                    "dead_fraction": float(dead or 0.0),
                    "n_tokens": fit.n_tokens,
                    "n_sink_tokens": fit.n_sink_tokens,
                    "verdict": verdict,
                    "explanation": words,
                }
            )
        self._cache().remove()
        return pl.DataFrame(rows)

    # ---------------------------------------------------------------- features

    def extract(self, prompts: pl.DataFrame, weights: pl.DataFrame, progress: Progress) -> Extraction:
        """Reads the texts that the version's encoders have not read yet, shard by shard."""
        self._check_reader(weights)
        missing = self._missing(prompts, weights)
        shards = self._shards(missing)
        store = ShardStore(self._work / "shards" / digest(sorted(weights["encoder_id"]))[:32])
        names = [f"{table}-{layer}" for layer in weights["layer"] for table in ("prompt_features", "prompt_states")]
        n_tokens = sum(shard.n_tokens for shard in shards)
        started, done, seconds = time.monotonic(), 0, {"reading": 0.0, "encoding and pooling": 0.0}
        encoders: dict[int, Encoder] = {}
        for shard in shards:
            if not store.has(shard.shard_id, names):
                encoders = encoders or self._encoders(weights)
                rows, parts = self._extract_shard(shard, encoders, weights)
                store.write(shard.shard_id, self._tagged(rows, weights))
                seconds = {part: seconds[part] + parts[part] for part in seconds}
            done += shard.n_tokens
            progress(done, n_tokens, unit="tokens")
        elapsed = time.monotonic() - started
        ids = [shard.shard_id for shard in shards]
        n_texts = prompts["text_id"].n_unique()
        figures: dict[str, float | int | str] = {
            "texts_read": missing.height,
            "tokens_read": n_tokens,
            "tokens_per_second": round(n_tokens / elapsed, 1) if n_tokens and elapsed else 0.0,
            **{f"seconds {part}": round(value, 1) for part, value in seconds.items()},
            **self._compute.as_metadata(),
        }

        def files(table: str) -> ShardFiles:
            found = tuple(path for layer in weights["layer"] for path in store.files(f"{table}-{layer}", ids))
            return ShardFiles(table, found, n_texts * weights.height, (n_texts - missing.height) * weights.height)

        features, states = files("prompt_features"), files("prompt_states")
        return Extraction(
            features, states, figures, self._counts(prompts, weights, features), self._sample(weights, states)
        )

    def forget(self) -> None:
        """Removes the finished shards and training checkpoints; their rows are in the warehouse."""
        for name in ("shards", "training", "fetched"):
            ShardStore(self._work / name).remove()

    def _missing(self, prompts: pl.DataFrame, weights: pl.DataFrame) -> pl.DataFrame:
        """Prompts whose text some encoder has not read yet, one row per text."""
        texts = prompts.unique("text_id", keep="first", maintain_order=True)
        warehouse = self._home.warehouse()
        wanted = pl.Series([True] * texts.height) if weights.is_empty() else pl.Series([False] * texts.height)
        for table, column in (("prompt_features", "encoder_id"), ("prompt_states", "reading_id")):
            for identity in weights[column]:
                read = warehouse.rows(table, ["text_id"], **{column: identity})["text_id"]
                wanted = wanted | ~texts["text_id"].is_in(read.implode())
        return texts.filter(wanted)

    def _extract_shard(
        self, shard: "Shard", encoders: "dict[int, Encoder]", weights: pl.DataFrame
    ) -> "tuple[ShardRows, dict[str, float]]":
        from saerl_assets.models.extraction import pool_shard, read_shard

        started = time.monotonic()
        kept = self._cache().get(shard)
        if kept is None or not set(encoders) <= set(kept.layers):
            kept = read_shard(self._reader(), shard, token_budget=self._compute.budget())
        read = time.monotonic()
        thresholds = dict(weights.select("layer", "sink_threshold").iter_rows())
        rows = pool_shard(kept, shard, encoders, thresholds)
        return rows, {"reading": read - started, "encoding and pooling": time.monotonic() - read}

    def _tagged(self, rows: "ShardRows", weights: pl.DataFrame) -> dict[str, Any]:
        """The shard's tables with the ids that key them in the warehouse."""
        import pyarrow as pa

        tagged: dict[str, object] = {}
        for row in weights.to_dicts():
            for table, column, frames in (
                ("prompt_features", "encoder_id", rows.features),
                ("prompt_states", "reading_id", rows.states),
            ):
                frame = frames[row["layer"]]
                tagged[f"{table}-{row['layer']}"] = frame.add_column(
                    0, column, pa.array([row[column]] * frame.num_rows, pa.string())
                )
        return tagged

    def _counts(self, prompts: pl.DataFrame, weights: pl.DataFrame, new: ShardFiles) -> pl.DataFrame:
        """Active features and tokens of every text, new or read before."""
        columns = ["text_id", "n_tokens", pl.col("feature_ids").list.len().alias("n_active_features")]
        parts = [pl.read_parquet(file).select(columns) for file in new.files]
        first = weights.sort("layer")["encoder_id"][0]
        before = self._home.warehouse().query(
            "SELECT text_id, n_tokens, len(feature_ids)::UINTEGER AS n_active_features FROM prompt_features "
            "WHERE encoder_id = ?",
            [first],
        )
        wanted = prompts.select("text_id").unique()
        return pl.concat([before.cast({"n_active_features": pl.UInt32}), *parts]).join(wanted, on="text_id", how="semi")

    def _sample(self, weights: pl.DataFrame, new: ShardFiles) -> pl.DataFrame:
        """Dense states of some texts, for the figure."""
        if new.files:
            return pl.concat([pl.read_parquet(file) for file in new.files[:8]]).head(N_SAMPLED_STATES)
        return self._home.warehouse().query(
            "SELECT * FROM prompt_states WHERE reading_id = ? ORDER BY text_id LIMIT ?",
            [weights.sort("layer")["reading_id"][0], N_SAMPLED_STATES],
        )

    # ---------------------------------------------------------------- shared

    def _reader(self) -> "Reader":
        if not self._has_told_of_reader:
            self._say(
                f"loading {self._spec.reader.model.partition('#')[0]} up to layer {max(self._spec.reader.layers)}"
            )
            self._has_told_of_reader = True
        return self._compute.reader(self._version)

    def _encoders(self, weights: pl.DataFrame) -> "dict[int, Encoder]":
        from saerl_assets.models.saes import load_encoder

        device = self._compute.chosen_device()
        return {
            row["layer"]: load_encoder(self._home.artifacts().find("sae", row["digest"]), device)
            for row in weights.sort("layer").to_dicts()
        }

    def _shards(self, prompts: pl.DataFrame) -> "list[Shard]":
        """The texts of prompts as shards, each text once."""
        from saerl_assets.models.extraction import Text, plan_shards

        texts = prompts.unique("text_id", keep="first", maintain_order=True)
        pools_response = self._spec.reader.scope == "response"
        return plan_shards(
            [
                Text(text_id, token_ids, n_prefix if pools_response else 0)
                for text_id, token_ids, n_prefix in texts.select("text_id", "token_ids", "n_prefix_tokens").iter_rows()
            ],
            texts_per_shard=self._compute.texts_per_shard,
        )

    def _held_out(self, shards: "list[Shard]") -> "list[Shard]":
        """The last shards, a twentieth of them but at least one: shards are random samples."""
        n_held_out = min(max(round(0.05 * len(shards)), 1), MAX_HELD_OUT_SHARDS)
        return shards[-n_held_out:]

    def _training_shards(self, shards: "list[Shard]") -> "list[Shard]":
        """The first shards up to the spec's number of distinct tokens, without those held out."""
        usable = shards[: -len(self._held_out(shards))] or shards
        totals = np.cumsum([shard.n_tokens for shard in usable])
        n_needed = int(np.searchsorted(totals, self._spec.sae.max_activation_tokens)) + 1
        return usable[:n_needed]

    def _activations(self, layer: int, shards: "list[Shard]", progress: Progress) -> list:  # type: ignore[type-arg]
        """Activations of shards, from the cache where it has them."""
        cache, found, done = self._cache(), [], 0
        total = sum(shard.n_tokens for shard in shards)
        for shard in shards:
            kept = cache.get(shard) or cache.get_or_read(self._reader(), shard, token_budget=self._compute.budget())
            found.append(kept.layers[layer])
            done += shard.n_tokens
            progress(done, total, unit="tokens")
        return found

    def _cache(self) -> "ActivationCache":
        """Activations by shard, for this model, these layers and this number format."""
        from saerl_assets.models.activations import ActivationCache

        spec = self._spec.reader
        name = digest([self._compute.files(self._version).digest, sorted(spec.layers), spec.dtype])[:16]
        return ActivationCache(Path(self._work) / "activations" / name)
