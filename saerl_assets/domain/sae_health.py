"""Whether an SAE fits the prompts: figures into a verdict.

Belongs here: the thresholds and the words. Does not belong here: measuring.
"""

from __future__ import annotations

from typing import Literal

from saerl_assets.domain.spec import SaeSpec

Verdict = Literal["good", "poor", "unfit"]


def judge(
    *, explained_variance: float, l0: float, dead_fraction: float, k: int | None, on_held_out: bool, spec: SaeSpec
) -> tuple[Verdict, str]:
    """A verdict and its reason.

    Args:
        explained_variance: On the version's own prompts.
        l0: Mean number of active latents on a token.
        dead_fraction: Share of latents that fire on no prompt of the version.
        k: Latents that a TopK SAE was built to keep; None for other architectures.
        on_held_out: Whether the prompts measured on were kept out of the SAE's training.
        spec: The limits.

    Returns:
        `unfit` below the least explained variance that the spec accepts, or where nothing fires; `poor` for too many
        dead latents or an L0 far from k; else `good`.
    """
    rows = "on prompts kept out of its training" if on_held_out else "on the version's prompts"
    figures = f"explains {explained_variance:.0%} of the variance {rows}, L0 {l0:.1f}, {dead_fraction:.0%} dead latents"
    if explained_variance < spec.min_explained_variance or l0 == 0:
        return "unfit", (
            f"It {figures}; the spec asks for {spec.min_explained_variance:.0%}. Either it was trained on another "
            "model or layer, or for too few tokens."
        )
    if dead_fraction > spec.max_dead_fraction:
        return "poor", f"It {figures}; the spec accepts {spec.max_dead_fraction:.0%} dead. Train a narrower one."
    if k is not None and l0 < 0.5 * k:
        return "poor", f"It {figures}; it was built for L0 {k}."
    return "good", f"It {figures}."
