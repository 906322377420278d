"""How fast prompts become sparse features, against a bare forward pass and against the ways that people know.

    python benchmarks/extraction.py [--prompts 1024] [--rounds 5] [--device cpu]
    python benchmarks/extraction.py --prompts-from prompts.jsonl:question

Reads prompts with the demo's model up to layer 15 and an SAE of 4,096 latents, k = 32, with random weights: the demo's
prompts, or some of a file (JSONL, JSON, CSV, Parquet; the field may be a path such as prompt.0.content): batches of 32
as they lie there, evenly from the shortest to the longest. It measures in one process, the sides in turn, and prints
the medians of the rounds:

- floor: transformers' own model, cut off after the layer, batches sorted by length at the budget that suits it best
  (tried first); no SAE, nothing written;
- ours: features and dense states, shards on disk;
- obvious: the model as `AutoModelForCausalLM` loads it, batches of 32 in file order, padded to their longest,
  `output_hidden_states=True`, `sae.encode` of every token, a maximum over those that are no padding. Of more than
  six batches it runs six, again evenly from the shortest to the longest;
- no head: the same with `AutoModel`, which computes no logits; printed only;
- SAELens: its `ActivationsStore` over its wrapper for models of transformers, which stops at the layer too, and
  `sae.encode`. It packs texts into contexts of 128 tokens and makes no rows of prompts.

How far the obvious way falls behind depends on the model and on the prompts, and is counted beside what is measured:
the operations that it spends on a token where ours spends one, and the padding in its batches over that in ours.

Rates are in tokens of text: padding counts as time, not as tokens. On a busy machine no rate means anything by itself;
the ratios are medians over rounds of what ran next to each other. Where other work takes most of the processors, count
the seconds that the process has them instead of those of the wall: `OMP_NUM_THREADS=1` and `--processor-time`.

Peak memory is that of two fresh processes with 2,000 and 8,000 of the demo's prompts, whatever else is measured. They
read up to layer 0: the fewer weights are in memory, the more what grows with the prompts counts. The last line is one
JSON object.
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
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from extraction_run import BUDGETS_TO_TRY, Extraction, n_tokens_of, random_sae, timed
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from saerl_assets.domain.fields import Field, field_names, unknown_field
from saerl_assets.domain.gym import generate_rows, parse_tasks
from saerl_assets.domain.spec import ReaderSpec
from saerl_assets.models.activations import sink_threshold
from saerl_assets.models.device import (
    DEFAULT_TEXTS_PER_SHARD,
    TokenBudget,
    choose_device,
    token_budget,
    wait_for,
)
from saerl_assets.models.extraction import read_shard
from saerl_assets.models.gguf import tokeniser_folder, weights_folder
from saerl_assets.models.reader import Reader
from saerl_assets.models.saes import TopKEncoder, load_encoder
from saerl_assets.models.sources import ModelFiles, locate_model
from saerl_assets.models.texts import Text, batches, plan_shards
from saerl_assets.storage.home import model_cache
from saerl_assets.storage.sources import read_source, resolve_source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from saerl_assets.models.saes import Encoder

Item = TypeVar("Item")

TASKS_FILE = Path(__file__).parents[1] / "examples" / "demo" / "tasks.toml"
LAYER, N_LATENTS, K = 15, 4_096, 32
OBVIOUS_BATCH, N_OBVIOUS_BATCHES = 32, 6
CONTEXT_SIZE, N_CONTEXTS = 128, 8
SINK_MULTIPLE = 10.0


def demo_prompts(n_prompts: int) -> list[str]:
    """The demo's prompts, and more of the same kind."""
    mix = parse_tasks(tomllib.loads(TASKS_FILE.read_text())).model_copy(update={"n_rows": n_prompts})
    return [str(row["prompt"]) for row in generate_rows(mix)]


