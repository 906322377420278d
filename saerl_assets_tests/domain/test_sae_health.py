"""Verdicts on an SAE."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saerl_assets.domain.sae_health import HealthFigures, SpliceLoss, judge
from saerl_assets.domain.spec import SaeSpec

GOOD = HealthFigures(
    layer=2,
    explained_variance=0.9,
    l0=30.0,
    expected_l0=32.0,
    n_tokens=9_900,
    n_sink_tokens=100,
    dead_fraction=0.1,
    n_latents=512,
    n_tokens_encoded=50_000,
    layer_profile=(0.3, 0.7, 0.9, 0.8),
    loss=SpliceLoss(clean=2.0, spliced=2.4, ablated=10.0, n_tokens=2_000),
    on_held_out=True,
    lacks_bos=False,
    made_for=None,
)


def test_a_good_one_is_told_with_its_figures() -> None:
    verdict, words = judge(GOOD, SaeSpec())
    assert verdict == "good"
    assert words == (
        "It explains 90% of the variance on prompts kept out of its training, L0 30.0, 10% dead latents, recovers 95% "
        "of the next-token loss, 1.0% attention sinks left out."
    )


REFUSED = {
    "nothing fires": ({"l0": 0.0, "expected_l0": None}, "No latent fires"),
    "little is explained": ({"explained_variance": 0.4}, "sae.min_explained_variance"),
    "another layer": ({"layer_profile": (0.3, 0.95, 0.9, 0.8)}, "it belongs to layer 1"),
    "predictions are lost": ({"loss": SpliceLoss(2.0, 7.0, 10.0, 99)}, "keeps 38%"),
}


@pytest.mark.parametrize(("changes", "reason"), REFUSED.values(), ids=REFUSED)
def test_one_that_does_not_fit_is_refused(changes: dict[str, object], reason: str) -> None:
    verdict, words = judge(replace(GOOD, made_for="another-model", **changes), SaeSpec())  # type: ignore[arg-type]
    assert verdict == "unfit"
    assert reason in words
    assert words.endswith("Its makers name the model another-model.")


BLEMISHED = {
    "dead": ({"dead_fraction": 0.6}, "accepts 50% dead"),
    "too many active": ({"l0": 65.0}, "L0 of 32"),
    "too few active": ({"l0": 15.0}, "L0 of 32"),
    "no first token": ({"lacks_bos": True}, "reader.bos"),
}


@pytest.mark.parametrize(("changes", "reason"), BLEMISHED.values(), ids=BLEMISHED)
def test_one_with_a_blemish_is_poor(changes: dict[str, object], reason: str) -> None:
    verdict, words = judge(replace(GOOD, **changes), SaeSpec())  # type: ignore[arg-type]
    assert verdict == "poor"
    assert reason in words


BORDERLINE: dict[str, dict[str, object]] = {
    "a neighbouring layer is as good": {"layer_profile": (0.3, 0.919, 0.9, 0.8)},
    "other layers were not looked at": {"layer_profile": ()},
    "too few tokens to call a latent dead": {"dead_fraction": 0.6, "n_tokens_encoded": 5_000},
    "no head to predict with": {"loss": None},
    "the layer hardly matters": {"loss": SpliceLoss(2.0, 2.2, 2.04, 99)},
    "no L0 to hold it against": {"l0": 400.0, "expected_l0": None},
}


@pytest.mark.parametrize("changes", BORDERLINE.values(), ids=BORDERLINE)
def test_what_says_nothing_is_not_held_against_it(changes: dict[str, object]) -> None:
    assert judge(replace(GOOD, **changes), SaeSpec())[0] == "good"  # type: ignore[arg-type]


def test_recovered_loss_is_a_share_of_what_is_at_stake() -> None:
    assert SpliceLoss(2.0, 2.0, 5.0, 1).recovered == 1.0
    assert SpliceLoss(2.0, 5.0, 5.0, 1).recovered == 0.0
    assert SpliceLoss(2.0, 6.5, 5.0, 1).recovered == -0.5
    assert SpliceLoss(2.0, 6.5, 2.0, 1).recovered is None
