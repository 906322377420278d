"""One version's reading: its texts in shards, its reader, and the activations that are kept between assets.

Belongs here: what SAEs, health and extraction share. Does not belong here: what each of them makes of it (saes,
sae_health, extraction).
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.progress import Progress
from saerl_assets.domain.spec import digest
from saerl_assets.resources.centroids import same_encoders
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.shards import ShardStore

if TYPE_CHECKING:
    from saerl_assets.models.activations import ActivationCache
    from saerl_assets.models.extraction import Activations
    from saerl_assets.models.reader import Reader
    from saerl_assets.models.saes import Encoder
    from saerl_assets.models.sources import ModelFiles
    from saerl_assets.models.texts import Shard

MAX_HELD_OUT_SHARDS = 8
AUTO, TRAIN = "auto", "train"


class Reading:
    """Reads one version."""

    def __init__(self, home: HomeResource, compute: ComputeResource, key: str, say: Callable[[str], None]) -> None:
        self.home, self.compute, self.say = home, compute, say
        self.version = home.version(key)
        self.spec = self.version.spec
        self.work = home.open().work(key)
        self._has_told_of_reader = False

    @property
    def trains(self) -> bool:
        """Whether the version's SAEs are trained here rather than loaded or taken over."""
        return self.spec.sae.source == (TRAIN,) or (self.spec.sae.source == (AUTO,) and self.spec.parent is None)

    @property
    def takes_over(self) -> bool:
        """Whether the version's SAEs are its parent's."""
        return self.spec.sae.source == (AUTO,) and self.spec.parent is not None

    def files(self) -> "ModelFiles":
        """The reader's files."""
        return self.compute.files(self.version)

    def reader(self) -> "Reader":
        """The reader, loaded when it is first needed."""
        if not self._has_told_of_reader:
            model = self.spec.reader.model.partition("#")[0]
            self.say(f"loading {model} up to layer {max(self.spec.reader.layers)}")
            self._has_told_of_reader = True
        return self.compute.reader(self.version)

    def encoder(self, sae_digest: str) -> "Encoder":
        """An SAE of the home on the device."""
        from saerl_assets.models.saes import load_encoder

        return load_encoder(self.home.artifacts().find("sae", sae_digest), self.compute.chosen_device())

    def check_reader(self, weights: pl.DataFrame) -> None:
        """Holds the model on disk against the one that the version's SAEs were made for.

        Raises:
            SaerlError: `reader_changed`.
        """
        if set(weights["reader_digest"]) - {self.files().digest}:
            raise SaerlError(
                "reader_changed",
                "The reader's files are no longer those that this version's SAE was made for.",
                where=self.spec.reader.model.partition("#")[0],
                remedy=f"Put them back, or make the SAE anew: saerl run {self.spec.key} --only sae_weights",
            )

    def shards(self, prompts: pl.DataFrame) -> "list[Shard]":
        """The texts of prompts as shards, each text once."""
        from saerl_assets.models.texts import Text, plan_shards

        texts = prompts.unique("text_id", keep="first", maintain_order=True)
        # one array with a view for each text: a list of numbers takes nine times the memory
        tokens = texts["token_ids"].explode(empty_as_null=False).to_numpy().astype(np.int32)
        ends = np.cumsum(texts["token_ids"].list.len().to_numpy().astype(np.int64))[:-1]
        pools_response = self.spec.reader.scope == "response"
        firsts = texts["n_prefix_tokens"].to_list() if pools_response else [0] * texts.height
        found = map(Text, texts["text_id"].to_list(), np.split(tokens, ends), firsts)
        return plan_shards(list(found), texts_per_shard=self.compute.shard_size(texts.height))

    def held_out(self, shards: "list[Shard]") -> "list[Shard]":
        """The last shards, a twentieth of them but at least one: shards are random samples."""
        n_held_out = min(max(round(0.05 * len(shards)), 1), MAX_HELD_OUT_SHARDS)
        return shards[-n_held_out:]

    def sample(self, prompts: pl.DataFrame) -> "list[Shard]":
        """The shards that SAEs are measured on: texts that they were not trained on, where there are any.

        A version with its parent's SAEs, taken over or named again, is measured on what is new in it. Those texts have
        to be read anyhow, so that a version with few new texts stays cheap.
        """
        if self.spec.parent is not None and same_encoders(self.home, self.version):
            before = self.home.warehouse().rows("prompts", ["text_id"], dataset_version=str(self.spec.parent))
            new = prompts.filter(~pl.col("text_id").is_in(before["text_id"].implode()))
            if new.height:
                return self.shards(new)[:MAX_HELD_OUT_SHARDS]
        return self.held_out(self.shards(prompts))

    def to_train_on(self, shards: "list[Shard]") -> "list[Shard]":
        """The first shards up to the spec's number of distinct tokens, without those held out."""
        usable = shards[: -len(self.held_out(shards))] or shards
        totals = np.cumsum([shard.n_tokens for shard in usable])
        n_needed = int(np.searchsorted(totals, self.spec.sae.max_activation_tokens)) + 1
        return usable[:n_needed]

    def activations(self, shards: "list[Shard]", progress: Progress) -> "Iterator[Activations]":
        """Activations of shards, from the cache where it has them; those that are read are kept there."""
        cache, done = self.cache(), 0
        total = sum(shard.n_tokens for shard in shards)
        for shard in shards:
            kept = cache.get(shard)
            if kept is None:
                kept = cache.get_or_read(self.reader(), shard, budget=self.compute.budget_for(self.version))
            done += shard.n_tokens
            progress(done, total, unit="tokens")
            yield kept

    def cache(self) -> "ActivationCache":
        """Activations by shard, for this model, these layers and this number format."""
        from saerl_assets.models.activations import ActivationCache

        reader = self.spec.reader
        name = digest([self.files().digest, sorted(reader.layers), reader.dtype, self.compute.budget()])[:16]
        return ActivationCache(self.work / "activations" / name)

    def forget(self) -> None:
        """Removes what was kept to be resumed or shared between assets; what came of it is in the warehouse."""
        for name in ("shards", "training", "fetched", "activations"):
            ShardStore.of(self.home.open(), self.work / name).remove()
