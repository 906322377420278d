"""The device that models run on.

Belongs here: choosing one, what fits on it, copies to and from it, where its time goes. Does not belong here: models.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saerl_assets.domain.errors import SaerlError

DEFAULT_TOKEN_BUDGET = {"cpu": 2_048, "cuda": 65_536, "mps": 8_192}
"""Tokens in one forward pass, padding included. A processor gains hardly anything from more than a thousand."""

DEFAULT_TEXTS_PER_SHARD = {"cpu": 512, "cuda": 2_048, "mps": 1_024}
"""Texts that are read and kept together: half a minute of work on two cores, a second on a GPU. Enough to fill batches
of similar length (256 pad and split so much that a processor is 1.5% slower), few enough that an interrupted run loses
little."""
MIN_TEXTS_PER_SHARD, MIN_SHARDS = 64, 8
"""A small dataset makes smaller shards, down to 64 texts, so that there are eight: some are held out of training."""


class TokenBudget:
    """Tokens in one forward pass, padding included; fewer once a pass did not fit the device's memory.

    A smaller budget makes other batches, which changes the last bits of the activations (in float32 by about 1e-5 of
    their size): bytes are the same again only for a run with the same budgets.
    """

    def __init__(self, tokens: int, remember: Callable[[int], None] | None = None) -> None:
        self.planned = tokens
        """What it was at first."""
        self.tokens = tokens
        """What it is now."""
        self._remember = remember

    def shrink(self, failed: int) -> None:
        """Halves it, or the `failed` tokens that did not fit where those were fewer, and has that remembered."""
        self.tokens = max(min(self.tokens, failed) // 2, 1)
        if self._remember is not None:
            self._remember(self.tokens)


class Stopwatch:
    """Where the device's time goes, by part. On CUDA the device notes the times, so that nothing waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[str, Any]] = [("", self._now())]

    def mark(self, part: str) -> None:
        """What was done since the last mark was `part`."""
        self._marks.append((part, self._now()))

    def seconds(self) -> dict[str, float]:
        """Seconds by part, once the device has come to the last mark."""
        found: dict[str, float] = {}
        if self._device.type == "cuda":
            self._marks[-1][1].synchronize()
        for (_, before), (part, now) in zip(self._marks, self._marks[1:], strict=False):
            passed = before.elapsed_time(now) / 1e3 if self._device.type == "cuda" else now - before
            found[part] = found.get(part, 0.0) + passed
        return found

    def _now(self) -> Any:  # noqa: ANN401 - a CUDA event or seconds
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            return event
        wait_for(self._device)
        return time.perf_counter()


def choose_device(wanted: str) -> str:
    """The device to use: `auto` takes the first CUDA device, else Apple's, else the processor.

    Args:
        wanted: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        SaerlError: `unknown_device`, or `no_such_device`, naming those that there are.
    """
    there = available_devices()
    if wanted == "auto":
        return there[-1] if len(there) == 1 else next(name for name in there if name != "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", wanted):
        remedy = "Choose auto, cpu, cuda, cuda:N or mps."
        raise SaerlError("unknown_device", f"{wanted!r} is no device.", where="compute.device", remedy=remedy)
    name = "cuda:0" if wanted == "cuda" else wanted
    if name not in there:
        remedy = f"This machine has: {', '.join(there)}. Set compute.device to one of them, or to auto."
        raise SaerlError("no_such_device", f"There is no {wanted}.", where="compute.device", remedy=remedy)
    return name


def available_devices() -> list[str]:
    """Names of the devices of this machine."""
    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *cuda, *mps]


def describe_device(name: str) -> str:
    """The device in words, with its memory or its threads."""
    if name.startswith("cuda"):
        properties = torch.cuda.get_device_properties(name)
        return f"{name}: {properties.name}, {properties.total_memory / 1e9:.0f} GB"
    return f"{name}: {torch.get_num_threads()} threads"


def devices_of(wanted: str) -> list[str]:
    """All devices that a setting means: `auto` and `cuda` mean every CUDA device where there is one.

    Raises:
        SaerlError: `unknown_device`, `no_such_device`.
    """
    first = choose_device(wanted)
    if wanted in {"auto", "cuda"} and first.startswith("cuda"):
        return [name for name in available_devices() if name.startswith("cuda")]
    return [first]


def use_threads(n_threads: int) -> None:
    """Threads of this process for work on the processor; 0 leaves them as they are."""
    if n_threads:
        torch.set_num_threads(n_threads)


def matmul_flops(device: str, seconds: float = 0.5, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second that a large matrix product reaches on a device."""
    size = 768 if device == "cpu" else 8192
    left = torch.rand(size, size, device=device).to(dtype)
    float((left @ left)[0, 0])  # the first product chooses its algorithm; reading a value waits for the device
    started, n_products = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for _ in range(n_queued := 1 if device == "cpu" else 16):
            product = left @ left
        float(product[0, 0])
        n_products += n_queued
    return 2.0 * size**3 * n_products / (time.perf_counter() - started)


def token_budget(wanted: int, device: str) -> int:
    """Tokens in one forward pass: `wanted`, or the device's default where that is 0."""
    return wanted or DEFAULT_TOKEN_BUDGET[device.partition(":")[0]]


def texts_per_shard(wanted: int, device: str, n_texts: int) -> int:
    """Texts in one shard: `wanted`, or the device's default where that is 0, and fewer where there are few texts."""
    return wanted or min(
        DEFAULT_TEXTS_PER_SHARD[device.partition(":")[0]], max(n_texts // MIN_SHARDS, MIN_TEXTS_PER_SHARD)
    )


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array of the host as a tensor on a device. Nothing waits for a copy to CUDA."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the host. One of CUDA is there once the device has come so far: see Stopwatch, `wait_for`."""
    return tensor.to("cpu", non_blocking=tensor.is_cuda)


def wait_for(device: torch.device) -> None:
    """Waits until the device has done all that it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def release_memory() -> None:
    """Gives back what is kept for later, so that smaller blocks find room."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
