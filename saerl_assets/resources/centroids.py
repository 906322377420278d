"""Centroids in the home: kept as an artefact, and found again for the version that continues them.

Belongs here: what may be continued, and why not. Does not belong here: clustering.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from saerl_assets.domain.clusters import Centroids
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.catalog import Version

FILE = "centroids.safetensors"


@dataclass(frozen=True)
class Inheritance:
    """The parent's centroids where they may be continued."""

    centroids: Centroids | None
    digest: str | None
    why: str
    """In a sentence."""


def keep_centroids(home: HomeResource, centroids: Centroids) -> tuple[str, str]:
    """Puts centroids into the home; returns their digest and their path below it."""
    with TemporaryDirectory() as folder:
        arrays: dict[str, np.ndarray] = {
            "centroids": np.ascontiguousarray(centroids.directions),
            "weights": centroids.weights,
            "ids": centroids.ids,
            "next_id": np.array([centroids.next_id], dtype=np.int64),
        }
        save_file(arrays, Path(folder) / FILE)
        return home.artifacts().put("centroids", Path(folder))


def load_centroids(home: HomeResource, digest: str) -> Centroids:
    """The centroids with this digest.

    Raises:
        SaerlError: `artifact_missing`, `artifact_changed`.
    """
    arrays = load_file(home.artifacts().find("centroids", digest) / FILE)
    return Centroids(arrays["ids"], arrays["centroids"], arrays["weights"], int(arrays["next_id"][0]))


def inherited(home: HomeResource, version: Version) -> Inheritance:
    """The centroids that a version starts from, or why it starts anew.

    They mean something only among the same features: the same encoders in the same order, pooling and weighting.

    Raises:
        SaerlError: `artifact_missing`, `artifact_changed` for a parent whose centroids are no longer what they were.
    """
    spec = version.spec
    if spec.parent is None:
        return Inheritance(None, None, "A fresh start: the version has no parent.")
    if spec.clusters.start == "fresh":
        return Inheritance(None, None, 'A fresh start: the spec says clusters.start = "fresh".')
    if not same_encoders(home, version):
        return Inheritance(
            None, None, f"A fresh start: {spec.parent} reads with other encoders, so with other features."
        )
    before = home.version(spec.parent).spec.clusters
    for name in ("pooling", "weighting"):
        was, now = getattr(before, name), getattr(spec.clusters, name)
        if was != now:
            why = f"A fresh start: {spec.parent} has clusters.{name} = {was!r}, this version {now!r}."
            return Inheritance(None, None, why)
    digest = centroids_digest(home, spec.parent)
    if digest is None:
        return Inheritance(None, None, f"A fresh start: {spec.parent} has no clusters.")
    return Inheritance(load_centroids(home, digest), digest, f"Continues the clusters of {spec.parent}.")


def same_encoders(home: HomeResource, version: Version) -> bool:
    """Whether a version's features are those of its parent."""
    columns = ["layer", "encoder_id", "feature_offset"]
    mine, parents = (
        home.warehouse().rows("sae_weights", columns, dataset_version=key) for key in (version.key, version.spec.parent)
    )
    return mine.sort("layer").equals(parents.sort("layer"))


def centroids_digest(home: HomeResource, key: str) -> str | None:
    """The digest of a version's centroids; None where it has no clusters."""
    found: pl.Series = home.warehouse().rows("clusters", ["centroids_digest"], dataset_version=key)["centroids_digest"]
    return None if found.is_empty() else str(found[0])
