"""Completion as a person meets it: typed into the real shells, up to the tabulator."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from saerl_assets.cli import main
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.tiny import TinyWorld

READY = "the shell is ready"
LONGEST_SECONDS = 120.0
INTERACTIVE = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source {script}"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit && compinit -D -u; source {script}"),
}


@pytest.fixture
def surroundings(tiny_world: TinyWorld, fresh_home: HomeResource) -> dict[str, str]:
    """A home with two versions, and `saerl` on the path."""
    for key in ("first-v1", "first-v2"):
        tiny_world.register(fresh_home, key)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SAERL_HOME": str(fresh_home.open().root), "TERM": "dumb", "PS1": "> "}


def script_of(shell: str, folder: Path) -> Path:
    """What `saerl completion` prints, in a file; skips where the shell is missing."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on PATH")
    script = folder / f"saerl.{shell}"
    script.write_text(CliRunner().invoke(main, ["completion", shell]).output)
    return script


class Terminal:
    """A shell that believes to be typed into."""

    def __init__(self, command: list[str], surroundings: dict[str, str]) -> None:
        self.pid, self._place = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, surroundings)  # noqa: S606 - the shell that is tested

    def type(self, text: str) -> None:
        """Types."""
        os.write(self._place, text.encode())

    def shows(self, wanted: str) -> str:
        """What is shown until it holds some words."""
        shown, give_up_at = "", time.monotonic() + LONGEST_SECONDS
        while wanted not in shown:
            assert time.monotonic() < give_up_at, shown
            if select.select([self._place], [], [], 0.2)[0]:
                shown += os.read(self._place, 4096).decode(errors="replace")
        return shown

    def end(self) -> None:
        """Ends the shell."""
        os.close(self._place)
        os.waitpid(self.pid, 0)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_tabulator_completes_verbs_and_keys(shell: str, surroundings: dict[str, str], tmp_path: Path) -> None:
    command, first = INTERACTIVE[shell]
    script = script_of(shell, tmp_path)
    terminal = Terminal(command, surroundings)
    try:
        # In two pieces, so that the echo of what is typed is not taken for the answer.
        terminal.type(f"{first.format(script=script)}; echo the shell 'is ready'\n")
        terminal.shows(READY)
        terminal.type("saerl comple\t")
        terminal.shows("saerl completion ")
        terminal.type("\x15saerl show first-v\t\t")
        terminal.shows("first-v1  first-v2")
    finally:
        terminal.end()


def test_fish_is_offered_verbs_and_keys(surroundings: dict[str, str], tmp_path: Path) -> None:
    script = script_of("fish", tmp_path)
    asked = f"source {script}; complete -C 'saerl comple'; complete -C 'saerl show first-'"
    told = subprocess.run(["fish", "-c", asked], env=surroundings, capture_output=True, text=True, check=True)
    offered = [line.partition("\t")[0] for line in told.stdout.splitlines() if line]
    assert offered == ["completion", "first-v1", "first-v2"]
