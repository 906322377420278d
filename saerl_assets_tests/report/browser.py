"""A headless Chromium that tests drive over a pair of pipes, by the DevTools protocol.

Belongs here: starting it, asking it, ending it. Does not belong here: what is looked for in a page.
Source: https://chromedevtools.github.io/devtools-protocol/ (domains Target, Page, Runtime, Log, Network, Input).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
NO_BROWSER = f"no Chromium on PATH (looked for {', '.join(NAMES)})"
LONGEST_WAIT_SECONDS = 60.0
ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # a page of ours, and containers have no user namespaces
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",  # scrolling arrives at once
    "--remote-debugging-pipe",
    "--window-size=1300,1000",
)
ON_THESE_PIPES = "import os, sys; r, w, *command = sys.argv[1:]; os.dup2(int(r), 3); os.dup2(int(w), 4); "
ON_THESE_PIPES += "os.execv(command[0], command)"
"""Chromium reads commands from descriptor 3 and answers on 4."""


def find_browser() -> str | None:
    """The path of a Chromium, where there is one."""
    return next((found for found in map(shutil.which, NAMES) if found), None)


class Page:
    """One open page, and everything that it complained about or asked the network for."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._pending = b""
        self._last_id = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def attach(self) -> None:
        """Opens an empty page and listens to it."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def open(self, file: Path) -> None:
        """Loads a file and waits until it is there."""
        self.events.clear()
        failed = self.ask("Page.navigate", url=file.resolve().as_uri()).get("errorText")
        assert not failed, failed
        if not any(map(_is_loaded, self.events)):
            self._until(_is_loaded)

    def value(self, expression: str) -> Any:  # noqa: ANN401 - any value of JSON
        """What an expression of JavaScript is worth in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def point_at(self, selector: str, *, click: bool = False) -> None:
        """Moves the mouse to the middle of an element that is scrolled into view, as a person does."""
        place = self.value(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            "one.scrollIntoView({block: 'center', behavior: 'instant'}); const box = one.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        x, y = place
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and what the page's own policy refused."""
        found = []
        for event in self.events:
            told = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(json.dumps(told["exceptionDetails"]))
            elif event.get("method") == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning", "assert"}:
                found.append(json.dumps(told["args"]))
            elif event.get("method") == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
                found.append(told["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """Every address that was asked for."""
        sent = (event for event in self.events if event.get("method") == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Sends a command and waits for its answer."""
        self._last_id += 1
        wanted = self._last_id
        message: dict[str, Any] = {"id": wanted, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda event: event.get("id") == wanted)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def _until(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        give_up_at = time.monotonic() + LONGEST_WAIT_SECONDS
        while True:
            while b"\0" in self._pending:
                raw, self._pending = self._pending.split(b"\0", 1)
                event: dict[str, Any] = json.loads(raw)
                self.events.append(event)
                if fits(event):
                    return event
            ready, _, _ = select.select([self._reader], [], [], max(give_up_at - time.monotonic(), 0.0))
            assert ready, f"Chromium said nothing for {LONGEST_WAIT_SECONDS:g} s."
            part = os.read(self._reader, 1 << 20)
            assert part, "Chromium went away."
            self._pending += part


def _is_loaded(event: dict[str, Any]) -> bool:
    return event.get("method") == "Page.loadEventFired"


@contextlib.contextmanager
def open_page(folder: Path) -> Iterator[Page]:
    """A page in a Chromium of its own, which ends with it; skips the test where none is installed.

    Args:
        folder: Where it keeps what it keeps.
    """
    program = find_browser()
    if program is None:
        pytest.skip(NO_BROWSER)
    to_browser, writer = os.pipe()
    reader, from_browser = os.pipe()
    pipes = [str(to_browser), str(from_browser)]
    process = subprocess.Popen(
        [sys.executable, "-c", ON_THESE_PIPES, *pipes, program, *ARGUMENTS, f"--user-data-dir={folder}"],
        pass_fds=(to_browser, from_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        page = Page(reader, writer)
        page.attach()
        yield page
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(reader)
        os.close(writer)
