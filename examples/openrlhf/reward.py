"""The reward for OpenRLHF: reasoning-gym's own score of the answer in a response.

OpenRLHF imports this file in every engine that generates (`--reward.remote_url examples/openrlhf/reward.py`) and calls
`reward_func` with one response at a time. What it needs to know about the prompt is in the label that the export wrote.

Where the environment names a file in SAERL_LOG, every response is noted in it as `saerl verify` reads it, with the
step that it really belongs to: OpenRLHF generates a batch to its end before it begins the next one, so the number
of responses noted before says which batch this is, whatever the label says about the plan. Name a new file for a
training that resumes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saerl_assets.domain.gym import extract_answer, score_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARKS = re.compile(r"<\|[^<>|]*\|>|</?s>")
"""Marks of turns and of the end, which OpenRLHF leaves in the text."""


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores responses.

    Args:
        queries: Prompt and response, as text with its marks.
        prompts: The prompts alone, as the chat template has made them.
        labels: What the export says about each prompt.

    Returns:
        What OpenRLHF takes: rewards and scores, one per response, and figures for its log.
    """
    texts = [query.removeprefix(prompt) for query, prompt in zip(queries, prompts, strict=True)]
    scores = [score(text, prompt, label) for text, prompt, label in zip(texts, prompts, labels, strict=True)]
    for found, label in zip(scores, labels, strict=True):
        note(found, label)
    rewards = torch.tensor(scores)
    difficulty = torch.tensor([float(label["difficulty"] or 0.0) for label in labels])
    return {"rewards": rewards, "scores": rewards, "extra_logs": {"difficulty": difficulty}}


def score(text: str, prompt: str, label: dict[str, Any]) -> float:
    """0 to 1, by the scorer of the prompt's task family."""
    metadata = json.loads(label["extra"])["metadata"]
    row = {"prompt": prompt, "answer": label["answer"], "family": label["topic"], "metadata": metadata}
    return score_answer(row, extract_answer(_MARKS.sub("", text), like=label["answer"]))


def note(found: float, label: dict[str, Any]) -> None:
    """Adds a line to the log that SAERL_LOG names; needs SAERL_EXPORT and SAERL_SAMPLES, see the launch files."""
    if "SAERL_LOG" not in os.environ:
        return
    record = json.loads((Path(os.environ["SAERL_EXPORT"]) / "manifest.json").read_text(encoding="utf-8"))
    per_step = record["batch_size"] * int(os.environ["SAERL_SAMPLES"])
    with Path(os.environ["SAERL_LOG"]).open("a+", encoding="utf-8") as log:
        fcntl.flock(log, fcntl.LOCK_EX)  # several engines write
        log.seek(0)
        n_before = sum(1 for _ in log)
        line = {"manifest_id": record["manifest_id"], "step": n_before // per_step, "prompt_id": label["prompt_id"]}
        log.write(json.dumps(line | {"reward": found, "epoch": label["epoch"]}) + "\n")