def prompts_from(place: str, n_prompts: int) -> list[str]:
    """Prompts of a file, given as `FILE` with a field `prompt` or as `FILE:field`: whole batches of it, `some_batches`.

    Raises:
        SaerlError: What is wrong with the file; `unknown_field`.
    """
    name, separator, path = (place, "", "") if Path(place).exists() else place.rpartition(":")
    field = Field(path if separator else "prompt")
    rows = [row.value for row in read_source(resolve_source(f"path:{name}", Path())) if row.value is not None]
    prompts = [value for row in rows if isinstance(value := field.of(row), str) and value]
    if not prompts:
        raise unknown_field(field.path, "--prompts-from", field_names(rows[:100]), name)
    return some_batches(prompts, -(-n_prompts // OBVIOUS_BATCH), length=len)[:n_prompts]


def some_batches(items: Sequence[Item], n_batches: int, length: Callable[[Item], int]) -> list[Item]:
    """What is in some of the batches of 32 that a file is read in, evenly from the shortest of them to the longest.

    Their padding is then about that of all batches, which few batches from anywhere may miss by far.
    """
    found = [items[start : start + OBVIOUS_BATCH] for start in range(0, len(items), OBVIOUS_BATCH)]
    by_longest = sorted(range(len(found)), key=lambda place: max(map(length, found[place])))
    n_taken = min(n_batches, len(found))
    chosen = sorted(by_longest[int((rank + 0.5) * len(found) / n_taken)] for rank in range(n_taken))
    return [item for place in chosen for item in found[place]]


def as_texts(prompts: Sequence[str], files: ModelFiles) -> list[Text]:
    """Texts with token ids of 4 bytes, in the order of the prompts."""
    tokenizer = AutoTokenizer.from_pretrained(tokeniser_folder(files), local_files_only=True)
    token_ids: list[NDArray[np.int32]] = []
    for start in range(0, len(prompts), 500):
        token_ids += [np.array(ids, dtype=np.int32) for ids in tokenizer(prompts[start : start + 500])["input_ids"]]
    names = np.random.default_rng(0).permutation(len(prompts))  # ids are hashes: they put texts into shards at random
    return [Text(f"{name:032x}", ids) for name, ids in zip(names, token_ids, strict=True)]


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


def padding_in_file_order(texts: Sequence[Text]) -> float:
    """Tokens with padding over tokens without, in batches of the obvious way."""
    lengths = [len(text.token_ids) for text in texts]
    parts = [lengths[start:][:OBVIOUS_BATCH] for start in range(0, len(lengths), OBVIOUS_BATCH)]
    return sum(len(part) * max(part) for part in parts) / sum(lengths)


@dataclass(frozen=True)
class Operations:
    """Multiplications and additions that a token costs in matrix products with weights; attention's own are left out.

    Both ways encode alike.
    """

    blocks_read: int
    blocks_above: int
    head: int
    encoder: int

    @classmethod
    def of(cls, whole: Any, encoder: Encoder) -> Operations:  # noqa: ANN401 - a causal language model
        """Of a model and an SAE."""
        per_block = [
            2 * sum(weight.numel() for weight in block.parameters() if weight.ndim == 2)
            for block in whole.get_decoder().layers
        ]
        head = 2 * whole.get_output_embeddings().weight.numel()
        encoder_operations = 2 * encoder.d_in * encoder.n_latents
        return cls(sum(per_block[: LAYER + 1]), sum(per_block[LAYER + 1 :]), head, encoder_operations)

    def over_ours(self, *, has_head: bool) -> float:
        """Those of the whole model over those of the blocks that are read, encoding included on both sides."""
        ours = self.blocks_read + self.encoder
        return (ours + self.blocks_above + has_head * self.head) / ours


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


def measure_rates(
    prompts: Sequence[str], rounds: int, device_name: str, clock: Callable[[], float]
) -> dict[str, float | None]:
    """Tokens a second of each side, and ours over each: medians of the rounds."""
    device = torch.device(device_name)
    files, reader = demo_reader(LAYER, device_name)
    tokenizer = AutoTokenizer.from_pretrained(tokeniser_folder(files), local_files_only=True)
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
    ours = Extraction(reader, encoder, LAYER, threshold, budget, DEFAULT_TEXTS_PER_SHARD[device.type])
    best = best_budget(bare, texts[: max(len(texts) // 4, 32)][:128], device)
    n_tokens, some = n_tokens_of(texts), some_batches(texts, N_OBVIOUS_BATCHES, length=lambda text: len(text.token_ids))
    print(f"{len(texts):,} prompts, {n_tokens:,} tokens, {device_name}, {torch.get_num_threads()} threads")
    print(f"floor's best budget {best:,} tokens, ours {budget.tokens:,}\n")

    @torch.inference_mode()
    def saelens() -> None:
        for _ in range(3):
            sae.encode(store.get_filtered_llm_batch())
        wait_for(device)

    parts: list[dict[str, float]] = []
    sides: dict[str, tuple[int, Callable[[], object]]] = {
        "floor": (n_tokens, lambda: read_bare(bare, texts, best, device)),
        "ours": (n_tokens, lambda: parts.append(ours.run(texts))),
        "obvious": (n_tokens_of(some), lambda: read_obviously(whole, sae, some, device)),
        "no head": (n_tokens_of(some), lambda: read_obviously(whole.get_decoder(), sae, some, device)),
        "saelens": (3 * CONTEXT_SIZE * N_CONTEXTS, saelens),
    }
    rates = take_turns(sides, rounds, clock)

    def over(side: str) -> float:
        return statistics.median(mine / other for mine, other in zip(rates["ours"], rates[side], strict=True))

    total = sum(sum(part.values()) for part in parts)
    shares = (f"{name} {sum(part[name] for part in parts) / total:.1%}" for name in parts[0])
    print(f"ours: {', '.join(shares)}\n")
    print("\n".join(expectation(Operations.of(whole, encoder), ours, texts, some, over)), end="\n\n")
    return {f"ours_over_{side}": round(over(side), 3) for side in ("floor", "obvious", "saelens")}


def take_turns(
    sides: dict[str, tuple[int, Callable[[], object]]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Tokens a second of each side in each round, the sides in turn, every second round backwards."""
    rates: dict[str, list[float]] = {side: [] for side in sides}
    print("".join(f"{side:>10}" for side in sides) + "   tokens/s")
    for number in range(rounds):
        for side in list(sides) if number % 2 == 0 else reversed(sides):
            rates[side].append(timed(*sides[side], clock))
        print("".join(f"{rates[side][-1]:10.0f}" for side in sides))
    print("".join(f"{statistics.median(rates[side]):10.0f}" for side in sides) + "   median")
    print("".join(f"{max(rates[side]):10.0f}" for side in sides) + "   best\n")
    return rates


def best_budget(model: Any, texts: Sequence[Text], device: torch.device) -> int:  # noqa: ANN401 - a class of transformers
    """The token budget at which a bare forward pass is fastest, each tried twice."""
    n_tokens, tried = n_tokens_of(texts), dict[int, float]()
    for tokens in BUDGETS_TO_TRY[device.type] * 2:
        rate = timed(n_tokens, lambda: read_bare(model, texts, tokens, device))  # noqa: B023
        tried[tokens] = max(rate, tried.get(tokens, 0.0))
    return max(tried, key=lambda tokens: tried[tokens])


def expectation(
    operations: Operations, ours: Extraction, texts: Sequence[Text], some: Sequence[Text], over: Callable[[str], float]
) -> list[str]:
    """Lines: how many times as fast ours has to be by counting, beside how many times it was."""
    own_padding, padding = ours.padded_tokens(texts) / n_tokens_of(texts), padding_in_file_order(texts)
    measured_padding = padding_in_file_order(some)
    lines = [
        f"padding: {padding:.2f} times the tokens in file order, {own_padding:.2f} in ours",
        f"the {len(some):,} prompts that the obvious way was measured on: {measured_padding:.2f}",
        f"{'ours over':12}{'operations':>12}{'padding':>10}{'expected':>10}{'measured':>10}",
    ]
    for side, has_head in (("obvious", True), ("no head", False)):
        factors = operations.over_ours(has_head=has_head), measured_padding / own_padding
        cells = f"{factors[0]:12.2f}{factors[1]:10.2f}{factors[0] * factors[1]:10.2f}{over(side):10.2f}"
        lines.append(f"{side:12}{cells}")
    return lines


def peak_rss_bytes(n_prompts: int) -> int:
    """Peak memory of a fresh process that reads so many prompts end to end."""
    command = [sys.executable, __file__, "--peak-of", str(n_prompts)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def memory_ratio() -> float:
    """Peak memory with 8,000 prompts over that with 2,000."""
    peaks = {n_prompts: peak_rss_bytes(n_prompts) for n_prompts in (2_000, 8_000)}
    print("".join(f"{n_prompts:,} prompts: {peak / 1e6:.0f} MB\n" for n_prompts, peak in peaks.items()))
    return round(peaks[8_000] / peaks[2_000], 3)


def read_for_peak(n_prompts: int, device_name: str) -> int:
    """Reads prompts end to end; the peak memory of this process in bytes."""
    files, reader = demo_reader(0, device_name)
    texts = as_texts(demo_prompts(n_prompts), files)
    encoder = TopKEncoder({"architecture": "topk", "k": K}, random_sae(reader.d_model, N_LATENTS), device_name)
    budget = TokenBudget(token_budget(0, device_name))
    Extraction(reader, encoder, 0, 1e9, budget, DEFAULT_TEXTS_PER_SHARD[reader.device.type]).run(texts)
    return own_peak_bytes()


def own_peak_bytes() -> int:
    """Peak memory of this process.

    On Linux not by `getrusage`, whose peak a process takes over from the one that has started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1_024)
    parser.add_argument(
        "--prompts-from", metavar="FILE[:field]", help="your own prompts; the field is prompt by default"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--processor-time", action="store_true", help="seconds of the process instead of the wall")
    parser.add_argument("--skip-memory", action="store_true", help="leave out the two processes that measure memory")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    device = choose_device(arguments.device)
    if arguments.peak_of:
        print(read_for_peak(arguments.peak_of, device))
        return
    given, n_prompts = arguments.prompts_from, arguments.prompts
    prompts = prompts_from(given, n_prompts) if given else demo_prompts(n_prompts)
    clock = time.process_time if arguments.processor_time else time.perf_counter
    figures = measure_rates(prompts, arguments.rounds, device, clock)
    figures["rss_8000_over_2000"] = None if arguments.skip_memory else memory_ratio()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
