"""Whether an SAE fits the prompts: figures into a verdict.

Belongs here: the thresholds and the words. Does not belong here: measuring.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from saerl_assets.domain.spec import SaeSpec

Verdict = Literal["good", "poor", "unfit"]

LAYER_MARGIN = 0.02
"""By so much more of the variance must an SAE explain at another layer to be taken for that layer's."""
L0_RANGE = (0.5, 2.0)
"""Factors of the expected L0 between which the measured one is as expected."""
MIN_LOSS_AT_STAKE = 0.05
"""Nats between the model as it is and with the layer zeroed, below which a share of them says nothing."""
MIN_TOKENS_PER_LATENT = 10
"""With fewer encoded tokens a latent that never fires may just be rare."""


@dataclass(frozen=True)
class SpliceLoss:
    """Next-token loss of a model in nats, means over the same tokens."""

    clean: float
    """As it is."""
    spliced: float
    """With one layer's activations replaced by the SAE's reconstruction."""
    ablated: float
    """With them replaced by zeros."""
    n_tokens: int

    @property
    def recovered(self) -> float | None:
        """Share of what zeroing loses that the reconstruction keeps; None where next to nothing is at stake."""
        at_stake = self.ablated - self.clean
        return (self.ablated - self.spliced) / at_stake if at_stake >= MIN_LOSS_AT_STAKE else None


@dataclass(frozen=True)
class HealthFigures:
    """What was measured of one SAE on a version's prompts."""

    layer: int
    explained_variance: float
    l0: float
    expected_l0: float | None
    """The SAE's k, or the L0 that its makers report."""
    n_tokens: int
    n_sink_tokens: int
    dead_fraction: float
    n_latents: int
    n_tokens_encoded: int
    layer_profile: Sequence[float]
    """Explained variance at every block of the model; empty where it was not measured."""
    loss: SpliceLoss | None
    on_held_out: bool
    """Whether the sample was kept out of the SAE's training."""
    lacks_bos: bool
    """It was trained on texts that start with the beginning-of-sequence token, and the reader's do not."""
    made_for: str | None
    """The model that its makers name."""


def judge(figures: HealthFigures, spec: SaeSpec) -> tuple[Verdict, str]:
    """A verdict and its reason.

    Args:
        figures: What was measured.
        spec: The limits.

    Returns:
        `unfit`: nothing fires, it explains or recovers less than the spec accepts, or it explains another layer better;
        whatever is built on it means nothing. `poor`: usable, but many latents are dead, the L0 is not what its makers
        say, or the texts lack the token that it expects. Else `good`.
    """
    said = _in_words(figures)
    if refusal := next(_refusals(figures, spec), ""):
        made_for = f" Its makers name the model {figures.made_for}." if figures.made_for else ""
        return "unfit", f"It {said}. {refusal}{made_for}"
    if blemishes := list(_blemishes(figures, spec)):
        return "poor", f"It {said}. {' '.join(blemishes)}"
    return "good", f"It {said}."


def _refusals(figures: HealthFigures, spec: SaeSpec) -> Iterator[str]:
    if figures.l0 == 0:
        yield "No latent fires: it belongs to another model."
    best = max(range(len(figures.layer_profile)), key=figures.layer_profile.__getitem__, default=figures.layer)
    if figures.layer_profile and best != figures.layer:
        there, here = figures.layer_profile[best], figures.layer_profile[figures.layer]
        if there - here > LAYER_MARGIN and there > 0:
            yield (
                f"It explains {there:.0%} of the variance of layer {best} and {here:.0%} of layer {figures.layer}: "
                f"it belongs to layer {best}. Set reader.layers to that, or use an SAE of layer {figures.layer}."
            )
    if figures.explained_variance < spec.min_explained_variance:
        yield (
            f"The spec asks for {spec.min_explained_variance:.0%} of the variance (sae.min_explained_variance). Either "
            "it was made for another model or layer: name the SAE of this one as sae.source. Or it was trained for too "
            "few tokens: raise sae.training_tokens. Then register that as another version."
        )
    recovered = figures.loss.recovered if figures.loss else None
    if recovered is not None and recovered < spec.min_loss_recovered:
        yield (
            f"With its reconstruction in place the model keeps {recovered:.0%} of what the layer does for its "
            f"predictions; the spec asks for {spec.min_loss_recovered:.0%} (sae.min_loss_recovered)."
        )


def _blemishes(figures: HealthFigures, spec: SaeSpec) -> Iterator[str]:
    enough = figures.n_tokens_encoded >= MIN_TOKENS_PER_LATENT * figures.n_latents
    if enough and figures.dead_fraction > spec.max_dead_fraction:
        yield f"The spec accepts {spec.max_dead_fraction:.0%} dead latents: train a narrower SAE, or for more tokens."
    if figures.expected_l0 and not L0_RANGE[0] <= figures.l0 / figures.expected_l0 <= L0_RANGE[1]:
        yield f"Its makers had an L0 of {figures.expected_l0:.0f}: texts or normalisation may differ from theirs."
    if figures.lacks_bos:
        yield "It was trained on texts with a beginning-of-sequence token; set reader.bos = 'always'."


def _in_words(figures: HealthFigures) -> str:
    rows = "on prompts kept out of its training" if figures.on_held_out else "on the version's prompts"
    parts = [
        f"explains {figures.explained_variance:.0%} of the variance {rows}",
        f"L0 {figures.l0:.1f}",
        f"{figures.dead_fraction:.0%} dead latents",
    ]
    if figures.loss and figures.loss.recovered is not None:
        parts.append(f"recovers {figures.loss.recovered:.0%} of the next-token loss")
    sinks = figures.n_sink_tokens / max(figures.n_tokens + figures.n_sink_tokens, 1)
    return ", ".join([*parts, f"{sinks:.1%} attention sinks left out"])
