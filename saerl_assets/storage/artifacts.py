"""Artefacts: SAEs, centroids and probes, kept in folders named by their digest.

Belongs here: taking a folder into the home and finding it again. Does not belong here: how it is made or read.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from saerl_assets.domain.errors import SaerlError
from saerl_assets.storage.files import folder_digest, new_folder
from saerl_assets.storage.home import Home


class ArtifactStore:
    """The folder `artifacts/` of a home. The same bytes are kept once."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def put(self, kind: str, source: Path) -> tuple[str, str]:
        """Copies the folder `source` in; returns its digest and its path below the home."""
        digest = folder_digest(source)
        target = self.home.artifacts / kind / digest
        if not (target.is_dir() and folder_digest(target) == digest):
            with new_folder(target) as folder:
                shutil.copytree(source, folder, dirs_exist_ok=True)
        return digest, self.home.relative(target)

    def find(self, kind: str, digest: str) -> Path:
        """The folder with this digest, verified.

        Raises:
            SaerlError: `artifact_missing`, or `artifact_changed` if its bytes are no longer those that were put in.
        """
        folder = self.home.artifacts / kind / digest
        if not folder.is_dir():
            remedy = "Materialise the asset that makes it again."
            raise SaerlError("artifact_missing", f"The {kind} is gone.", where=str(folder), remedy=remedy)
        if folder_digest(folder) != digest:
            remedy = "Delete the folder and materialise the asset that makes it again."
            raise SaerlError("artifact_changed", f"The {kind} was changed.", where=str(folder), remedy=remedy)
        return folder
