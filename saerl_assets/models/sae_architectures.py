"""Which of `sae_lens`'s architectures and settings are read, and why the others are not.

Belongs here: what a cfg.json may say. Does not belong here: encoders (`saes`), other formats (`sae_formats`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saerl_assets.models.sae_files import unsupported

ARCHITECTURES = ("standard", "gated", "topk", "jumprelu", "matching_pursuit")
_REASONS = {
    "temporal": "what fires on a token depends on the tokens before, and tokens are encoded one by one",
    "abstopk": "its latents fire in both directions; named in sae.source it becomes a TopK SAE with two for each",
}


def check_supported(config: Mapping[str, Any], folder: Path) -> None:
    """Holds a cfg.json of `sae_lens` against what can be encoded token by token.

    Raises:
        SaerlError: `sae_unsupported` for another architecture, for a scale of the input that the files do not hold,
            and for an activation function that `sae_lens` would silently take for ReLU.
    """
    architecture = str(config.get("architecture", "standard"))
    if architecture not in ARCHITECTURES:
        is_transcoder = "transcoder" in architecture
        reason = "it does not reconstruct what it reads" if is_transcoder else _REASONS.get(architecture, "not known")
        remedy = f"Use one of {', '.join(ARCHITECTURES)}."
        raise unsupported(folder, f"Its architecture is {architecture!r}: {reason}.", remedy)
    if config.get("normalize_activations") in (True, "expected_average_only_in", "covariance_whitening"):
        problem = "It reads scaled activations, and its files do not hold the scale."
        remedy = "Name it as saelens:release/sae_id, or fold the scale in with sae_lens and save it again."
        raise unsupported(folder, problem, remedy)
    function = config.get("activation_fn") or config.get("activation_fn_str") or "relu"
    if function not in ("relu", "topk"):
        raise unsupported(folder, f"Its activation function is {function!r}.", "Use one with relu or topk.")
