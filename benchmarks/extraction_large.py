"""How fast prompts become sparse features on a GPU, with a model of Qwen2.5-1.5B's shape.

    python benchmarks/extraction_large.py [--device cuda] [--dry-run]

The model has random weights in bfloat16 and is read at layer 14 of 28 with an SAE of 32,768 latents, k = 64. The
103,110 made-up texts have about 100 tokens on average, spread as those of mathematical problems; they are read end to
end once: features, dense states, shards on disk. The share of the peak is that of the matrix products of the blocks in
the seconds of reading, against a large bfloat16 product on the same card. The operations that take most of the device's
time are printed. The last line is one JSON object.

`--dry-run` does the same in small, so that the script can be tried anywhere; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from extraction_run import BUDGETS_TO_TRY, Extraction, n_tokens_of, random_sae, timed
from transformers import AutoModel, Qwen2Config

from saerl_assets.models.device import (
    DEFAULT_TEXTS_PER_SHARD,
    TokenBudget,
    choose_device,
    matmul_flops,
    token_budget,
    wait_for,
)
from saerl_assets.models.reader import Reader
from saerl_assets.models.saes import TopKEncoder
from saerl_assets.models.sources import ModelFiles
from saerl_assets.models.texts import Text, batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    config: Qwen2Config
    layer: int
    n_latents: int
    k: int
    n_texts: int
    dtype: torch.dtype
    budget: int
    texts_per_shard: int


def large(device: str) -> Sizes:
    """Qwen2.5-1.5B's shape."""
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=1_536,
        intermediate_size=8_960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
    )
    sizes = token_budget(0, device), DEFAULT_TEXTS_PER_SHARD[torch.device(device).type]
    return Sizes(config, 14, 32_768, 64, 103_110, torch.bfloat16, *sizes)


def small() -> Sizes:
    """The same in small."""
    config = Qwen2Config(
        vocab_size=1_000,
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
    )
    return Sizes(config, 2, 1_024, 16, 1_000, torch.float32, 4_096, 256)


def made_up_texts(n_texts: int, n_vocabulary: int) -> list[Text]:
    """Texts of random tokens whose lengths spread as those of mathematical problems do, about 100 on average."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(100) - 0.18, 0.6, n_texts), 8, 1_024).astype(np.int64)
    flat = rng.integers(0, n_vocabulary, lengths.sum(), dtype=np.int32)
    views = np.split(flat, lengths.cumsum()[:-1])
    return [Text(f"{number:032x}", ids) for number, ids in enumerate(views)]


def measure(sizes: Sizes, device_name: str) -> dict[str, float | str]:
    """Reads the whole set once, after a look at what the card can do."""
    device, texts = torch.device(device_name), made_up_texts(sizes.n_texts, sizes.config.vocab_size)
    torch.manual_seed(0)
    with device:
        model: Any = AutoModel.from_config(sizes.config, dtype=sizes.dtype)  # type: ignore[no-untyped-call]
    model.eval().requires_grad_(requires_grad=False)
    files = ModelFiles("path:made-up", Path(), None, "made-up", Path())
    reader = Reader(model, model.layers, [sizes.layer], files)
    encoder = TopKEncoder(
        {"architecture": "topk", "k": sizes.k}, random_sae(reader.d_model, sizes.n_latents), device_name
    )
    budget = TokenBudget(sizes.budget)
    ours = Extraction(reader, encoder, sizes.layer, float("inf"), budget, sizes.texts_per_shard)
    peak = matmul_flops(device_name, 2.0, sizes.dtype)
    sample = texts[: sizes.texts_per_shard]
    n_sample_tokens = n_tokens_of(sample)
    ours.run(sample)  # the first pass chooses algorithms and takes memory
    print(f"{sizes.n_texts:,} texts, {n_tokens_of(texts):,} tokens, {device_name}, {str(sizes.dtype)[6:]}")
    print(f"a large matrix product reaches {peak / 1e12:.1f} TFLOP/s\n\nreading alone, by token budget")
    for tokens in BUDGETS_TO_TRY[device.type]:
        rate = timed(n_sample_tokens, lambda: read_alone(reader, sample, tokens, device))  # noqa: B023
        print(f"{tokens:10,}{rate:12,.0f} tokens/s")
    started = time.perf_counter()
    seconds = ours.run(texts)
    total = time.perf_counter() - started
    flops = 2 * sum(weight.numel() for weight in model.layers.parameters() if weight.ndim == 2) * n_tokens_of(texts)
    on_device = seconds["reading"] + seconds["encoding"] + seconds["pooling"]
    print(f"\n{'':10}{'seconds':>9}{'of all':>9}")
    for part, passed in (*seconds.items(), ("waiting", total - on_device), ("all", total)):
        print(f"{part:10}{passed:9.1f}{passed / total:9.1%}")
    print(f"(writing passes beside the others; {budget.tokens:,} tokens a pass at the end)\n")
    profile(lambda: ours.run(sample), device)
    return {
        "seconds": round(total, 2),
        "tokens_per_second": round(n_tokens_of(texts) / total),
        "share_of_peak": round(flops / seconds["reading"] / peak, 3),
        "sae_share": round((seconds["encoding"] + seconds["pooling"]) / total, 3),
        "prompts": sizes.n_texts,
        "device": device_name,
    }


def read_alone(reader: Reader, texts: Sequence[Text], budget: int, device: torch.device) -> None:
    """The reader without anything after it."""
    for batch in batches(sorted(texts, key=lambda text: len(text.token_ids)), budget):
        reader.read([text.token_ids for text in batch])
    wait_for(device)


def profile(work: Callable[[], object], device: torch.device) -> None:
    """Prints the operations that take most of the device's time."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as found:
        work()
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=70))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dry-run", action="store_true", help="in small, to try the script")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    device = choose_device(arguments.device)
    print(json.dumps(measure(small() if arguments.dry_run else large(device), device)))


if __name__ == "__main__":
    main()
