"""Which steps' seconds count for which arm."""

from __future__ import annotations

from typing import Any

import pytest

from saerl_assets.domain.spec import VersionSpec
from saerl_assets.resources import step_times

ARMS = ("shuffle", "clustered", "length_difficulty", "dense_state")


def costs(monkeypatch: pytest.MonkeyPatch, **changes: object) -> dict[str, float]:
    """By arm how many steps count, each taken to last a second."""
    monkeypatch.setattr(step_times, "_seconds", lambda *_: 1.0)
    instance: Any = None
    spec = VersionSpec.model_validate({"key": "a-v1", "data": {"source": "path:x"}} | changes)
    found = step_times.signal_costs(instance, [], spec, ARMS, device="cpu")
    return {arm: cost.seconds for arm, cost in found.items()}


def test_a_range_of_difficulty_makes_difficulty_a_cost_of_every_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = costs(monkeypatch)
    ranged = costs(monkeypatch, difficulty={"max_rank": 0.9})
    assert "shuffle" not in whole
    assert ranged["clustered"] == whole["clustered"]
    assert ranged["length_difficulty"] == whole["length_difficulty"] + 2, "the rollouts and the scores"
    assert ranged["dense_state"] == whole["dense_state"] + 1, "the scores; the rollouts count already"
