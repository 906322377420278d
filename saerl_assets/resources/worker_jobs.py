"""What workers do: read shards of texts, or answer prompts. Loaded once in each, from what fits into a message.

Belongs here: what a worker has to be told, and loading it there. Does not belong here: how workers are started and fed
(workers), the forward pass (models).

A worker on another machine fetches the reader by its name and holds its digest against the one here; SAEs, which were
made here, are sent along.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.storage.catalog import Version

if TYPE_CHECKING:
    from saerl_assets.models.extraction import ShardRows
    from saerl_assets.models.rollouts import Ask, Completion, Sampling
    from saerl_assets.models.saes import Encoder
    from saerl_assets.models.sources import ModelFiles
    from saerl_assets.models.texts import Shard


@dataclass(frozen=True)
class SaeCopy:
    """The files of an SAE by name, to be sent."""

    files: Mapping[str, bytes]

    @classmethod
    def read(cls, folder: Path) -> "SaeCopy":
        """Copies an SAE's folder, which has no folders in it."""
        return cls({file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()})

    def load(self, device: str) -> "Encoder":
        """The SAE on a device."""
        from saerl_assets.models.saes import load_encoder

        with tempfile.TemporaryDirectory(prefix="saerl-sae-") as made:
            for name, content in self.files.items():
                (Path(made) / name).write_bytes(content)
            return load_encoder(Path(made), device)


@dataclass(frozen=True)
class ReadingJob:
    """Reads, encodes and pools shards."""

    settings: Mapping[str, Any]
    """As `ComputeResource.settings` gives them."""
    version: Version
    reader_digest: str
    saes: Mapping[int, SaeCopy]
    sink_thresholds: Mapping[int, float]
    controls: Mapping[int, SaeCopy] = field(default_factory=dict)

    def open(self, device: str) -> "Callable[[Shard], ShardRows]":
        """Loads the reader and the SAEs.

        Raises:
            SaerlError: `model_differs`; what is wrong with the model or the device here.
        """
        from saerl_assets.models.extraction import pool_shard

        compute = ComputeResource(device=device, **self.settings)
        check_same(compute.files(self.version), self.reader_digest)
        reader, chosen = compute.reader(self.version), compute.chosen_device()
        encoders = {layer: sae.load(chosen) for layer, sae in self.saes.items()}
        controls = {layer: sae.load(chosen) for layer, sae in self.controls.items()}
        budget = compute.budget_for(self.version)

        def rows(shard: "Shard") -> "ShardRows":
            return pool_shard(reader, shard, encoders, self.sink_thresholds, budget=budget, controls=controls)

        return rows


@dataclass(frozen=True)
class AnsweringJob:
    """Answers prompts with the version's policy."""

    settings: Mapping[str, Any]
    """As `ComputeResource.settings` gives them."""
    version: Version
    policy_digest: str
    longest: int
    sampling: "Sampling"

    def open(self, device: str) -> "Callable[[Sequence[Ask]], Answers]":
        """Loads the policy.

        Raises:
            SaerlError: `model_differs`; what is wrong with the policy or the device here.
        """
        compute = ComputeResource(device=device, **self.settings)
        check_same(compute.policy_files(self.version), self.policy_digest)
        generator = compute.policy(self.version, compute.policy_tokeniser(self.version), self.longest)
        return lambda asks: Answers(generator.name, generator.complete(asks, self.sampling))


@dataclass(frozen=True)
class Answers:
    """Completions and what made them."""

    generator: str
    completions: "Sequence[Completion]"


def check_same(files: "ModelFiles", digest: str) -> None:
    """Holds a model on a worker's machine against the one that the run began with.

    Raises:
        SaerlError: `model_differs`.
    """
    if files.digest != digest:
        raise SaerlError(
            "model_differs",
            "This machine has other files under the model's name than the one that the run was started on.",
            where=str(files.folder),
            remedy="Put the same files on every node, or name the model by hf:org/name@commit or pypi:.",
        )
