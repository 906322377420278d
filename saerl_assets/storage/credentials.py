"""Keys of an object store, from the environment into a connection.

Belongs here: which variables are read, and DuckDB's secret made of them. Does not belong here: keeping or showing them.

The keys are bound parameters, so they are in no statement; DuckDB shows them redacted. They live in the memory of one
connection's database and are never written.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import duckdb


def add_secret(connection: duckdb.DuckDBPyConnection, data_path: str) -> None:
    """Gives a connection the keys that its environment has for `data_path`; nothing for a folder.

    For `s3://` AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL_S3; where
    there are no keys, what botocore finds (a profile, a role of the machine), if that is installed. For `gs://` the
    HMAC keys GCS_HMAC_KEY_ID and GCS_HMAC_SECRET.
    """
    if data_path.startswith("s3://"):
        fields = _s3()
    elif data_path.startswith(("gs://", "gcs://")):
        fields = {"KEY_ID": os.environ.get("GCS_HMAC_KEY_ID", ""), "SECRET": os.environ.get("GCS_HMAC_SECRET", "")}
    else:
        return
    kind = "s3" if data_path.startswith("s3://") else "gcs"
    given = {name: value for name, value in fields.items() if value}
    options = ", ".join([f"TYPE {kind}", *(f"{name} ${name.lower()}" for name in given)])
    parameters = {name.lower(): value for name, value in given.items()}
    connection.execute(f"CREATE OR REPLACE SECRET data_path ({options})", parameters)


def _s3() -> dict[str, Any]:
    get = os.environ.get
    fields: dict[str, Any] = {
        "KEY_ID": get("AWS_ACCESS_KEY_ID"),
        "SECRET": get("AWS_SECRET_ACCESS_KEY"),
        "SESSION_TOKEN": get("AWS_SESSION_TOKEN"),
        "REGION": get("AWS_REGION") or get("AWS_DEFAULT_REGION") or "us-east-1",
    }
    if not fields["KEY_ID"]:
        fields |= _found_by_botocore()
    if endpoint := get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL"):
        url = urlsplit(endpoint)
        fields |= {"ENDPOINT": url.netloc, "URL_STYLE": "path", "USE_SSL": "true" if url.scheme == "https" else "false"}
    return fields


def _found_by_botocore() -> dict[str, Any]:
    """Keys of a profile or a role; they can end, so this asks for those of now."""
    if importlib.util.find_spec("botocore") is None:
        return {}
    found = _botocore_credentials()
    if found is None:
        return {}
    keys = found.get_frozen_credentials()
    return {"KEY_ID": keys.access_key, "SECRET": keys.secret_key, "SESSION_TOKEN": keys.token}


@cache
def _botocore_credentials() -> Any:  # noqa: ANN401 - botocore has no types
    return importlib.import_module("botocore.session").get_session().get_credentials()
