"""Sparse features that no model made, with planted clusters and labels, put into a warehouse as an extraction would.

Belongs here: what is made up, and the way into the tables. Does not belong here: measuring (signals).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from saerl_assets.storage.shards import ShardStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.storage.home import Home
    from saerl_assets.storage.warehouse import Warehouse

VERSION = "made-up-v1"
ENCODER_ID = "0" * 32
PROMPTS_PER_SHARD = 1_000
SIGNAL_FILE = "signal.npy"

ZIPF_EXPONENT = 0.8
OWN_SHARE = 0.15
"""Share of a prompt's draws that come from the features of its cluster."""
FEATURES_PER_CLUSTER = 600
N_TELLING = 200
"""Features that the labels follow from."""


@dataclass(frozen=True)
class MadeUp:
    """A population of prompts; every shard of it is a function of the seed and its number."""

    n_prompts: int
    n_latents: int
    n_clusters: int
    n_active: int = 700
    """Active features of a prompt, about, on the average."""

    @cached_property
    def cluster(self) -> NDArray[np.int64]:
        """[n_prompts] the planted cluster of each text: sizes differ up to tenfold."""
        weight = np.linspace(1.0, 10.0, self.n_clusters)
        return np.random.default_rng(1).choice(self.n_clusters, self.n_prompts, p=weight / weight.sum())

    @cached_property
    def text_ids(self) -> list[str]:
        """[n_prompts] ascending, as extraction reads texts."""
        return sorted(hashlib.sha256(f"text {i}".encode()).hexdigest()[:32] for i in range(self.n_prompts))

    @cached_property
    def prompt_ids(self) -> list[str]:
        """[n_prompts] of the texts, in no order."""
        return [hashlib.sha256(f"prompt {text_id}".encode()).hexdigest()[:32] for text_id in self.text_ids]

    @cached_property
    def _popular(self) -> NDArray[np.int64]:
        """Latents from the most to the least popular."""
        return np.random.default_rng(2).permutation(self.n_latents)

    @cached_property
    def _cumulative(self) -> NDArray[np.float64]:
        weight = 1.0 / np.arange(1, self.n_latents + 1) ** ZIPF_EXPONENT
        return np.cumsum(weight / weight.sum())

    @cached_property
    def _own(self) -> NDArray[np.int64]:
        """[n_clusters, FEATURES_PER_CLUSTER] features that a cluster has more often than others."""
        rng = np.random.default_rng(3)
        size = min(FEATURES_PER_CLUSTER, self.n_latents // 4)
        return np.stack([rng.choice(self.n_latents, size, replace=False) for _ in range(self.n_clusters)])

    @cached_property
    def telling(self) -> NDArray[np.float64]:
        """[n_latents] weights of the label, not zero for some features of middling popularity."""
        rng = np.random.default_rng(4)
        weights = np.zeros(self.n_latents)
        n_telling = min(N_TELLING, self.n_latents // 8)
        first = self.n_latents // 300
        weights[self._popular[first : first + n_telling]] = rng.standard_normal(n_telling)
        return weights

    def shard(self, first: int, last: int) -> tuple[pa.Table, NDArray[np.float64]]:
        """Rows of `prompt_features` of some texts, shortest first, and the label's signal of each text in order."""
        rng = np.random.default_rng([5, first])
        n_rows = last - first
        # A draw that repeats one before adds nothing; so more are drawn than there will be features.
        n_draws = np.maximum(rng.lognormal(np.log(1.18 * self.n_active), 0.25, n_rows).astype(np.int64), 4)
        row = np.repeat(np.arange(n_rows), n_draws)
        latent = self._popular[np.searchsorted(self._cumulative, rng.random(len(row)))]
        own = rng.random(len(row)) < OWN_SHARE
        places = rng.integers(self._own.shape[1], size=int(own.sum()))
        latent[own] = self._own[self.cluster[first:last][row[own]], places]
        key = np.sort(row * self.n_latents + latent)
        key = key[np.diff(key, prepend=-1) > 0]
        row, latent = key // self.n_latents, key % self.n_latents
        maximum = rng.gamma(2.0, 1.0, len(key)).astype(np.float32)
        n_active = np.minimum(rng.geometric(0.4, len(key)), 60).astype(np.uint16)
        signal = np.bincount(row, weights=maximum * self.telling[latent], minlength=n_rows)
        lengths = np.bincount(row, minlength=n_rows)
        n_tokens = (lengths // 8 + 20).astype(np.uint32)
        order = np.argsort(n_tokens, kind="stable")
        starts = np.concatenate([[0], np.cumsum(lengths)])[order]
        ends = np.cumsum(lengths[order])
        entry = np.arange(len(key)) + np.repeat(starts - (ends - lengths[order]), lengths[order])
        offsets = pa.array(np.concatenate([[0], ends]), pa.int32())

        def lists(values: NDArray[np.generic]) -> pa.ListArray:
            return pa.ListArray.from_arrays(offsets, pa.array(values[entry]))

        table = pa.table(
            {
                "encoder_id": pa.array([ENCODER_ID] * n_rows, pa.string()),
                "text_id": pa.array([self.text_ids[first + i] for i in order], pa.string()),
                "n_tokens": pa.array(n_tokens[order]),
                "n_sink_tokens": pa.array(np.ones(n_rows, dtype=np.uint32)),
                "feature_ids": lists(latent.astype(np.uint32)),
                "max": lists(maximum),
                "sum": lists(maximum * (1 + np.float32(0.5) * (n_active - 1))),
                "last": lists(np.where(rng.random(len(key)) < 0.1, maximum, 0).astype(np.float32)),
                "n_active": lists(n_active),
                "argmax_token": lists(rng.integers(20, size=len(key)).astype(np.uint16)),
            }
        )
        return table, signal.astype(np.float64)


def fill_warehouse(warehouse: Warehouse, made_up: MadeUp, n_labels: int) -> None:
    """Stores the features, the prompts, their labels and their planted clusters, see `store_tables`."""
    write_shards(warehouse.home, made_up)
    store_tables(warehouse, made_up, n_labels)
    ShardStore(warehouse.home.work(VERSION)).remove()


def write_shards(home: Home, made_up: MadeUp) -> None:
    """Writes the features as an extraction does, with the labels' signal of each text beside them."""
    store = ShardStore(home.work(VERSION))
    signals = []
    for first in range(0, made_up.n_prompts, PROMPTS_PER_SHARD):
        table, signal = made_up.shard(first, min(first + PROMPTS_PER_SHARD, made_up.n_prompts))
        store.write(f"{first:09d}", {"prompt_features": table})
        signals.append(signal)
    np.save(home.work(VERSION) / SIGNAL_FILE, np.concatenate(signals))


def store_tables(warehouse: Warehouse, made_up: MadeUp, n_labels: int) -> None:
    """Prompts, labels and features from their shards into the tables; the shards stay.

    Two labels are known for `n_labels` prompts each: `difficulty`, the signal with as much noise, and `correct`, one
    outcome, more often 1 where the signal is small. The planted cluster is the prompt's topic, and the signal itself is
    in `extra`.
    """
    folder = warehouse.home.work(VERSION)
    store, signal = ShardStore(folder), np.load(folder / SIGNAL_FILE)
    ids = [f"{first:09d}" for first in range(0, made_up.n_prompts, PROMPTS_PER_SHARD)]
    warehouse.store("prompts", _prompts(made_up, signal), VERSION)
    warehouse.store("labels", _labels(made_up, signal, n_labels), VERSION)
    warehouse.store_shards("prompt_features", store.files("prompt_features", ids), f"{VERSION} prompt_features")


def _prompts(made_up: MadeUp, signal: NDArray[np.float64]) -> pl.DataFrame:
    n_prompts = made_up.n_prompts
    return pl.DataFrame(
        {
            "prompt_id": made_up.prompt_ids,
            "position": np.arange(n_prompts),
            "text": made_up.text_ids,
            "text_id": made_up.text_ids,
            "topic": made_up.cluster.astype(str),
            "n_tokens": np.random.default_rng(6).integers(20, 200, n_prompts),
        }
    ).with_columns(
        messages=pl.concat_str(pl.lit('[{"role":"user","content":"'), "text_id", pl.lit('"}]')),
        is_chat=pl.lit(value=False),
        response=pl.lit(None, pl.String()),
        answer=pl.lit("1"),
        split=pl.lit("train"),
        token_ids=pl.lit([0], pl.List(pl.UInt32)),
        n_prefix_tokens=pl.lit(0),
        extra=pl.concat_str(pl.lit('{"signal":'), pl.Series(signal).cast(pl.String()), pl.lit("}")),
        n_rows=pl.lit(1),
    )


def _labels(made_up: MadeUp, signal: NDArray[np.float64], n_labels: int) -> pl.DataFrame:
    rng = np.random.default_rng(7)
    unit = (signal - signal.mean()) / (signal.std() or 1.0)
    chosen = rng.choice(made_up.n_prompts, min(n_labels, made_up.n_prompts), replace=False)
    values = {
        "difficulty": unit[chosen] + rng.standard_normal(len(chosen)),
        "correct": (rng.random(len(chosen)) < 1 / (1 + np.exp(2 * unit[chosen]))).astype(np.float64),
    }
    names = [made_up.prompt_ids[i] for i in chosen]
    return pl.concat(
        pl.DataFrame({"prompt_id": names, "value": value}).with_columns(
            label=pl.lit(label), n_observations=pl.lit(1), spread=pl.lit(0.0)
        )
        for label, value in values.items()
    )
