"""Asset checks: what must hold before anything is built on an asset. The same nouns as the assets.

Belongs here: holding tables against each other and saying in words what is wrong. Does not belong here: repairing it.
A blocking check stops what is downstream; the others warn.
"""

from types import ModuleType

from saerl_assets.checks import (
    artifacts,
    batches,
    cluster_map,
    clusters,
    difficulty,
    drift,
    exports,
    feature_examples,
    features,
    feedback,
    hygiene,
    outcomes,
    preference_pairs,
    prompts,
    quality,
    sae,
    training_trial,
)

CHECK_MODULES: list[ModuleType] = [
    prompts,
    feedback,
    preference_pairs,
    sae,
    features,
    clusters,
    outcomes,
    cluster_map,
    feature_examples,
    drift,
    difficulty,
    quality,
    hygiene,
    batches,
    exports,
    artifacts,
    training_trial,
]
