from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_info

from saerl_assets.domain.threads import one_thread


def n_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_one_thread_holds_inside_and_only_there() -> None:
    np.ones((2, 2)) @ np.ones((2, 2))
    before = n_threads()
    assert before
    with one_thread():
        assert set(n_threads()) == {1}
    assert n_threads() == before
