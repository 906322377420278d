"""Texts read with the demo's model: SAE features, those of an SAE of random weights, and dense states, kept on disk.

Belongs here: what the benchmarks of signals have in common, which is reading. Does not belong here: what is learned.

It goes the way that a version goes: the activations of some shards are kept, SAEs are trained on them, then every text
is read, encoded and pooled. One pass serves several layers and scopes. The rows stay in a folder below the cache that
is named by all that decides them, so that a second run reads nothing. Killed, it goes on with the next shard.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from saerl_assets.domain.features import FeatureRows, pool
from saerl_assets.domain.spec import ReaderSpec, SaeSpec
from saerl_assets.models.activations import ActivationCache, sink_threshold, without_sinks
from saerl_assets.models.device import DEFAULT_TOKEN_BUDGET, TokenBudget
from saerl_assets.models.extraction import Activations, pool_shard, read_shard
from saerl_assets.models.health import measure_fit
from saerl_assets.models.random_sae import write_random_sae
from saerl_assets.models.reader import Reader
from saerl_assets.models.sae_training import train_sae
from saerl_assets.models.saes import load_encoder
from saerl_assets.models.sources import locate_model
from saerl_assets.models.texts import Text, plan_shards
from saerl_assets.models.tokeniser import Tokeniser
from saerl_assets.storage.home import model_cache
from saerl_assets.storage.shards import ShardStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix
    from saerl_assets.domain.spec import Pooling
    from saerl_assets.models.saes import Encoder
    from saerl_assets.models.texts import Shard

View: TypeAlias = "tuple[int, str]"
"""A layer and a scope: `prompt`, `response` or `prompt_and_response`, as `reader.scope` of a version."""

DEFAULT_SAE = SaeSpec(training_tokens=1_000_000)
TEXTS_PER_SHARD = 256
SAMPLE_TOKENS = 20_000
TABLES = ("features", "random", "states")


@dataclass(frozen=True)
class Request:
    """What is read, and how."""

    prompts: Sequence[str]
    responses: Sequence[str | None]
    layers: Sequence[int] = (15,)
    scopes: Sequence[str] = ("prompt",)
    dtype: str = "float32"
    """Number format of the reader; `bfloat16` reads 1.7 times as fast on processors that have its instructions."""
    sae: SaeSpec = DEFAULT_SAE
    seed: int = 0

    def digest(self) -> str:
        """Names everything that decides the rows."""
        dtype = [] if self.dtype == "float32" else [self.dtype]
        sae = self.sae.model_dump(mode="json")
        how = [list(self.layers), list(self.scopes), *dtype, sae, self.seed, ReaderSpec().model]
        return hashlib.sha256(json.dumps([how, list(self.prompts), list(self.responses)]).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Rows:
    """The rows of all texts, in their order, of one layer and scope."""

    features: FeatureRows
    random: FeatureRows
    mean: NDArray[np.float32]
    """[n_texts, d_model] mean of the hidden states."""
    last: NDArray[np.float32]
    """[n_texts, d_model] hidden state of the last token."""
    unexplained: NDArray[np.float64]
    """[n_texts] share of the variance of its activations that the SAE's reconstruction leaves out."""
    n_latents: int

    def csr(self, pooling: Pooling, *, random: bool = False) -> FloatMatrix:
        """Pooled features, float32 [n_texts, n_latents], of the SAE or of the random one."""
        return pool(self.random if random else self.features, pooling, self.n_latents)


@dataclass(frozen=True)
class Saes:
    """What one layer is encoded with."""

    trained: Encoder
    random: Encoder
    threshold: float
    centre: torch.Tensor


def read_texts(request: Request, cache: Path, *, device: str = "cpu") -> tuple[dict[View, Rows], dict[str, Any]]:
    """Reads the texts, or finds their rows below `cache`; with them what is known of the SAEs and the pass."""
    folder = cache / request.digest()
    if not (folder / "facts.json").is_file():
        _read(request, folder, device)
    facts = json.loads((folder / "facts.json").read_text())
    views = [(layer, scope) for layer in request.layers for scope in request.scopes]
    return {view: _rows(folder, view, facts) for view in views}, facts


def _read(request: Request, folder: Path, device: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    files = locate_model(ReaderSpec().model, cache=model_cache(), folder=Path())
    shards = plan_shards(_texts(request, Tokeniser.load(files, "plain")), texts_per_shard=TEXTS_PER_SHARD)
    n_tokens = sum(shard.n_tokens for shard in shards)
    print(f"reading {sum(len(shard.texts) for shard in shards):,} texts, {n_tokens:,} tokens, on {device}", flush=True)
    reader = Reader.load(files, layers=request.layers, dtype=request.dtype, device=device)
    budget, kept = TokenBudget(DEFAULT_TOKEN_BUDGET[device]), ActivationCache(folder / "activations")
    kept.folder.mkdir(exist_ok=True)
    sample = [kept.get_or_read(reader, shard, budget=budget).layers for shard in _first(shards, request.sae)]
    made: dict[int, Saes] = {}
    facts: dict[str, Any] = {"n_tokens": n_tokens, "layers": {}}
    for layer in request.layers:
        made[layer], facts["layers"][str(layer)] = _saes(request, layer, [read[layer] for read in sample], folder)
    del sample
    store = ShardStore(folder / "shards")
    names = [f"{table}-{layer}-{scope}" for layer in request.layers for scope in request.scopes for table in TABLES]
    n_done = 0
    for shard in shards:
        if not store.has(shard.shard_id, names):
            activations = kept.get(shard) or read_shard(reader, shard, budget=budget)
            store.write(shard.shard_id, _pooled(request, shard, activations, made, budget))
        n_done += shard.n_tokens
        print(f"  {n_done:,} of {n_tokens:,} tokens, {time.monotonic() - started:.0f} s", flush=True)
    places = _places(len(request.prompts))
    for name in names:
        tables = [pq.read_table(path) for path in store.files(name, [shard.shard_id for shard in shards])]
        joined = pa.concat_tables(tables).sort_by("text_id")
        pq.write_table(joined.take(places), folder / f"{name}.parquet")
    facts["seconds"] = time.monotonic() - started
    (folder / "facts.json").write_text(json.dumps(facts))
    kept.remove()


def _places(n_texts: int) -> NDArray[np.int64]:
    """A number for each text that puts it into a shard at random."""
    return np.random.default_rng(0).permutation(n_texts)


def _texts(request: Request, tokeniser: Tokeniser) -> list[Text]:
    """Texts named by a number that sorts them at random, counting from where a response starts."""
    found = tokeniser(list(request.prompts), request.responses)
    places = _places(len(found))
    return [
        Text(f"{place:08d}", text.token_ids, text.n_prefix_tokens) for place, text in zip(places, found, strict=True)
    ]


def _first(shards: Sequence[Shard], spec: SaeSpec) -> list[Shard]:
    """Shards up to as many tokens as SAEs are trained on."""
    ends = np.cumsum([shard.n_tokens for shard in shards])
    return list(shards[: max(int(np.searchsorted(ends, spec.max_activation_tokens, side="right")), 1)])


def _saes(request: Request, layer: int, read: list[torch.Tensor], folder: Path) -> tuple[Saes, dict[str, float]]:
    """The trained SAE of a layer and one of random weights of the same size."""
    threshold = sink_threshold(read, ReaderSpec().sink_multiple)
    tokens = without_sinks(read, threshold)
    print(f"training an SAE of layer {layer} on {len(tokens):,} tokens", flush=True)
    work = folder / f"training-{layer}"
    work.mkdir(exist_ok=True)
    trained = train_sae(tokens, request.sae, layer=layer, seed=request.seed, folder=work, device="cpu")
    encoder = load_encoder(trained.folder, "cpu")
    fit = measure_fit(encoder, [tokens[:SAMPLE_TOKENS]], threshold)
    centre = tokens.float().mean(dim=0)
    random = folder / f"random-{layer}"
    random.mkdir(exist_ok=True)
    write_random_sae(random, centre, n_latents=encoder.n_latents, k=max(round(fit.l0), 1), seed=request.seed + 1)
    facts = {"n_latents": encoder.n_latents, "explained_variance": fit.explained_variance, "l0": fit.l0}
    return Saes(encoder, load_encoder(random, "cpu"), threshold, centre), facts


def _pooled(
    request: Request, shard: Shard, activations: Activations, made: dict[int, Saes], budget: TokenBudget
) -> dict[str, pa.Table]:
    """A shard's tables for every layer and scope."""
    on_host = Activations({layer: states.float().cpu() for layer, states in activations.layers.items()})
    encoders = {layer: saes.trained for layer, saes in made.items()}
    controls = {layer: saes.random for layer, saes in made.items()}
    thresholds = {layer: saes.threshold for layer, saes in made.items()}
    tables: dict[str, pa.Table] = {}
    for scope in request.scopes:
        texts = tuple(replace(text, first_pooled=text.first_pooled * (scope == "response")) for text in shard.texts)
        scoped = replace(shard, texts=texts)
        rows = pool_shard(on_host, scoped, encoders, thresholds, budget=budget, controls=controls)
        for layer, saes in made.items():
            unexplained = pa.array(_unexplained(scoped, on_host.layers[layer], saes))
            tables[f"features-{layer}-{scope}"] = rows.features[layer]
            tables[f"random-{layer}-{scope}"] = rows.controls[layer]
            tables[f"states-{layer}-{scope}"] = rows.states[layer].append_column("unexplained", unexplained)
    return tables


@torch.inference_mode()
def _unexplained(shard: Shard, states: torch.Tensor, saes: Saes) -> NDArray[np.float64]:
    """Of each text, sum |x - x'|^2 / sum |x - centre|^2 over its tokens that count and are no sinks."""
    error = (states - saes.trained.reconstruct(states)).pow(2).sum(dim=-1).double().numpy()
    spread = (states - saes.centre).pow(2).sum(dim=-1).double().numpy()
    lengths = np.array([len(text.token_ids) for text in shard.texts])
    firsts = np.array([text.first_pooled for text in shard.texts])
    place = np.arange(len(states)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    counts = (states.norm(dim=-1).numpy() <= saes.threshold) & (place >= np.repeat(firsts, lengths))
    text = np.repeat(np.arange(len(lengths)), lengths)[counts]
    sums = [np.bincount(text, weights=values[counts], minlength=len(lengths)) for values in (error, spread)]
    return np.asarray(sums[0] / np.maximum(sums[1], 1e-12), dtype=np.float64)


def _rows(folder: Path, view: View, facts: dict[str, Any]) -> Rows:
    layer, scope = view
    tables = {name: pq.read_table(folder / f"{name}-{layer}-{scope}.parquet") for name in TABLES}
    states = tables["states"]

    def dense(name: str) -> NDArray[np.float32]:
        found = states[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.asarray(found, dtype=np.float32).reshape(states.num_rows, -1)

    return Rows(
        _feature_rows(tables["features"]),
        _feature_rows(tables["random"]),
        dense("mean"),
        dense("last"),
        states["unexplained"].to_numpy(),
        int(facts["layers"][str(layer)]["n_latents"]),
    )


def _feature_rows(table: pa.Table) -> FeatureRows:
    """The columns of `prompt_features` as a block of rows."""
    lists = table["feature_ids"].combine_chunks()
    lengths = lists.value_lengths().to_numpy()

    def values(name: str, kind: type[np.generic]) -> NDArray[Any]:
        return np.asarray(table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)).astype(kind)

    return FeatureRows(
        prompt_ids=table["text_id"].to_pylist(),
        n_tokens=table["n_tokens"].to_numpy().astype(np.int64),
        indptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        feature_ids=values("feature_ids", np.int32),
        maximum=values("max", np.float32),
        total=values("sum", np.float32),
        last=values("last", np.float32),
        n_active=values("n_active", np.int32),
        argmax_token=values("argmax_token", np.int32),
    )
