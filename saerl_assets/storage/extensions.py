"""DuckDB's extensions, from the wheels that carry them.

Belongs here: finding and loading them. Does not belong here: what they are used for.

Nothing is fetched at run time: DuckDB's own installing and loading by itself are turned off.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import duckdb

from saerl_assets.domain.errors import SaerlError

SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
"""For `duckdb.connect(config=...)`: nothing is downloaded, nothing comes from a folder of the person's."""


def extension_file(name: str) -> Path:
    """The file of an extension in the wheel `duckdb-extension-NAME` of this DuckDB's version.

    Raises:
        SaerlError: `lake_extension_missing`.
    """
    found = importlib.util.find_spec(f"duckdb_extension_{name}")
    if found is not None and found.origin is not None:
        file = Path(found.origin).parent / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        if file.is_file():
            return file
    raise SaerlError(
        "lake_extension_missing",
        f"DuckDB's extension {name} of version {duckdb.__version__} is not installed.",
        remedy="pip install 'saerl_assets[ducklake]'",
    )


def load_extensions(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    """Loads extensions into a connection's database.

    Raises:
        SaerlError: `lake_extension_missing`.
    """
    for name in names:
        connection.load_extension(str(extension_file(name)))
