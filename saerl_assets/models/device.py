"""The device that models run on.

Belongs here: choosing one and what fits on it. Does not belong here: models.
"""

from __future__ import annotations

import re
import time

import torch

from saerl_assets.domain.errors import SaerlError

DEFAULT_TOKEN_BUDGET = {"cpu": 1_024, "cuda": 65_536, "mps": 8_192}
"""Tokens in one forward pass, padding included. A processor gains nothing from more, and small batches pad less."""


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


def matmul_flops(device: str, seconds: float = 0.5) -> float:
    """Floating-point operations a second that a large float32 matrix product reaches on a device."""
    size = 768 if device == "cpu" else 4096
    left = torch.rand(size, size, device=device)
    started, n_products = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        float((left @ left)[0, 0])  # reading a value waits for the device
        n_products += 1
    return 2.0 * size**3 * n_products / (time.perf_counter() - started)


def token_budget(wanted: int, device: str) -> int:
    """Tokens in one forward pass: `wanted`, or the device's default where that is 0."""
    return wanted or DEFAULT_TOKEN_BUDGET[device.partition(":")[0]]
