"""One extraction end to end, as a version has it: what both benchmarks of extraction measure.

Belongs here: reading, encoding, pooling and writing of given texts, timed. Does not belong here: what it is compared
with, and which model and texts.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from saerl_assets.models.extraction import extract_shards
from saerl_assets.models.texts import Shard, Text, batches, plan_shards
from saerl_assets.storage.shards import ShardStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from saerl_assets.models.device import TokenBudget
    from saerl_assets.models.extraction import ShardRows
    from saerl_assets.models.reader import Reader
    from saerl_assets.models.saes import Encoder

BUDGETS_TO_TRY = {"cpu": (512, 1_024, 2_048, 4_096), "cuda": (8_192, 16_384, 32_768, 65_536, 131_072)}
"""Tokens in one pass among which a bare forward pass finds its best, by kind of device."""


@dataclass
class Extraction:
    """Everything that texts are read with."""

    reader: Reader
    encoder: Encoder
    layer: int
    threshold: float
    budget: TokenBudget
    texts_per_shard: int

    def run(self, texts: Sequence[Text]) -> dict[str, float]:
        """Features, dense states, shards on disk; seconds by part."""
        shards = plan_shards(texts, texts_per_shard=self.texts_per_shard)
        total = {"reading": 0.0, "encoding": 0.0, "pooling": 0.0, "writing": 0.0}
        with tempfile.TemporaryDirectory() as folder:
            store = ShardStore(Path(folder))

            def write(shard: Shard, rows: ShardRows) -> None:
                tables = {"prompt_features": rows.features[self.layer], "prompt_states": rows.states[self.layer]}
                store.write(shard.shard_id, tables)

            for _, seconds in extract_shards(
                shards,
                lambda _shard: self.reader,
                {self.layer: self.encoder},
                {self.layer: self.threshold},
                budget=self.budget,
                write=write,
            ):
                total = {part: total[part] + seconds[part] for part in total}
        return total

    def padded_tokens(self, texts: Sequence[Text]) -> int:
        """Tokens of all its forward passes, padding included, for as long as the budget stays what it is."""
        shards = plan_shards(texts, texts_per_shard=self.texts_per_shard)
        passes = (batch for shard in shards for batch in batches(shard.texts, self.budget.tokens))
        return sum(len(batch) * len(batch[-1].token_ids) for batch in passes)


def n_tokens_of(texts: Sequence[Text]) -> int:
    """Tokens of all texts, no padding."""
    return sum(len(text.token_ids) for text in texts)


def random_sae(d_in: int, n_latents: int) -> dict[str, torch.Tensor]:
    """Weights of a TopK SAE."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(n_latents, d_in, generator=generator), dim=-1)
    zeros = torch.zeros(n_latents), torch.zeros(d_in)
    return {"W_enc": directions.T.contiguous(), "W_dec": directions, "b_enc": zeros[0], "b_dec": zeros[1]}


def timed(n_tokens: int, work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Tokens a second of a clock, which may be that of the wall or of the process."""
    started = clock()
    work()
    return n_tokens / (clock() - started)
