"""What a warehouse needs of the place where its tables are.

Belongs here: the seam between the warehouse and a DuckDB file or a lake. Does not belong here: either of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import duckdb

Notify = Callable[[str], None]
"""Is told for whom or what this waits."""


class Database(Protocol):
    """A DuckDB file (`duckdb_file`) or a lake (`lake`)."""

    @property
    def place(self) -> str:
        """Where it is, without a secret."""
        ...

    @property
    def rows_in_transaction(self) -> int:
        """Rows of shards that are committed together."""
        ...

    def exists(self) -> bool:
        """Whether anything was ever stored."""
        ...

    def size(self) -> str:
        """How large it is, in words."""
        ...

    def reading(self, purpose: str, notify: Notify) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """A read-only connection, together with others.

        Raises:
            SaerlError: `warehouse_missing`, `warehouse_unreadable`, and those of a lake.
        """
        ...

    def writing(self, purpose: str, turn: str, notify: Notify) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """A transaction, committed when the block ends, undone when it fails.

        Args:
            purpose: What it is for, shown to those who wait.
            turn: Name of what only one may write at a time, such as a table.
            notify: Is told for whom this waits.

        Raises:
            SaerlError: `lake_busy` and `lake_unreachable` may be gone at once, and the transaction can be tried again.
        """
        ...

    def confined(self, purpose: str, notify: Notify) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """A reading connection for a person's statement: kept from other files and from our own variables."""
        ...

    def held_by_another_program(self) -> str:
        """What DuckDB says if a program that knows nothing of our lock, such as its shell, is in the way."""
        ...
