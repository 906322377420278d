"""How fast prompts become sparse features, against a bare forward pass and against the ways that people know.

    python benchmarks/extraction.py [--prompts 1024] [--rounds 5] [--device cpu]
    python benchmarks/extraction.py --large [--device cuda] [--dry-run]

The first reads the demo's prompts with the demo's model up to layer 15 and an SAE of 4,096 latents, k = 32, with
random weights. It measures in one process, the sides in turn, and prints the medians of the rounds:

- floor: transformers' own model, cut off after the layer, batches sorted by length at the budget that suits it best
  (tried first); no SAE, nothing written;
- ours: features and dense states, shards on disk;
- obvious: batches of 32 in file order, `output_hidden_states=True`, `sae.encode`, a masked maximum (three batches
  from all over the file);
- SAELens: its `ActivationsStore` over its wrapper for models of transformers, which stops at the layer too, and
  `sae.encode`. It packs texts into contexts of 128 tokens and makes no rows of prompts.

Peak memory is that of two fresh processes with 2,000 and 8,000 prompts. They read up to layer 0: the fewer weights
are in memory, the more what grows with the prompts counts. The last line is one JSON object.

The second is for a GPU: a model of Qwen2.5-1.5B's shape with random weights in bfloat16, layer 14 of 28, an SAE of
32,768 latents, k = 64, and 103,110 made-up texts of about 100 tokens, read end to end once. The share of the peak is
that of the matrix products of the blocks in the seconds of reading, against a large bfloat16 product on the same card.
`--dry-run` does the same in small, so that the script can be tried anywhere.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from saerl_assets.domain.gym import generate_rows, parse_tasks
from saerl_assets.domain.spec import ReaderSpec
from saerl_assets.models.activations import sink_threshold
from saerl_assets.models.device import (
    DEFAULT_TEXTS_PER_SHARD,
    TokenBudget,
    choose_device,
    matmul_flops,
    token_budget,
    wait_for,
)
from saerl_assets.models.extraction import extract_shards, read_shard
from saerl_assets.models.gguf import tokeniser_folder, weights_folder
from saerl_assets.models.reader import Reader
from saerl_assets.models.saes import TopKEncoder, load_encoder
from saerl_assets.models.sources import ModelFiles, locate_model
from saerl_assets.models.texts import Shard, Text, batches, plan_shards
from saerl_assets.storage.home import model_cache
from saerl_assets.storage.shards import ShardStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from saerl_assets.models.extraction import ShardRows
    from saerl_assets.models.saes import Encoder

TASKS_FILE = Path(__file__).parents[1] / "examples" / "demo" / "tasks.toml"
LAYER, N_LATENTS, K = 15, 4_096, 32
OBVIOUS_BATCH, N_OBVIOUS_BATCHES = 32, 3
CONTEXT_SIZE, N_CONTEXTS = 128, 8
FLOOR_BUDGETS = {"cpu": (512, 1_024, 2_048, 4_096), "cuda": (8_192, 16_384, 32_768, 65_536, 131_072)}
SINK_MULTIPLE = 10.0


def demo_prompts(n_prompts: int) -> list[str]:
    """The demo's prompts, and more of the same kind."""
    mix = parse_tasks(tomllib.loads(TASKS_FILE.read_text())).model_copy(update={"n_rows": n_prompts})
    return [str(row["prompt"]) for row in generate_rows(mix)]


def as_texts(prompts: Sequence[str], files: ModelFiles) -> list[Text]:
    """Texts with token ids of 4 bytes, in the order of the prompts."""
    tokenizer = AutoTokenizer.from_pretrained(tokeniser_folder(files), local_files_only=True)
    token_ids: list[NDArray[np.int32]] = []
    for start in range(0, len(prompts), 500):
        token_ids += [np.array(ids, dtype=np.int32) for ids in tokenizer(prompts[start : start + 500])["input_ids"]]
    names = np.random.default_rng(0).permutation(len(prompts))  # ids are hashes: they put texts into shards at random
    return [Text(f"{name:032x}", ids) for name, ids in zip(names, token_ids, strict=True)]


