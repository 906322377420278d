"""Rollouts: a policy's answers to prompts, sampled batch by batch.

Belongs here: generating with transformers or vLLM, drawing tokens, what fits the device. Does not belong here: which
prompts are answered and what an answer is worth (domain.outcomes, domain.verifiers), where answers are kept.

Each rollout has a random stream of its own, named by its id: one uniform number a token, put through the inverse of the
cumulative distribution. So a rollout does not depend on what else is in its batch, but for the last bits of the logits,
which other sums of the same numbers change; those move a token only where the draw falls on the border between two.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.device import TokenBudget, release_memory
from saerl_assets.models.gguf import tokeniser_folder
from saerl_assets.models.reader import check_complete, load_weights
from saerl_assets.models.sources import ModelFiles
from saerl_assets.models.tokeniser import Tokeniser

GeneratorName = Literal["transformers", "vllm"]
ROLLOUTS_PER_SHARD = {"cpu": 64, "cuda": 1_024, "mps": 128}
"""Rollouts that are made and kept together; an interrupted run loses at most so many."""
BUDGET_MULTIPLE = 4
"""Tokens in one batch of generation for each in a pass of the reader: each token that is written is a pass in which a
row is one token, so that wide batches pay. What they need is memory for keys and values."""
VLLM_MEMORY_FRACTION = 0.9
N_LIKELIEST = 256
"""Tokens among which those of top_p nearly always are, so that the whole vocabulary need not be sorted."""


@dataclass(frozen=True)
class Ask:
    """One rollout to be made."""

    rollout_id: str
    """32 hex digits; the seed of what is drawn."""
    token_ids: Sequence[int]
    """The prompt as the policy reads it."""


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled."""

    temperature: float
    top_p: float
    max_new_tokens: int


@dataclass(frozen=True)
class Completion:
    """What the policy wrote."""

    text: str
    n_tokens: int
    """Tokens written, the one that ends the answer included."""
    is_truncated: bool
    """It did not end within the limit."""


class Generator(Protocol):
    """What makes completions."""

    name: GeneratorName

    def complete(self, asks: Sequence[Ask], sampling: Sampling) -> list[Completion]:
        """A completion for each, in their order."""


def choose_generator(wanted: str, files: ModelFiles, device: str) -> GeneratorName:
    """What generates: `auto` takes vLLM where it is installed, the device is a CUDA GPU, and the files are not GGUF.

    Args:
        wanted: `auto`, `transformers` or `vllm`.
        files: The policy's.
        device: Name of the device.

    Raises:
        SaerlError: `unknown_generator`, `vllm_missing`.
    """
    if wanted not in {"auto", "transformers", "vllm"}:
        remedy = "Choose auto, transformers or vllm."
        raise SaerlError(
            "unknown_generator", f"{wanted!r} generates nothing.", where="compute.generator", remedy=remedy
        )
    is_there = importlib.util.find_spec("vllm") is not None
    if wanted == "vllm" and not is_there:
        remedy = "pip install vllm, or set compute.generator to auto."
        raise SaerlError("vllm_missing", "vLLM is not installed.", where="compute.generator", remedy=remedy)
    if wanted == "auto":
        fits = is_there and device.startswith("cuda") and files.gguf_file is None
        return "vllm" if fits else "transformers"
    return "vllm" if wanted == "vllm" else "transformers"


def load_generator(
    name: GeneratorName,
    files: ModelFiles,
    tokeniser: Tokeniser,
    *,
    dtype: str,
    device: str,
    budget: TokenBudget,
    longest: int,
) -> Generator:
    """Loads the policy.

    Args:
        name: As `choose_generator` gives it.
        files: The policy's.
        tokeniser: Its tokenizer.
        dtype: Number format.
        device: Name of the device; vLLM takes the CUDA devices that it sees.
        budget: Tokens in one batch of transformers.
        longest: Tokens of the longest prompt and answer, for which vLLM keeps room.

    Raises:
        SaerlError: `model_corrupt`, `model_incomplete`, also where the files have no language-model head.
    """
    if name == "vllm":
        return VllmGenerator(files, dtype=dtype, longest=longest)
    return TransformersGenerator.load(files, tokeniser, dtype=dtype, device=device, budget=budget)


def context_length(files: ModelFiles) -> int | None:
    """Tokens that the policy can read and write in all; None where its configuration does not say."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tokeniser_folder(files), local_files_only=True).get_text_config()
    found = getattr(config, "max_position_embeddings", None)
    return None if found is None else int(found)


class TransformersGenerator:
    """Generation with `transformers`, on any device."""

    name: GeneratorName = "transformers"

    def __init__(self, model: Any, tokeniser: Tokeniser, budget: TokenBudget) -> None:  # noqa: ANN401 - any architecture
        self._model, self._tokeniser, self._budget = model, tokeniser, budget
        self._ends = _ends_of(model, tokeniser)
        self._pad = min(self._ends, default=0)
        # What a model's files suggest, such as a penalty on repeats, is not what the trainer samples with.
        model.generation_config = _generation()

    @classmethod
    def load(
        cls, files: ModelFiles, tokeniser: Tokeniser, *, dtype: str, device: str, budget: TokenBudget
    ) -> TransformersGenerator:
        """Loads all weights; see `load_generator`."""
        from transformers import AutoModelForCausalLM

        model, found = load_weights(AutoModelForCausalLM, files, dtype)
        check_complete(found, files)
        return cls(model.to(device), tokeniser, budget)

    def complete(self, asks: Sequence[Ask], sampling: Sampling) -> list[Completion]:
        """A completion for each, in their order. A batch that does not fit halves the budget, also for later ones.

        Raises:
            SaerlError: `out_of_memory` if one answer alone does not fit.
        """
        order = sorted(range(len(asks)), key=lambda place: (len(asks[place].token_ids), asks[place].rollout_id))
        found: dict[int, Completion] = {}
        while len(found) < len(order):
            rest = order[len(found) :]
            widths = [len(asks[place].token_ids) + sampling.max_new_tokens for place in rest]
            batch = rest[: _n_rows(widths, self._budget.tokens)]
            made = self._unless_out_of_memory([asks[place] for place in batch], sampling)
            if made is None:
                self._budget.shrink(len(batch) * widths[len(batch) - 1])
                release_memory()
                continue
            found.update(zip(batch, made, strict=True))
        return [found[place] for place in range(len(asks))]

    def _unless_out_of_memory(self, asks: Sequence[Ask], sampling: Sampling) -> list[Completion] | None:
        """The batch's completions, or None: the error is left behind here, since it holds on to what was allocated."""
        try:
            return self._generated(asks, sampling)
        except torch.OutOfMemoryError as error:
            if len(asks) > 1:
                return None
            problem = f"One answer to a prompt of {len(asks[0].token_ids)} tokens does not fit the device's memory."
            remedy = "Lower outcomes.max_new_tokens, use outcomes.dtype = 'bfloat16', or a device with more memory."
            raise SaerlError("out_of_memory", problem, where="outcomes", remedy=remedy) from error

    @torch.inference_mode()
    def _generated(self, asks: Sequence[Ask], sampling: Sampling) -> list[Completion]:
        lengths = np.array([len(ask.token_ids) for ask in asks])
        longest = int(lengths.max())
        is_prompt = (
            np.arange(longest) >= longest - lengths[:, None]
        )  # padded on the left, so that all answers start alike
        padded = np.full(is_prompt.shape, self._pad, dtype=np.int64)
        padded[is_prompt] = np.concatenate([np.asarray(ask.token_ids, dtype=np.int64) for ask in asks])
        draws = torch.from_numpy(np.stack([uniforms(ask.rollout_id, sampling.max_new_tokens) for ask in asks]))
        device = self._model.device
        out = self._model.generate(
            input_ids=torch.from_numpy(padded).to(device),
            attention_mask=torch.from_numpy(is_prompt.astype(np.int64)).to(device),
            generation_config=_generation(
                max_new_tokens=sampling.max_new_tokens,
                do_sample=False,  # the processor leaves one token possible, the one that was drawn
                eos_token_id=sorted(self._ends) or None,
                pad_token_id=self._pad,
            ),
            logits_processor=LogitsProcessorList([_Drawn(draws, sampling, longest)]),
        )
        return [self._completion(row, sampling) for row in out[:, longest:].tolist()]

    def _completion(self, token_ids: list[int], sampling: Sampling) -> Completion:
        end = next((place for place, token in enumerate(token_ids) if token in self._ends), None)
        written = token_ids if end is None else token_ids[:end]
        n_tokens = len(token_ids) if end is None else end + 1
        is_truncated = end is None and n_tokens >= sampling.max_new_tokens
        return Completion(self._tokeniser.completion_of(written), n_tokens, is_truncated)


