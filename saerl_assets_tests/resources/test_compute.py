"""The resource `compute`: how much fits, and that it is remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from saerl_assets.models import device
from saerl_assets.models.device import TokenBudget
from saerl_assets.resources import compute
from saerl_assets.resources.compute import ComputeResource


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compute._budget.cache_clear()


def budget(dtype: str = "float32", wanted: int = 0) -> TokenBudget:
    return compute._budget("a-model", (3, 5), dtype, "cpu", wanted)


def test_a_budget_that_shrank_is_that_of_the_process_and_of_the_next_one() -> None:
    full = device.DEFAULT_TOKEN_BUDGET["cpu"]
    assert budget().tokens == full
    budget().shrink(full)
    assert budget().tokens == full // 2
    compute._budget.cache_clear()  # another process
    assert (budget().tokens, budget().planned) == (full // 2, full // 2)
    assert budget("bfloat16").tokens == full


def test_a_wanted_budget_is_taken_as_it_is_and_teaches_nothing() -> None:
    budget().shrink(64)
    assert budget(wanted=700).tokens == 700
    budget(wanted=700).shrink(700)
    compute._budget.cache_clear()
    assert (budget().tokens, budget(wanted=700).tokens) == (32, 700)


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"tokens": "many"}', '{"tokens": null}'])
def test_a_damaged_note_counts_as_none(tmp_path: Path, damage: str) -> None:
    budget().shrink(64)
    (note,) = tmp_path.rglob("*.json")
    note.write_text(damage)
    compute._budget.cache_clear()
    assert budget().tokens == device.DEFAULT_TOKEN_BUDGET["cpu"]


def test_a_note_never_gives_more_than_the_devices_budget(tmp_path: Path) -> None:
    budget().shrink(64)
    (note,) = tmp_path.rglob("*.json")
    note.write_text('{"tokens": 10000000}')
    compute._budget.cache_clear()
    assert budget().tokens == device.DEFAULT_TOKEN_BUDGET["cpu"]


def test_the_device_says_what_it_takes() -> None:
    assert "77 tokens a pass" in ComputeResource(device="cpu", token_budget=77).as_metadata()["device"]
    assert ComputeResource(device="cpu").shard_size(10**6) == device.DEFAULT_TEXTS_PER_SHARD["cpu"]
    assert ComputeResource(device="cpu", texts_per_shard=9).shard_size(10**6) == 9