def n_tokens_of(texts: Sequence[Text]) -> int:
    """Tokens of all texts."""
    return sum(len(text.token_ids) for text in texts)


@dataclass
class Ours:
    """Everything that this package needs to read texts, and how it does it."""

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


def padded(token_ids: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids padded on the right, and which of them are text."""
    lengths = np.array([len(ids) for ids in token_ids])
    is_text = np.arange(lengths.max()) < lengths[:, None]
    filled = np.zeros(is_text.shape, dtype=np.int64)
    filled[is_text] = np.concatenate(token_ids)
    return torch.from_numpy(filled), torch.from_numpy(is_text)


@torch.inference_mode()
def read_bare(model: Any, texts: Sequence[Text], budget: int, device: torch.device) -> None:  # noqa: ANN401
    """The floor: the blocks and nothing else."""
    for batch in batches(sorted(texts, key=lambda text: len(text.token_ids)), budget):
        model(input_ids=padded([text.token_ids for text in batch])[0].to(device), use_cache=False)
    wait_for(device)


@torch.inference_mode()
def read_obviously(model: Any, sae: Any, texts: Sequence[Text], device: torch.device) -> torch.Tensor:  # noqa: ANN401
    """The obvious way, in the order of the file."""
    rows = []
    for start in range(0, len(texts), OBVIOUS_BATCH):
        ids, is_text = (part.to(device) for part in padded([text.token_ids for text in texts[start:][:OBVIOUS_BATCH]]))
        hidden = model(input_ids=ids, attention_mask=is_text.long(), output_hidden_states=True).hidden_states
        features = sae.encode(hidden[LAYER + 1])
        features = features.to_dense() if features.is_sparse else features
        rows.append(features.masked_fill(~is_text[:, :, None], 0.0).amax(dim=1).cpu())
    return torch.cat(rows)


def saelens_store(model: Any, tokenizer: Any, prompts: Sequence[str], device: torch.device) -> Any:  # noqa: ANN401
    """SAELens's stream of activations for a model of transformers."""
    from datasets import Dataset
    from sae_lens import ActivationsStore
    from sae_lens.load_model import HookedProxyLM

    hook = f"model.layers.{LAYER}"
    return ActivationsStore(
        HookedProxyLM(model, tokenizer, hook_names=[hook]),
        Dataset.from_dict({"text": list(prompts)}),
        streaming=False,
        hook_name=hook,
        hook_head_index=None,
        context_size=CONTEXT_SIZE,
        d_in=model.config.hidden_size,
        n_batches_in_buffer=N_CONTEXTS,
        total_training_tokens=1,
        store_batch_size_prompts=N_CONTEXTS,
        train_batch_size_tokens=CONTEXT_SIZE * N_CONTEXTS,
        prepend_bos=False,
        normalize_activations="none",
        device=device,
        dtype="float32",
    )


def random_sae(d_in: int, n_latents: int) -> dict[str, torch.Tensor]:
    """Weights of a TopK SAE."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(n_latents, d_in, generator=generator), dim=-1)
    zeros = torch.zeros(n_latents), torch.zeros(d_in)
    return {"W_enc": directions.T.contiguous(), "W_dec": directions, "b_enc": zeros[0], "b_dec": zeros[1]}


def saelens_sae(d_in: int, device: str, folder: Path) -> Any:  # noqa: ANN401 - a class of SAELens
    """The same SAE as SAELens has it, saved to a folder."""
    from sae_lens import TopKSAE, TopKSAEConfig

    sae = TopKSAE(TopKSAEConfig(d_in=d_in, d_sae=N_LATENTS, k=K, device=device))
    sae.load_state_dict(random_sae(d_in, N_LATENTS), strict=False)
    sae.save_model(folder)
    return sae.eval()


def demo_reader(layer: int, device: str) -> tuple[ModelFiles, Reader]:
    """The demo's model, cut off after a layer."""
    files = locate_model(ReaderSpec().model, cache=model_cache(), folder=Path())
    return files, Reader.load(files, layers=[layer], dtype="float32", device=device)


def timed(n_tokens: int, work: Callable[[], object]) -> float:
    """Tokens a second."""
    started = time.perf_counter()
    work()
    return n_tokens / (time.perf_counter() - started)


def measure_rates(n_prompts: int, rounds: int, device_name: str) -> dict[str, float]:
    """Tokens a second of each side, and ours over each: medians of the rounds."""
    device = torch.device(device_name)
    files, reader = demo_reader(LAYER, device_name)
    tokenizer = AutoTokenizer.from_pretrained(tokeniser_folder(files), local_files_only=True)
    prompts = demo_prompts(n_prompts)
    texts = as_texts(prompts, files)
    folder = weights_folder(files, "float32")
    whole: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    whole.eval().to(device)
    bare: Any = AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    bare.eval().to(device)
    bare.layers, bare.norm = bare.layers[: LAYER + 1], torch.nn.Identity()
    with tempfile.TemporaryDirectory() as place:
        sae = saelens_sae(reader.d_model, device_name, Path(place))
        encoder = load_encoder(Path(place), device_name)
    store = saelens_store(whole, tokenizer, prompts, device)
    sample = plan_shards(texts, texts_per_shard=64)[0]
    budget = TokenBudget(token_budget(0, device_name))
    threshold = sink_threshold([read_shard(reader, sample, budget=budget).layers[LAYER]], SINK_MULTIPLE)
    ours = Ours(reader, encoder, LAYER, threshold, budget, DEFAULT_TEXTS_PER_SHARD[device.type])
    tried: dict[int, float] = {}
    for tokens in FLOOR_BUDGETS[device.type] * 2:
        rate = timed(n_tokens_of(texts[:128]), lambda: read_bare(bare, texts[:128], tokens, device))  # noqa: B023
        tried[tokens] = max(rate, tried.get(tokens, 0.0))
    best = max(tried, key=lambda tokens: tried[tokens])
    n_tokens = n_tokens_of(texts)
    print(f"{n_prompts:,} prompts, {n_tokens:,} tokens, {device_name}, {torch.get_num_threads()} threads")
    print(f"floor's best budget {best:,} tokens, ours {budget.tokens:,}\n")

    @torch.inference_mode()
    def saelens() -> None:
        for _ in range(3):
            sae.encode(store.get_filtered_llm_batch())
        wait_for(device)

    # the prompts get harder and longer along the file: batches from all over it
    firsts = np.linspace(0, max(n_prompts - OBVIOUS_BATCH, 0), N_OBVIOUS_BATCHES).astype(int)
    obvious_texts = [text for first in firsts for text in texts[first : first + OBVIOUS_BATCH]]
    sides: dict[str, tuple[int, Callable[[], object]]] = {
        "floor": (n_tokens, lambda: read_bare(bare, texts, best, device)),
        "ours": (n_tokens, lambda: parts.append(ours.run(texts))),
        "obvious": (n_tokens_of(obvious_texts), lambda: read_obviously(whole, sae, obvious_texts, device)),
        "saelens": (3 * CONTEXT_SIZE * N_CONTEXTS, saelens),
    }
    parts: list[dict[str, float]] = []
    rates: dict[str, list[float]] = {side: [] for side in sides}
    print("".join(f"{side:>10}" for side in sides) + "   tokens/s")
    for number in range(rounds):
        for side in list(sides) if number % 2 == 0 else reversed(sides):
            rates[side].append(timed(*sides[side]))
        print("".join(f"{rates[side][-1]:10.0f}" for side in sides))
    print("".join(f"{statistics.median(rates[side]):10.0f}" for side in sides) + "   median")
    print("".join(f"{max(rates[side]):10.0f}" for side in sides) + "   best\n")
    total = sum(sum(part.values()) for part in parts)
    shares = (f"{name} {sum(part[name] for part in parts) / total:.1%}" for name in parts[0])
    print(f"ours: {', '.join(shares)}\n")

    def over(side: str) -> float:
        return statistics.median(mine / other for mine, other in zip(rates["ours"], rates[side], strict=True))

    return {f"ours_over_{side}": round(over(side), 3) for side in ("floor", "obvious", "saelens")}


def peak_rss_bytes(n_prompts: int) -> int:
    """Peak memory of a fresh process that reads so many prompts end to end."""
    command = [sys.executable, __file__, "--peak-of", str(n_prompts)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def read_for_peak(n_prompts: int, device_name: str) -> int:
    """Reads prompts end to end; the peak memory of this process in bytes."""
    files, reader = demo_reader(0, device_name)
    texts = as_texts(demo_prompts(n_prompts), files)
    encoder = TopKEncoder({"architecture": "topk", "k": K}, random_sae(reader.d_model, N_LATENTS), device_name)
    budget = TokenBudget(token_budget(0, device_name))
    Ours(reader, encoder, 0, 1e9, budget, DEFAULT_TEXTS_PER_SHARD[reader.device.type]).run(texts)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True)
class Large:
    """The sizes of the second mode."""

    config: Qwen2Config
    layer: int
    n_latents: int
    k: int
    n_texts: int
    dtype: torch.dtype
    budget: int
    texts_per_shard: int


def large(device: str) -> Large:
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
    return Large(config, 14, 32_768, 64, 103_110, torch.bfloat16, *sizes)


def small() -> Large:
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
    return Large(config, 2, 1_024, 16, 1_000, torch.float32, 4_096, 256)


def made_up_texts(n_texts: int, n_vocabulary: int) -> list[Text]:
    """Texts of random tokens whose lengths spread as those of mathematical problems do, about 100 on average."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(100) - 0.18, 0.6, n_texts), 8, 1_024).astype(np.int64)
    flat = rng.integers(0, n_vocabulary, lengths.sum(), dtype=np.int32)
    views = np.split(flat, lengths.cumsum()[:-1])
    return [Text(f"{number:032x}", ids) for number, ids in enumerate(views)]


def measure_large(sizes: Large, device_name: str) -> dict[str, float | str]:
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
    ours = Ours(reader, encoder, sizes.layer, float("inf"), budget, sizes.texts_per_shard)
    peak = matmul_flops(device_name, 2.0, sizes.dtype)
    sample = texts[: sizes.texts_per_shard]
    n_sample_tokens = n_tokens_of(sample)
    ours.run(sample)  # the first pass chooses algorithms and takes memory
    print(f"{sizes.n_texts:,} texts, {n_tokens_of(texts):,} tokens, {device_name}, {str(sizes.dtype)[6:]}")
    print(f"a large matrix product reaches {peak / 1e12:.1f} TFLOP/s\n\nreading alone, by token budget")
    for tokens in FLOOR_BUDGETS[device.type]:
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
    parser.add_argument("--prompts", type=int, default=1_024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--large", action="store_true", help="a model of Qwen2.5-1.5B's shape on a GPU")
    parser.add_argument("--dry-run", action="store_true", help="with --large: in small")
    parser.add_argument("--skip-memory", action="store_true", help="leave out the two processes that measure memory")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    device = choose_device(arguments.device)
    if arguments.peak_of:
        print(read_for_peak(arguments.peak_of, device))
    elif arguments.large:
        print(json.dumps(measure_large(small() if arguments.dry_run else large(device), device)))
    else:
        figures = measure_rates(arguments.prompts, arguments.rounds, device)
        if not arguments.skip_memory:
            peaks = {n_prompts: peak_rss_bytes(n_prompts) for n_prompts in (2_000, 8_000)}
            print("".join(f"{n_prompts:,} prompts: {peak / 1e6:.0f} MB\n" for n_prompts, peak in peaks.items()))
            figures["rss_8000_over_2000"] = round(peaks[8_000] / peaks[2_000], 3)
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
