"""The example's reward file, as OpenRLHF loads it and calls it for a response."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import make_export
from openrlhf.utils.agent import SingleTurnAgentExecutor
from vllm import SamplingParams

REWARD = Path(__file__).resolve().parents[2] / "examples" / "openrlhf" / "reward.py"


class Text:
    """A tokenizer of characters."""

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        import torch

        return {"input_ids": torch.tensor([[ord(letter) for letter in text]])}

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(map(chr, ids))


class Engine:
    """Says always the same."""

    def __init__(self, said: str) -> None:
        self.said = said

    async def generate(self, *_: Any, **__: Any) -> Any:
        ids = [ord(letter) for letter in self.said]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, finish_reason="stop", logprobs=None)])


def label(prompt_id: str, answer: str = "6") -> dict[str, Any]:
    metadata = {"numbers": [12, 18], "result": 6, "source_dataset": "gcd", "source_index": 3}
    extra = json.dumps({"metadata": json.dumps(metadata)})
    return {"answer": answer, "prompt_id": prompt_id, "epoch": 0, "difficulty": 0.5, "topic": "gcd", "extra": extra}


def respond(said: str, prompt_id: str = "p0") -> dict[str, Any]:
    executor = SingleTurnAgentExecutor(str(REWARD))
    asked = SamplingParams(max_tokens=64, logprobs=None)
    prompt = "<|im_start|>user\nWhat is the GCD of 12 and 18?<|im_end|>\n<|im_start|>assistant\n"
    return asyncio.run(executor.execute(prompt, label(prompt_id), asked, 1024, Text(), Engine(said)))


@pytest.mark.parametrize(
    ("said", "reward"), [("The answer is 6.<|im_end|>", 1.0), ("18 / 3 = 6, so \\boxed{6}</s>", 1.0), ("It is 5.", 0.0)]
)
def test_reasoning_gym_scores_the_response(said: str, reward: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAERL_LOG", raising=False)
    response = respond(said)
    assert float(response["reward"]) == float(response["scores"]) == pytest.approx(reward, abs=0.05)
    assert float(response["extra_logs"]["difficulty"]) == 0.5


def test_every_response_is_noted_with_the_step_that_it_really_belongs_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_export(tmp_path / "a")
    monkeypatch.setenv("SAERL_EXPORT", str(made.folder))
    monkeypatch.setenv("SAERL_SAMPLES", "2")
    monkeypatch.setenv("SAERL_LOG", str(tmp_path / "saerl_log.jsonl"))
    for batch in made.batches[:2]:
        for prompt_id in batch * 2:
            respond("6", prompt_id)
    lines = [json.loads(line) for line in (tmp_path / "saerl_log.jsonl").read_text().splitlines()]
    assert lines[0] == {"manifest_id": "7" * 64, "step": 0, "prompt_id": "prompt00", "reward": 1.0, "epoch": 0}
    assert [line["step"] for line in lines] == [0] * 8 + [1] * 8
