"""What is told while an asset is being made.

Belongs here: progress as log lines. Does not belong here: what is told of it afterwards (metadata).
"""

import time
from collections.abc import Callable

from saerl_assets.domain.progress import Progress

SECONDS_BETWEEN_LINES = 5.0


def progress_lines(say: Callable[[str], None], what: str) -> Progress:
    """Progress as one line every five seconds: what is done, how fast, and how long the rest will take.

    What was done before is not to be counted in: the speed is that of now.
    """
    started = time.monotonic()
    last_line = started

    def tell(done: int, total: int, *, unit: str, note: str = "") -> None:
        nonlocal last_line
        now = time.monotonic()
        if done == 0 and note:
            say(f"{what}: {note} ...")  # the beginning of something that cannot tell how far it is
            return
        if now - last_line < SECONDS_BETWEEN_LINES:
            return
        last_line = now
        rate = max(done, 1e-9) / (now - started)
        eta = (total - done) / rate
        percent = 100 * done / max(total, 1)
        speed = f"{rate:,.0f} a second" if rate >= 1 else f"{1 / rate:,.1f} s each"
        say(
            f"{what}: {done:,} of {total:,} {unit} ({percent:.0f}%), {speed}, {clock(eta)} to go"
            + (f"; {note}" if note else "")
        )

    return tell


def clock(seconds: float) -> str:
    """A duration for people: '42 s', '3 min 5 s', '2 h 4 min'."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
