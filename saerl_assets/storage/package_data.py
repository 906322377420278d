"""The files that come with the package: the SQL and Dagster's settings.

Belongs here: finding them in a checkout and in an installed wheel. Does not belong here: reading meaning into them.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def _locate(name: str) -> Path:
    """`name` inside the installed package, else at the top of the checkout."""
    inside, beside = _PACKAGE / name, _PACKAGE.parent / name
    return inside if inside.exists() else beside


def sql_folder() -> Path:
    """The folder `sql/`."""
    return _locate("sql")


def dagster_yaml() -> Path:
    """Dagster's settings for a new home."""
    return _locate("dagster.yaml")
