"""The reward for verl: reasoning-gym's own score of the answer in a response.

verl imports this file in every reward worker (`reward.custom_reward_function.path=examples/verl/reward.py`) and calls
`compute_score` with one response at a time. What it needs to know about the prompt is in `extra_info`, as the export
wrote it. Prompts of your own, without reasoning-gym's metadata, get 1 where the answer is the reference answer, else 0.

Given a file as `log`, it notes every response there as `saerl verify` reads it, with the step that it really belongs
to: verl's synchronous trainer generates and scores a batch to its end before it begins the next one, so the number of
responses noted before says which batch this is, whatever `extra_info` says about the plan. A response whose generation
failed is not scored, and the count then lags behind. Rows that are not of an export are not noted; rows for validation
must not be of one.
"""

from __future__ import annotations

import fcntl
import json
from functools import cache
from pathlib import Path
from typing import Any

from saerl_assets.domain.gym import extract_answer, score_answer


def compute_score(
    *,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    export: str | None = None,
    log: str | None = None,
    n_responses: int = 1,
    **_: object,
) -> float:
    """Scores one response. verl passes every argument by name, `data_source` among them.

    Args:
        solution_str: The response.
        ground_truth: The reference answer.
        extra_info: The row's `extra_info`, and what verl adds to it.
        export: Folder of the export, for `log`.
        log: File to note the response in.
        n_responses: Responses to one prompt, `actor_rollout_ref.rollout.n`.

    Returns:
        0 to 1.
    """
    told = extra_info or {}
    score = _score(solution_str, ground_truth, told)
    if log and export and "prompt_id" in told:
        _note(Path(log), Path(export), n_responses, told, score)
    return score


def _score(response: str, right: str, told: dict[str, Any]) -> float:
    """By the scorer of the prompt's task family, which is its topic in the demo."""
    found = extract_answer(response, like=right)
    extra = json.loads(told.get("extra") or "{}")
    if "metadata" not in extra:
        return float(found == right)
    family = extra.get("family", told.get("topic"))
    return score_answer({"prompt": "", "answer": right, "family": family, "metadata": extra["metadata"]}, found)


@cache
def _manifest(export: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((export / "manifest.json").read_text(encoding="utf-8"))
    return record


def _note(log: Path, export: Path, n_responses: int, told: dict[str, Any], score: float) -> None:
    """Adds a line to the log."""
    record = _manifest(export)
    with log.open("a+", encoding="utf-8") as lines:
        fcntl.flock(lines, fcntl.LOCK_EX)  # several workers write
        lines.seek(0)
        step = sum(1 for _ in lines) // (record["batch_size"] * n_responses)
        line = {"manifest_id": record["manifest_id"], "step": step, "prompt_id": told["prompt_id"]}
        lines.write(json.dumps(line | {"reward": score, "epoch": told["epoch"]}) + "\n")
