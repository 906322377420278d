"""A bucket: folders in an object store, or below another path, through fsspec. Whole or not there, without renames.

Belongs here: putting a folder there and fetching it. Does not belong here: what is in it, and the tables, which DuckDB
itself reads and writes there (lake).

An object store has no folders and renames nothing. So the files of a folder are written first and an object that lists
them with their digests last: without that object the folder is not there, and a file that is not as listed is refused.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from saerl_assets.disk import file_digest, new_folder
from saerl_assets.domain.errors import SaerlError, is_passing
from saerl_assets.storage.lake_address import holds_secret

MANIFEST = "saerl-files.json"
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}

Made = TypeVar("Made")


@dataclass(frozen=True)
class Bucket:
    """A place by its URL: `s3://bucket/prefix`, `gs://bucket/prefix`, `file:///path`, or a plain path."""

    url: str

    @classmethod
    def parse(cls, text: str, folder: Path) -> Bucket:
        """Reads a setting; a plain path that is relative starts at `folder`.

        Raises:
            SaerlError: `bucket_unsupported`; what was written is not repeated where it may hold a secret.
        """
        if holds_secret(text):
            problem = "It holds a password or a key, which would end up in settings, records and logs."
            remedy = "Take it out and export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            raise SaerlError("bucket_unsupported", problem, where="bucket", remedy=remedy)
        place = text.strip() if "://" in text else str((folder / Path(text.strip()).expanduser()).resolve())
        return cls(place.rstrip("/"))

    def has(self, name: str) -> bool:
        """Whether the folder is there, whole.

        Raises:
            SaerlError: `bucket_unsupported`, `bucket_refused`; so do all methods.
        """
        return self._listed(name) is not None

    def names(self, below: str) -> set[str]:
        """The folders right below a name that are whole."""

        def found(files: Any) -> set[str]:  # noqa: ANN401 - fsspec is untyped
            files.invalidate_cache()
            return {str(path).rsplit("/", 2)[-2] for path in files.glob(self._at(below, "*", MANIFEST))}

        return self._tried(found)

    def put(self, name: str, folder: Path) -> None:
        """Puts the files of a local folder there. What is whole stays: a name always has the same content."""
        sizes = {
            path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()
        }
        if self._sizes(name) == sizes:
            return
        listed = {relative: file_digest(folder / relative) for relative in sorted(sizes)}

        def write(files: Any) -> None:  # noqa: ANN401 - fsspec is untyped
            files.makedirs(self._at(name), exist_ok=True)
            for relative in listed:
                if "/" in relative:
                    files.makedirs(self._at(name, relative).rsplit("/", 1)[0], exist_ok=True)
                files.put_file(str(folder / relative), self._at(name, relative))
            files.pipe_file(self._at(name, MANIFEST), json.dumps(listed, sort_keys=True).encode())

        self._tried(write)

    def fetch(self, name: str, target: Path) -> bool:
        """Makes `target` a copy of the folder; gives False where it is not there.

        Raises:
            SaerlError: `bucket_changed` where a file is not as it was put there; `disk_full`, `not_writable`.
        """
        listed = self._listed(name)
        if listed is None:
            return False
        with new_folder(target) as folder:
            for relative, sha256 in listed.items():
                place = folder / relative
                place.parent.mkdir(parents=True, exist_ok=True)
                self._get(f"{name}/{relative}", place)
                if not place.is_file() or file_digest(place) != sha256:
                    raise self._changed(f"{name}/{relative}")
        return True

    def put_text(self, name: str, text: str) -> None:
        """Writes one small object."""

        def write(files: Any) -> None:  # noqa: ANN401 - fsspec is untyped
            files.makedirs(self._at(name).rsplit("/", 1)[0], exist_ok=True)
            files.pipe_file(self._at(name), text.encode())

        self._tried(write)

    def text(self, name: str) -> str | None:
        """One small object; None where it is not there."""

        def read(files: Any) -> str | None:  # noqa: ANN401 - fsspec is untyped
            try:
                return bytes(files.cat_file(self._at(name))).decode()
            except FileNotFoundError:
                return None

        return self._tried(read)

    def remove(self, name: str) -> None:
        """Removes everything below a name; nothing where there is nothing."""

        def gone(files: Any) -> None:  # noqa: ANN401 - fsspec is untyped
            files.invalidate_cache()
            if files.exists(self._at(name)):
                files.rm(self._at(name), recursive=True)

        self._tried(gone)

    @cached_property
    def _root(self) -> str:
        import fsspec

        return str(fsspec.core.url_to_fs(self.url)[1]).rstrip("/")

    def _at(self, *parts: str) -> str:
        return "/".join([self._root, *parts])

    def _listed(self, name: str) -> dict[str, str] | None:
        """The files of a folder and their digests; None where it is not there, or its list was not written whole.

        Raises:
            SaerlError: `bucket_changed` for a list that names files outside the folder.
        """
        try:
            listed: dict[str, str] = dict(json.loads(self.text(f"{name}/{MANIFEST}") or ""))
            paths = [PurePosixPath(relative) for relative in listed]
        except (ValueError, TypeError):
            return None
        if any(path.is_absolute() or ".." in path.parts for path in paths):
            raise self._changed(f"{name}/{MANIFEST}")
        return listed or None

    def _sizes(self, name: str) -> dict[str, int]:
        """Bytes of every object of a folder by its name below it; nothing where the folder is not there."""
        listed = self._listed(name)

        def look(files: Any) -> dict[str, int]:  # noqa: ANN401 - fsspec is untyped
            files.invalidate_cache()
            return {str(path): int(each["size"]) for path, each in files.find(self._at(name), detail=True).items()}

        found = self._tried(look) if listed is not None else {}
        places = {relative: self._at(name, relative) for relative in listed or ()}
        return {relative: found[place] for relative, place in places.items() if place in found}

    def _changed(self, name: str) -> SaerlError:
        remedy = "Delete it there, and materialise the asset that makes it again."
        problem = "The object is not what was put there."
        return SaerlError("bucket_changed", problem, where=f"{self.url}/{name}", remedy=remedy)

    def _get(self, name: str, place: Path) -> None:
        """Fetches one object; leaves nothing where there is none."""

        def get(files: Any) -> None:  # noqa: ANN401 - fsspec is untyped
            try:
                files.get_file(self._at(name), str(place))
            except FileNotFoundError:
                place.unlink(missing_ok=True)

        self._tried(get)

    def _tried(self, work: Callable[[Any], Made]) -> Made:
        """Does something with the file system, its failures in our words."""
        import fsspec

        scheme = self.url.partition("://")[0] if "://" in self.url else "file"
        try:
            files, _ = fsspec.core.url_to_fs(self.url, use_listings_cache=False, **_options(scheme))
            return work(files)
        except (ImportError, ValueError) as error:
            package = PACKAGES.get(scheme)
            remedy = f"pip install {package}" if package else "Use s3://, gs://, file:// or a plain path"
            raise SaerlError("bucket_unsupported", f"{error}.", where=self.url, remedy=f"{remedy}.") from error
        except SaerlError:
            raise
        except Exception as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise  # of this machine's disk
            # each file system has errors of its own: botocore's, gcsfs's, OSError
            problem = f"The store says: {type(error).__name__}: {error}."
            remedy = "Check the URL, the keys in the environment (AWS_ACCESS_KEY_ID and so on) and their rights."
            raise SaerlError(
                "bucket_refused", problem, where=self.url, remedy=remedy, passing=is_passing(error)
            ) from error


def _options(scheme: str) -> dict[str, str]:
    """What names the store beside the URL; fsspec keeps one connection for each."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return {"endpoint_url": endpoint} if scheme == "s3" and endpoint else {}
