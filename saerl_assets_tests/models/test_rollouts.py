from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.device import TokenBudget
from saerl_assets.models.rollouts import (
    Ask,
    Completion,
    Sampling,
    TransformersGenerator,
    choose_generator,
    context_length,
    drawn_tokens,
    load_generator,
    uniforms,
)
from saerl_assets.models.sources import ModelFiles, locate_model
from saerl_assets.models.tokeniser import Tokeniser
from saerl_assets_tests.tiny import write_model

SAMPLING = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=12)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    folder = tmp_path_factory.mktemp("policy")
    write_model(folder / "policy", has_head=True, seed=1)
    return locate_model("path:policy", cache=folder / "cache", folder=folder)


@pytest.fixture(scope="module")
def tokeniser(files: ModelFiles) -> Tokeniser:
    return Tokeniser.load(files, "plain")


def engine(files: ModelFiles, tokeniser: Tokeniser, budget: int = 10_000) -> TransformersGenerator:
    made = load_generator(
        "transformers", files, tokeniser, dtype="float32", device="cpu", budget=TokenBudget(budget), longest=99
    )
    assert isinstance(made, TransformersGenerator)
    return made


def asks(tokeniser: Tokeniser, n: int = 12) -> list[Ask]:
    texts = [f"What is {number} + {number**3}?" for number in range(n)]
    return [
        Ask(f"{number:032x}", text.token_ids)
        for number, text in enumerate(tokeniser(texts, [None] * len(texts)), start=1)
    ]


def test_answers_are_sampled_and_end_where_they_end(files: ModelFiles, tokeniser: Tokeniser) -> None:
    made = engine(files, tokeniser).complete(asks(tokeniser, 40), SAMPLING)
    assert len(made) == 40
    assert len({each.text for each in made}) > 30
    assert all(1 <= each.n_tokens <= SAMPLING.max_new_tokens for each in made)
    ended = [each for each in made if not each.is_truncated]
    assert ended, "a random model ends some"
    assert all(each.n_tokens == SAMPLING.max_new_tokens for each in made if each.is_truncated)


@pytest.mark.parametrize("budget", [1, 100, 300])
def test_an_answer_does_not_depend_on_its_batch(files: ModelFiles, tokeniser: Tokeniser, budget: int) -> None:
    wanted = asks(tokeniser)
    together = engine(files, tokeniser).complete(wanted, SAMPLING)
    assert engine(files, tokeniser, budget).complete(wanted, SAMPLING) == together
    assert engine(files, tokeniser).complete(wanted[::-1], SAMPLING)[::-1] == together
    assert engine(files, tokeniser).complete(wanted[5:6], SAMPLING) == together[5:6]


def test_another_seed_is_another_answer_and_a_longer_limit_goes_on(files: ModelFiles, tokeniser: Tokeniser) -> None:
    policy, (first, *_) = engine(files, tokeniser), asks(tokeniser)
    others = [Ask(f"{number:032x}", first.token_ids) for number in range(100, 120)]
    assert len({each.text for each in policy.complete(others, SAMPLING)}) > 15
    short = policy.complete(others, SAMPLING)
    long = policy.complete(others, Sampling(1.0, 0.95, 24))
    for cut, whole in zip(short, long, strict=True):
        assert whole.n_tokens >= cut.n_tokens
        assert whole.text == cut.text or cut.is_truncated


def test_it_samples_what_the_models_own_logits_say(files: ModelFiles, tokeniser: Tokeniser) -> None:
    """First tokens of many rollouts against the distribution that transformers computes, by a test of fit."""
    policy, (first, *_) = engine(files, tokeniser), asks(tokeniser)
    n = 3_000
    one = Sampling(temperature=0.8, top_p=1.0, max_new_tokens=1)
    made = policy._generated([Ask(f"{number:032x}", first.token_ids) for number in range(n)], one)
    with torch.inference_mode():
        logits = policy._model(input_ids=torch.tensor([list(first.token_ids)])).logits[0, -1]
    chances = torch.softmax(logits.double() / 0.8, dim=-1).numpy()
    texts = [tokeniser.completion_of([token]) if token not in policy._ends else "" for token in range(len(chances))]
    for text in sorted(set(texts), key=lambda text: -sum(chances[[t == text for t in texts]]))[:5]:
        expected = float(sum(chances[[other == text for other in texts]]))
        seen = sum(each.text == text for each in made) / n
        assert abs(seen - expected) < 4.5 * np.sqrt(expected * (1 - expected) / n) + 1e-9


