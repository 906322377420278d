"""What `make ui` starts, on a free port and a home of its own, and ended with every process that it has started.

Belongs here: starting and ending it. Does not belong here: what is done in the UI.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LONGEST_START_SECONDS = 300.0
LONGEST_END_SECONDS = 20.0


@contextlib.contextmanager
def served(home: Path, log: Path) -> Iterator[str]:
    """The address of the UI over a home.

    Args:
        home: The home, which need not be there.
        log: File for what webserver, daemon and code server say.
    """
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make on PATH, which starts the UI")
    port = free_port()
    surroundings = {name: value for name, value in os.environ.items() if name not in {"DAGSTER_HOME", "MAKEFLAGS"}}
    with log.open("w") as file:
        process = subprocess.Popen(
            # The environment is the one that runs this test: nothing is to be installed.
            [make, "--old-file", ".venv/.installed", "ui", f"BIN={Path(sys.executable).parent}"],
            cwd=CHECKOUT,
            env={**surroundings, "SAERL_HOME": str(home), "PORT": str(port)},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address, give_up_at = f"http://127.0.0.1:{port}", time.monotonic() + LONGEST_START_SECONDS
        while not answers(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up_at, log.read_text()
            time.sleep(0.3)
        yield address
    finally:
        _end(process)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def answers(address: str) -> bool:
    """Whether a webserver answers there."""
    try:
        with urllib.request.urlopen(f"{address}/server_info", timeout=5) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks the whole group to end, then ends what is left of it and of its children, runs included."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        begun = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGTERM)
        for left in psutil.wait_procs(begun, timeout=LONGEST_END_SECONDS)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
