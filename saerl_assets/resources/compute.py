"""The resource `compute`: the device, how much it takes at once, and the models loaded on it.

Belongs here: configuration and loading, remembering how much fits. Does not belong here: what is computed.
"""

import contextlib
import json
import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from saerl_assets.disk import write_whole
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.progress import Progress, silent
from saerl_assets.domain.spec import OutcomesSpec, digest
from saerl_assets.storage.catalog import Version
from saerl_assets.storage.home import model_cache

if TYPE_CHECKING:
    from saerl_assets.models.device import TokenBudget
    from saerl_assets.models.reader import Reader
    from saerl_assets.models.rollouts import Generator
    from saerl_assets.models.sources import ModelFiles
    from saerl_assets.models.tokeniser import Tokeniser
    from saerl_assets.resources.workers import Crew, Job

Task = TypeVar("Task")
Made = TypeVar("Made")
ENGINES = ("local", "ray")


class ComputeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where models run."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`. `auto` and `cuda` read with all CUDA devices that there are."""
    token_budget: int = 0
    """Tokens in one forward pass, padding included; 0 for the device's default, or what of it fitted the last time."""
    texts_per_shard: int = 0
    """Texts that are read and kept together; an interrupted extraction loses at most two shards. 0 for the device's
    default, or an eighth of the texts where they are few."""
    generator: str = "auto"
    """What a policy answers with: `transformers`, `vllm`, or `auto`, which is vLLM where it is installed and the device
    is a CUDA GPU."""
    engine: str = ""
    """Where texts are read and prompts answered: `local`, on this machine, or `ray`, on a Ray cluster; empty for
    SAERL_ENGINE, else `local`."""
    workers: int = 0
    """Processes that read at once; 0 for one a device, in a Ray cluster without GPUs one a node."""
    ray_address: str = ""
    """The Ray cluster, `host:port`; empty for RAY_ADDRESS, else the one on this machine, else one for the run."""

    def chosen_device(self) -> str:
        """The device in use."""
        from saerl_assets.models.device import choose_device

        return choose_device(self.device)

    def chosen_engine(self) -> str:
        """The engine in use.

        Raises:
            SaerlError: `unknown_engine`.
        """
        chosen = self.engine or os.environ.get("SAERL_ENGINE", "") or "local"
        if chosen not in ENGINES:
            remedy = f"Choose {' or '.join(ENGINES)}: compute.engine, or SAERL_ENGINE."
            raise SaerlError("unknown_engine", f"{chosen!r} is no engine.", where="compute.engine", remedy=remedy)
        return chosen

    def devices(self) -> list[str]:
        """The device of each process that reads on this machine at once."""
        from saerl_assets.models.device import devices_of

        found = devices_of(self.device)
        n_wanted = self.workers or len(found)
        return [found[number % len(found)] for number in range(n_wanted)]

    def crew(self, job: "Job[Task, Made]", say: Callable[[str], None]) -> "Crew[Task, Made] | None":
        """Workers for a job; None where this process does it alone, on the one device of this machine.

        Args:
            job: What they do.
            say: Told of workers that come and go.

        Raises:
            SaerlError: `unknown_engine`, `ray_missing`, `ray_unreachable`.
        """
        from saerl_assets.resources.workers import Crew

        if self.chosen_engine() == "ray":
            from saerl_assets.resources.ray_workers import RayEngine

            cluster = RayEngine(job, device=self.device, n_workers=self.workers, address=self.ray_address)
            return Crew(cluster, cluster.n_workers, say)
        devices = self.devices()
        if len(devices) == 1:
            return None
        from saerl_assets.resources.local_workers import LocalEngine

        on_processor = devices[0] == "cpu"
        n_threads = max((os.cpu_count() or 1) // len(devices), 1) if on_processor else 0
        return Crew(LocalEngine(job, devices, n_threads), len(devices), say)

    def settings(self) -> dict[str, Any]:
        """What a worker is told of it; the resource itself cannot be pickled."""
        return {
            "token_budget": self.token_budget,
            "texts_per_shard": self.texts_per_shard,
            "generator": self.generator,
            "engine": "local",
            "workers": 1,
        }

    def budget(self) -> int:
        """Tokens in one forward pass, as long as they fit."""
        from saerl_assets.models.device import token_budget

        return token_budget(self.token_budget, self.chosen_device())

    def budget_for(self, version: Version) -> "TokenBudget":
        """Tokens in one forward pass of a version's reader, which shrink where they do not fit.

        What fits is remembered for the rest of the process, and beside the models for later ones. To try more again,
        set `token_budget`: a wanted number is taken as it is.
        """
        spec, device = version.spec.reader, self.chosen_device()
        return _budget(self.files(version).digest, spec.layers, spec.dtype, device, self.token_budget)

    def shard_size(self, n_texts: int) -> int:
        """Texts that are read and kept together, of so many."""
        from saerl_assets.models.device import texts_per_shard

        return texts_per_shard(self.texts_per_shard, self.chosen_device(), n_texts)

    def describe(self) -> str:
        """The device in words."""
        from saerl_assets.models.device import describe_device

        return f"{describe_device(self.chosen_device())}, {self.budget():,} tokens a pass"

    def as_metadata(self) -> dict[str, str]:
        """The device for an asset's metadata."""
        return {"device": self.describe()}

    def files(self, version: Version, progress: Progress = silent) -> "ModelFiles":
        """The reader's files, fetched if need be."""
        from saerl_assets.models.sources import locate_model

        return locate_model(version.spec.reader.model, cache=model_cache(), folder=version.folder, progress=progress)

    def policy_files(self, version: Version, progress: Progress = silent) -> "ModelFiles":
        """The files of the policy that `[outcomes]` names, fetched if need be."""
        from saerl_assets.models.sources import locate_model

        source, cache = outcomes_of(version).policy, model_cache()
        return locate_model(source, cache=cache, folder=version.folder, progress=progress, key="outcomes.policy")

    def policy_size(self, version: Version) -> dict[str, int]:
        """The policy's sizes, without its weights."""
        from saerl_assets.models.reader import sizes_of

        return sizes_of(self.policy_files(version))

    def policy_tokeniser(self, version: Version) -> "Tokeniser":
        """The policy's tokenizer with the template that `[outcomes]` names."""
        from saerl_assets.models.tokeniser import Tokeniser

        return Tokeniser.load(self.policy_files(version), outcomes_of(version).template, section="outcomes")

    def policy(self, version: Version, tokeniser: "Tokeniser", longest: int) -> "Generator":
        """The policy, loaded to answer. Nobody else keeps it: it is gone with what is returned.

        Args:
            version: One with `[outcomes]`.
            tokeniser: The policy's.
            longest: Tokens of the longest prompt and answer.
        """
        from saerl_assets.models.device import TokenBudget
        from saerl_assets.models.rollouts import BUDGET_MULTIPLE, choose_generator, load_generator

        files, device = self.policy_files(version), self.chosen_device()
        return load_generator(
            choose_generator(self.generator, files, device),
            files,
            tokeniser,
            dtype=outcomes_of(version).dtype,
            device=device,
            budget=TokenBudget(BUDGET_MULTIPLE * self.budget()),
            longest=longest,
        )

    def rollouts_per_shard(self) -> int:
        """Rollouts that are made and kept together."""
        from saerl_assets.models.rollouts import ROLLOUTS_PER_SHARD

        return self.texts_per_shard or ROLLOUTS_PER_SHARD[self.chosen_device().partition(":")[0]]

    def tokeniser(self, version: Version, progress: Progress = silent) -> "Tokeniser":
        """The reader's tokenizer with its template, without the weights."""
        from saerl_assets.models.tokeniser import Tokeniser

        files = self.files(version, progress)
        if files.gguf_file is not None:
            progress(0, 1, unit="models", note="loading the tokenizer; the GGUF file is converted once")
        return Tokeniser.load(files, version.spec.reader.template, version.spec.reader.bos)

    def reader(self, version: Version, progress: Progress = silent) -> "Reader":
        """The reader, cut off after the highest layer; loaded once a process."""
        spec = version.spec.reader
        return _load_reader(self.files(version, progress), spec.layers, spec.dtype, self.chosen_device())

    def reader_size(self, version: Version) -> dict[str, int]:
        """The reader's sizes, without its weights."""
        from saerl_assets.models.reader import sizes_of

        return sizes_of(self.files(version))

    def matmul_flops(self) -> float:
        """Floating-point operations a second of a large matrix product on the device."""
        from saerl_assets.models.device import matmul_flops

        return matmul_flops(self.chosen_device())

    def where_is(self, version: Version) -> str:
        """Where a version's reader is, without fetching it; says so if it would be fetched.

        Raises:
            SaerlError: what is wrong with a model on this machine.
        """
        scheme, _, rest = version.spec.reader.model.partition(":")
        if scheme == "pypi":
            folder = model_cache() / "models" / rest.partition("#")[0].replace("==", "-")
            return str(folder) if folder.exists() else "not here yet; the first run fetches it"
        if scheme == "path":
            return str(self.files(version).folder)
        return "in the hub's cache, or fetched by the first run"


def outcomes_of(version: Version) -> OutcomesSpec:
    """The section `[outcomes]` of a version that has one."""
    outcomes = version.spec.outcomes
    if outcomes is None:
        message = f"{version.key} has no [outcomes]"
        raise ValueError(message)
    return outcomes


@cache
def _load_reader(files: "ModelFiles", layers: tuple[int, ...], dtype: str, device: str) -> "Reader":
    from saerl_assets.models.reader import Reader

    return Reader.load(files, layers=layers, dtype=dtype, device=device)


@cache
def _budget(model_digest: str, layers: tuple[int, ...], dtype: str, device: str, wanted: int) -> "TokenBudget":
    from saerl_assets.models.device import TokenBudget, describe_device, token_budget

    tokens = token_budget(wanted, device)
    if wanted:
        return TokenBudget(tokens)
    facts = {"model": model_digest, "layer": max(layers), "dtype": dtype, "device": describe_device(device)}
    file = model_cache() / "token_budgets" / f"{digest(facts)[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        tokens = min(max(int(json.loads(file.read_text())["tokens"]), 1), tokens)

    def remember(tokens: int) -> None:
        with contextlib.suppress(SaerlError):  # a full disk is told of where it matters
            write_whole(file, json.dumps(facts | {"tokens": tokens}))

    return TokenBudget(tokens, remember)
