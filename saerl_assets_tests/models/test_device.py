"""The device: chosen, refused with what there is, and how much it takes at once."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models import device
from saerl_assets.models.device import (
    Stopwatch,
    TokenBudget,
    choose_device,
    texts_per_shard,
    to_device,
    to_host,
    token_budget,
    wait_for,
)


@pytest.mark.parametrize(
    ("there", "wanted", "expected"),
    [
        (["cpu"], "auto", "cpu"),
        (["cpu", "cuda:0", "cuda:1"], "auto", "cuda:0"),
        (["cpu", "cuda:0", "cuda:1"], "cuda", "cuda:0"),
        (["cpu", "cuda:0", "cuda:1"], "cuda:1", "cuda:1"),
        (["cpu", "cuda:0"], "cpu", "cpu"),
        (["cpu", "mps"], "auto", "mps"),
        (["cpu", "mps"], "mps", "mps"),
    ],
)
def test_it_is_the_wanted_one_or_the_best(
    monkeypatch: pytest.MonkeyPatch, there: list[str], wanted: str, expected: str
) -> None:
    monkeypatch.setattr(device, "available_devices", lambda: there)
    assert choose_device(wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "code"), [("cuda:7", "no_such_device"), ("tpu", "unknown_device"), ("", "unknown_device")]
)
def test_another_one_is_refused(monkeypatch: pytest.MonkeyPatch, wanted: str, code: str) -> None:
    monkeypatch.setattr(device, "available_devices", lambda: ["cpu", "cuda:0"])
    with pytest.raises(SaerlError) as caught:
        choose_device(wanted)
    assert caught.value.code == code


def test_the_budget_is_the_wanted_one_or_the_devices() -> None:
    assert token_budget(77, "cpu") == 77
    assert token_budget(0, "cuda:1") == device.DEFAULT_TOKEN_BUDGET["cuda"]


def test_shards_have_the_wanted_number_of_texts_or_the_devices() -> None:
    assert texts_per_shard(77, "cuda:0", 10) == 77
    assert texts_per_shard(0, "cuda:1", 1_000_000) == device.DEFAULT_TEXTS_PER_SHARD["cuda"]
    assert texts_per_shard(0, "cpu", 2_000) == 250
    assert texts_per_shard(0, "cpu", 100) == 64
    assert device.DEFAULT_TEXTS_PER_SHARD.keys() == device.DEFAULT_TOKEN_BUDGET.keys()


def test_a_budget_shrinks_to_half_of_what_did_not_fit_and_never_to_nothing() -> None:
    remembered: list[int] = []
    budget = TokenBudget(100, remembered.append)
    budget.shrink(400)
    assert budget.tokens == 50
    budget.shrink(10)
    assert budget.tokens == 5
    for _ in range(5):
        budget.shrink(1_000)
    assert budget.tokens == 1
    assert budget.planned == 100
    assert remembered == [50, 5, 2, 1, 1, 1, 1]


def test_a_stopwatch_adds_up_the_parts() -> None:
    watch = Stopwatch(torch.device("cpu"))
    for part in ("reading", "encoding", "reading"):
        time.sleep(0.01)
        watch.mark(part)
    seconds = watch.seconds()
    assert seconds.keys() == {"reading", "encoding"}
    assert seconds["reading"] >= 0.02
    assert seconds["encoding"] >= 0.01


def test_arrays_go_to_the_device_and_back() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2]
    there = to_device(array, torch.device("cpu"))
    wait_for(there.device)
    assert there.dtype == torch.int32
    assert np.array_equal(to_host(there).numpy(), array)


def test_this_machine_has_a_processor_with_some_speed() -> None:
    assert "cpu" in device.available_devices()
    assert str(torch.get_num_threads()) in device.describe_device("cpu")
    assert device.matmul_flops("cpu", seconds=0.05) > 1e8
    assert device.matmul_flops("cpu", seconds=0.01, dtype=torch.bfloat16) > 1e6
