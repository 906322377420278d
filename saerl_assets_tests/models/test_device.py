"""The device: chosen, refused with what there is, and how much it takes at once."""

from __future__ import annotations

import pytest
import torch

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models import device
from saerl_assets.models.device import choose_device, token_budget


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


def test_this_machine_has_a_processor_with_some_speed() -> None:
    assert "cpu" in device.available_devices()
    assert str(torch.get_num_threads()) in device.describe_device("cpu")
    assert device.matmul_flops("cpu", seconds=0.05) > 1e8
