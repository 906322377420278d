"""A job whose worker takes its time over a shard, so that a test can kill it in the middle, or fails where a test says.

Belongs here: what has to be importable in the workers' processes. Does not belong here: tests.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from saerl_assets.resources.worker_jobs import ReadingJob

if TYPE_CHECKING:
    from saerl_assets.models.extraction import ShardRows
    from saerl_assets.models.texts import Shard

SECONDS_A_SHARD = 0.1
SECONDS_TO_BEGIN = 300.0


@dataclass(frozen=True)
class SlowReading(ReadingJob):
    """As `ReadingJob`, slower."""

    def open(self, device: str) -> Callable[[Shard], ShardRows]:
        """Loads the reader and the SAEs."""
        read = super().open(device)

        def slowly(shard: Shard) -> ShardRows:
            time.sleep(SECONDS_A_SHARD)
            return read(shard)

        return slowly


@dataclass(frozen=True)
class Note:
    """Where a worker is, and how a task must end there."""

    folder: Path
    """Where each worker leaves a file with its process id as the name."""
    fails_first: str = ""
    """The task that raises on the first worker that has it."""
    fails_always: str = ""
    dies_always: str = ""
    n_workers: int = 0
    """Tasks wait until so many workers have begun, so that each gets some however slowly they come up."""

    def open(self, _device: str) -> Callable[[str], int]:
        """Nothing is loaded."""
        (self.folder / str(os.getpid())).touch()

        def run(task: str) -> int:
            time.sleep(SECONDS_A_SHARD)
            give_up_at = time.monotonic() + SECONDS_TO_BEGIN
            while sum(file.name.isdigit() for file in self.folder.iterdir()) < self.n_workers:
                if time.monotonic() > give_up_at:
                    message = f"fewer than {self.n_workers} workers began"
                    raise TimeoutError(message)
                time.sleep(SECONDS_A_SHARD)
            once = self.folder / "failed-once"
            if task == self.fails_first and not once.exists():
                once.write_text(str(os.getpid()))
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            if task == self.fails_always:
                raise RuntimeError("CUDA error: misaligned address")
            if task == self.dies_always:
                os._exit(9)
            return os.getpid()

        return run