class VllmGenerator:
    """Generation with vLLM, which plans its own batches and memory. Its draws are its own, seeded by rollout."""

    name: GeneratorName = "vllm"

    def __init__(self, files: ModelFiles, *, dtype: str, longest: int) -> None:
        self._vllm: Any = importlib.import_module("vllm")  # by name: it is on few machines, and untyped
        self._model = self._vllm.LLM(
            model=str(files.folder),
            dtype=dtype,
            trust_remote_code=False,
            max_model_len=longest,
            gpu_memory_utilization=_free_fraction(),
        )

    def complete(self, asks: Sequence[Ask], sampling: Sampling) -> list[Completion]:
        """A completion for each, in their order."""
        prompts = [{"prompt_token_ids": list(ask.token_ids)} for ask in asks]
        chosen = [
            self._vllm.SamplingParams(
                n=1,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                seed=int(ask.rollout_id[:8], 16),
            )
            for ask in asks
        ]
        answers = [output.outputs[0] for output in self._model.generate(prompts, chosen, use_tqdm=False)]
        return [Completion(answer.text, len(answer.token_ids), answer.finish_reason == "length") for answer in answers]


def uniforms(rollout_id: str, n: int) -> NDArray[np.float64]:
    """The random stream of one rollout: float64 [n], uniform in [0, 1); a longer one begins with the shorter one."""
    return np.random.Generator(np.random.Philox(key=int(rollout_id, 16))).random(n)


def drawn_tokens(logits: torch.Tensor, draws: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """One token for each row: the inverse of the cumulative distribution at the row's draw.

    Args:
        logits: [n, n_vocabulary].
        draws: [n], uniform in [0, 1).
        temperature: Divides the logits.
        top_p: Only the likeliest tokens that make up this share are possible; the one that passes it included.

    Returns:
        int64 [n].
    """
    chances = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p >= 1.0:
        return _at(chances, draws)
    n_likeliest = min(N_LIKELIEST, chances.shape[-1])
    likeliest, tokens = chances.topk(n_likeliest, dim=-1)
    if n_likeliest < chances.shape[-1] and bool((likeliest.sum(dim=-1) < top_p).any()):
        likeliest, tokens = chances.sort(dim=-1, descending=True, stable=True)
    before = likeliest.cumsum(dim=-1) - likeliest
    places = _at(torch.where(before < top_p, likeliest, 0.0), draws)
    return tokens.gather(-1, places[:, None])[:, 0]


def _at(chances: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Where each row's draw falls among its chances [n, m], which need not sum to 1: int64 [n]."""
    precise = torch.float32 if chances.device.type == "mps" else torch.float64
    passed = chances.cumsum(dim=-1, dtype=precise)
    places = torch.searchsorted(passed, draws.to(passed)[:, None] * passed[:, -1:], right=True)
    # rounding may put a draw behind the last token that is possible: 1 where there is a chance, counted from behind
    last = chances.shape[-1] - 1 - (chances.flip(-1) > 0).to(torch.uint8).argmax(dim=-1, keepdim=True)
    return torch.minimum(places, last)[:, 0]


class _Drawn(LogitsProcessor):  # type: ignore[misc, unused-ignore]
    """Leaves one token of each row possible: the one that its stream draws at this position."""

    def __init__(self, draws: torch.Tensor, sampling: Sampling, n_prompt: int) -> None:
        self._draws, self._sampling, self._n_prompt = draws, sampling, n_prompt

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        draws = self._draws[:, input_ids.shape[1] - self._n_prompt]
        chosen = drawn_tokens(scores, draws, self._sampling.temperature, self._sampling.top_p)
        left: Any = torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)
        return left  # type: ignore[no-any-return]


def _free_fraction() -> float:
    """The share of a GPU's memory that vLLM may take: most of what the reader and others have left."""
    if not torch.cuda.is_available():
        return VLLM_MEMORY_FRACTION
    free, total = torch.cuda.mem_get_info()
    return VLLM_MEMORY_FRACTION * free / total


def _generation(**settings: object) -> GenerationConfig:
    return GenerationConfig(**settings)  # type: ignore[no-untyped-call]


def _n_rows(widths: Sequence[int], budget: int) -> int:
    """How many of the first rows fit the budget, padded to the widest; at least one. Widths ascend."""
    n = 1
    while n < len(widths) and (n + 1) * widths[n] <= budget:
        n += 1
    return n


def _ends_of(model: Any, tokeniser: Tokeniser) -> frozenset[int]:  # noqa: ANN401 - any architecture
    """Tokens that end an answer: the model's own, of which there may be several, and the tokenizer's."""
    found = model.generation_config.eos_token_id
    own = [] if found is None else [found] if isinstance(found, int) else list(found)
    end = tokeniser.end_token_id
    return frozenset([*own, *([] if end is None else [end])])
