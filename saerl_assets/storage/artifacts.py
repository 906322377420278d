"""Artefacts: SAEs, centroids and probes, kept in folders named by their digest.

Belongs here: taking a folder into the home and finding it again. Does not belong here: how it is made or read.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from saerl_assets.disk import folder_digest, new_folder, write_whole
from saerl_assets.domain.errors import SaerlError
from saerl_assets.storage.home import Home

GONE = frozenset({"artifact_missing", "artifact_changed", "bucket_changed"})
"""Codes of errors by which an artefact is not there to be used; others say nothing about it."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ArtifactStore:
    """The folder `artifacts/` of a home, and of its bucket where it has one. The same bytes are kept once.

    With a bucket the home's folder is a cache of it: what is not here is fetched, which its digest makes safe.
    """

    def __init__(self, home: Home) -> None:
        self.home = home

    def put(self, kind: str, source: Path) -> tuple[str, str]:
        """Copies the folder `source` in; returns its digest and its path below the home."""
        digest = folder_digest(source)
        target = self.home.artifacts / kind / digest
        if not (target.is_dir() and folder_digest(target) == digest):
            # Two processes may do this at once; whoever comes last finds or leaves the same bytes.
            with new_folder(target) as folder:
                shutil.copytree(source, folder, dirs_exist_ok=True)
        if self.home.bucket is not None:
            self.home.bucket.put(self._name(kind, digest), target)
        return digest, self.home.relative(target)

    def find(self, kind: str, digest: str) -> Path:
        """The folder with this digest, verified.

        Raises:
            SaerlError: `artifact_missing`, or `artifact_changed` if its bytes are no longer those that were put in;
                what a bucket's failure means.
        """
        folder = self.home.artifacts / kind / digest
        if self.home.bucket is not None and _DIGEST.fullmatch(digest) and not folder.is_dir():
            self.home.bucket.fetch(self._name(kind, digest), folder)
        if not _DIGEST.fullmatch(digest) or not folder.is_dir():
            remedy = "Materialise the asset that makes it again."
            raise SaerlError("artifact_missing", f"The {kind} is gone.", where=str(folder), remedy=remedy)
        if folder_digest(folder) != digest:
            remedy = "Delete the folder and materialise the asset that makes it again."
            raise SaerlError("artifact_changed", f"The {kind} was changed.", where=str(folder), remedy=remedy)
        if self.home.bucket is not None:  # it may be older than the bucket, or have been lost there
            self.home.bucket.put(self._name(kind, digest), folder)
        return folder

    def remember(self, kind: str, recipe: str, record: dict[str, Any]) -> None:
        """Notes what a recipe made, so that the same recipe need not be followed twice."""
        text = json.dumps(record, sort_keys=True)
        write_whole(self._note(kind, recipe), text)
        if self.home.bucket is not None:
            self.home.bucket.put_text(self.home.relative(self._note(kind, recipe)), text)

    def recall(self, kind: str, recipe: str) -> dict[str, Any] | None:
        """What a recipe made before, if that is still there unchanged.

        Raises:
            SaerlError: `bucket_unsupported`, `bucket_refused`: then that is not known, and nothing is to be made again.
        """
        try:
            record: dict[str, Any] = json.loads(self._noted(kind, recipe))
            if "digest" in record:
                self.find(kind, record["digest"])
        except (OSError, ValueError):
            return None
        except SaerlError as error:
            if error.code not in GONE:
                raise
            return None
        return record

    def _noted(self, kind: str, recipe: str) -> str:
        note = self._note(kind, recipe)
        if self.home.bucket is not None and not note.exists():
            return self.home.bucket.text(self.home.relative(note)) or ""
        return note.read_text()

    def _name(self, kind: str, digest: str) -> str:
        return self.home.relative(self.home.artifacts / kind / digest)

    def _note(self, kind: str, recipe: str) -> Path:
        return self.home.artifacts / "recipes" / f"{kind}-{recipe[:32]}.json"