def test_what_the_files_suggest_for_sampling_is_not_used(files: ModelFiles, tokeniser: Tokeniser) -> None:
    plain = engine(files, tokeniser)
    suggestive = TransformersGenerator.load(files, tokeniser, dtype="float32", device="cpu", budget=TokenBudget(10_000))
    model: Any = suggestive._model
    model.generation_config.repetition_penalty = 50.0
    again = TransformersGenerator(model, tokeniser, TokenBudget(10_000))
    again._ends = plain._ends
    again._pad = plain._pad
    assert again.complete(asks(tokeniser), SAMPLING) == plain.complete(asks(tokeniser), SAMPLING)


def test_a_batch_that_does_not_fit_is_halved(
    files: ModelFiles, tokeniser: Tokeniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = asks(tokeniser)
    expected = engine(files, tokeniser).complete(wanted, SAMPLING)
    policy, sizes = engine(files, tokeniser), []
    generated = TransformersGenerator._generated

    def small(self: TransformersGenerator, batch: Sequence[Ask], sampling: Sampling) -> list[Completion]:
        sizes.append(len(batch))
        if len(batch) > 4:
            raise torch.OutOfMemoryError
        return generated(self, batch, sampling)

    monkeypatch.setattr(TransformersGenerator, "_generated", small)
    assert policy.complete(wanted, SAMPLING) == expected
    assert sizes[0] == 12
    assert max(sizes[2:]) <= 4
    assert policy._budget.tokens < 10_000


def test_one_answer_that_does_not_fit_is_told(
    files: ModelFiles, tokeniser: Tokeniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> list[Completion]:
        raise torch.OutOfMemoryError

    policy = engine(files, tokeniser)
    monkeypatch.setattr(policy, "_generated", never)
    with pytest.raises(SaerlError, match=r"outcomes\.max_new_tokens") as raised:
        policy.complete(asks(tokeniser), SAMPLING)
    assert raised.value.code == "out_of_memory"


def test_a_bare_decoder_is_no_policy(tmp_path: Path) -> None:
    write_model(tmp_path / "reader")
    bare = locate_model("path:reader", cache=tmp_path / "cache", folder=tmp_path)
    with pytest.raises(SaerlError) as raised:
        engine(bare, Tokeniser.load(bare, "plain"))
    assert raised.value.code == "model_incomplete"


def test_the_context_is_known(files: ModelFiles) -> None:
    assert context_length(files) == 256


def test_streams_are_uniform_independent_and_stable() -> None:
    one = uniforms("0" * 31 + "1", 2_000)
    assert np.array_equal(uniforms("0" * 31 + "1", 50), one[:50])
    assert abs(one.mean() - 0.5) < 0.03
    assert one.min() >= 0
    assert one.max() < 1
    assert abs(np.corrcoef(one, uniforms("0" * 31 + "2", 2_000))[0, 1]) < 0.1


@settings(max_examples=200)
@given(
    st.lists(st.floats(-8, 8), min_size=2, max_size=400),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.3, 2),
    st.floats(0.05, 1),
)
def test_a_drawn_token_is_possible(logits: list[float], draw: float, temperature: float, top_p: float) -> None:
    row = torch.tensor([logits], dtype=torch.float32)
    (token,) = drawn_tokens(row, torch.tensor([draw]), temperature, top_p).tolist()
    chances = torch.softmax(row[0].double() / temperature, dim=-1)
    likelier = float(chances[chances > chances[token] + 1e-12].sum())
    assert likelier < top_p + 1e-9, "the token is among the likeliest that make up top_p"


def test_draws_follow_the_chances() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(1000, 1)
    draws = (torch.arange(1000) + 0.5) / 1000
    counts = torch.bincount(drawn_tokens(logits, draws, 1.0, 1.0), minlength=4).tolist()
    assert counts == [500, 300, 150, 50]
    nucleus = torch.bincount(drawn_tokens(logits, draws, 1.0, 0.7), minlength=4).tolist()
    assert nucleus == [625, 375, 0, 0]
    cold = torch.bincount(drawn_tokens(logits, draws, 0.01, 1.0), minlength=4).tolist()
    assert cold == [1000, 0, 0, 0]


def test_a_flat_distribution_over_many_tokens_uses_all_of_them() -> None:
    logits = torch.zeros(2_000, 1_000)
    drawn = drawn_tokens(logits, (torch.arange(2_000) + 0.5) / 2_000, 1.0, 0.9)
    assert len(set(drawn.tolist())) in {900, 901}, "more than the likeliest that are looked at first"


# ---------------------------------------------------------------- engines


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of that name that answers every prompt with its number of tokens."""
    fake: Any = ModuleType("vllm")

    class LLM:
        def __init__(self, **settings: object) -> None:
            fake.loaded = settings

        def generate(self, prompts: list[dict[str, Any]], chosen: list[Any], *, use_tqdm: bool) -> list[Any]:
            assert not use_tqdm
            fake.chosen = chosen
            return [
                SimpleNamespace(
                    outputs=[
                        SimpleNamespace(
                            text=str(len(prompt["prompt_token_ids"])),
                            token_ids=[1, 2],
                            finish_reason="length" if place else "stop",
                        )
                    ]
                )
                for place, prompt in enumerate(prompts)
            ]

    fake.LLM, fake.SamplingParams = LLM, SimpleNamespace
    fake.__spec__ = importlib.util.spec_from_loader("vllm", loader=None)
    monkeypatch.setitem(sys.modules, "vllm", fake)
    return fake  # type: ignore[no-any-return]


def test_vllm_answers_where_it_is_asked_to(vllm: ModuleType, files: ModelFiles, tokeniser: Tokeniser) -> None:
    made = load_generator(
        "vllm", files, tokeniser, dtype="bfloat16", device="cuda:0", budget=TokenBudget(1), longest=99
    )
    assert made.name == "vllm"
    assert vllm.loaded["model"] == str(files.folder)
    assert vllm.loaded["trust_remote_code"] is False
    assert vllm.loaded["max_model_len"] == 99
    assert 0 < vllm.loaded["gpu_memory_utilization"] <= 0.9
    wanted = [Ask("0000000a" + "0" * 24, [1, 2, 3]), Ask("f" * 32, [1])]
    assert made.complete(wanted, SAMPLING) == [Completion("3", 2, False), Completion("1", 2, True)]
    assert [each.seed for each in vllm.chosen] == [10, 0xFFFFFFFF]
    assert {(each.temperature, each.top_p, each.max_tokens, each.n) for each in vllm.chosen} == {(1.0, 0.95, 12, 1)}


@pytest.mark.usefixtures("vllm")
def test_auto_takes_vllm_on_a_gpu_alone_and_not_for_gguf(files: ModelFiles) -> None:
    assert choose_generator("auto", files, "cuda:0") == "vllm"
    assert choose_generator("auto", files, "cpu") == "transformers"
    gguf = ModelFiles("path:x.gguf", files.folder, "x.gguf", "d", files.workspace)
    assert choose_generator("auto", gguf, "cuda:0") == "transformers"
    assert choose_generator("transformers", files, "cuda:0") == "transformers"
    assert choose_generator("vllm", files, "cpu") == "vllm"


def test_without_vllm_there_is_transformers(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert choose_generator("auto", files, "cuda:0") == "transformers"
    with pytest.raises(SaerlError) as raised:
        choose_generator("vllm", files, "cuda:0")
    assert raised.value.code == "vllm_missing"
    with pytest.raises(SaerlError) as raised:
        choose_generator("sglang", files, "cuda:0")
    assert raised.value.code == "unknown_generator"
