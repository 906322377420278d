"""The same bits on any number of cores.

Belongs here: holding numerical libraries to one thread. Does not belong here: what is computed under it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs what is inside with one thread in every BLAS and OpenMP library of the process.

    A sum that is split over threads is added up in another order on another number of cores, which changes
    its last bits, and an iterative solver carries them on. The solvers here are bound by sparse memory access
    and lose little.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield
