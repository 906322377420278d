"""`saerl_log.jsonl`: which prompts a training took at which step, and what reward they got.

Belongs here: writing the log while a training runs. Does not belong here: what a trainer does (trl_callback).

One JSON object per completion: `manifest_id`, `step` (the batch, counted from 0 over the whole export), `prompt_id`,
`reward` (a number or null) and `epoch` (the manifest's).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from saerl_assets.disk import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LOG_FILE = "saerl_log.jsonl"
OLD_LOG_FILE = "saerl_log.old.jsonl"
"""The log of the training before, which had the same output folder."""


def start_log(folder: Path, step: int) -> Path:
    """Makes the log ready for a training that starts with a step.

    A training that resumes keeps the lines of the steps before; later ones are of work that was lost. One that starts
    anew puts an older log aside.

    Raises:
        SaerlError: `disk_full`, `not_writable`.
    """
    path = folder / LOG_FILE
    if step == 0:
        if path.exists():
            path.replace(folder / OLD_LOG_FILE)
        write_whole(path, "")
    else:
        write_whole(path, "".join(_lines_before(path, step)))
    return path


def append_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Adds lines at the end."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def _lines_before(path: Path, step: int) -> list[str]:
    kept = []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:  # the training was killed while it wrote
            continue
        if found["step"] < step:
            kept.append(line)
    return kept
