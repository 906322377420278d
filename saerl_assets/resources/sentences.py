"""Sentence embeddings of one version: which texts were not read yet, reading them, the predictor that they make.

Belongs here: what is missing, shards, rows as a predictor. Does not belong here: the encoder (models).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from saerl_assets.domain.progress import Progress
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.catalog import Version
from saerl_assets.storage.home import model_cache
from saerl_assets.storage.shards import ShardFiles, ShardStore
from saerl_assets.storage.states import StoredVectors

TABLE = "sentence_embeddings"
TEXTS_PER_SHARD = 2_048


@dataclass(frozen=True)
class Embedded:
    """What one pass of the encoder hands over."""

    files: ShardFiles
    n_read: int
    """Texts that the encoder read."""
    words: str

    def remove(self) -> None:
        """Removes the shards, once their rows are in the warehouse."""
        for folder in {path.parent.parent for path in self.files.files}:
            ShardStore(folder).remove()


def embed_prompts(
    home: HomeResource, compute: ComputeResource, key: str, prompts: pl.DataFrame, progress: Progress
) -> Embedded:
    """Reads the texts that the version's sentence encoder has not read yet, shard by shard.

    Args:
        home: Where the version and the embeddings are.
        compute: The device.
        key: The version.
        prompts: Table `prompts`.
        progress: Told after every shard.
    """
    version = home.version(key)
    if version.spec.evidence.sentence_model is None:
        words = "evidence.sentence_model names no encoder, so there are no sentence embeddings."
        return Embedded(ShardFiles(TABLE, (), 0, 0), 0, words)
    import pyarrow as pa

    from saerl_assets.models.sentence_sources import locate_sentence_model

    source = version.spec.evidence.sentence_model
    files = locate_sentence_model(source, cache=model_cache(), folder=version.folder, progress=progress)
    texts = dict(zip(text_digests(prompts["text"].to_list()), prompts["text"].to_list(), strict=True))
    before = home.warehouse().rows(TABLE, ["text_digest"], model_id=files.model_id)["text_digest"].to_list()
    missing = sorted(set(texts) - set(before))
    shards = [missing[start : start + TEXTS_PER_SHARD] for start in range(0, len(missing), TEXTS_PER_SHARD)]
    store = ShardStore(home.open().work(key) / "sentences" / files.model_id)
    ids = [hashlib.sha256("\n".join(shard).encode()).hexdigest()[:32] for shard in shards]
    wanted = [
        (shard_id, shard) for shard_id, shard in zip(ids, shards, strict=True) if not store.has(shard_id, [TABLE])
    ]
    if wanted:
        from saerl_assets.models.sentences import SentenceEncoder

        encoder = SentenceEncoder.load(files, compute.chosen_device())
        for place, (shard_id, shard) in enumerate(wanted):
            vectors = encoder.embed([texts[name] for name in shard])
            columns = {
                "model_id": pa.array([files.model_id] * len(shard), pa.string()),
                "text_digest": pa.array(shard, pa.string()),
                "embedding": pa.array(list(vectors), pa.list_(pa.float32())),
            }
            store.write(shard_id, {TABLE: pa.table(columns)})
            progress(place + 1, len(wanted), unit="shards")
    found = ShardFiles(TABLE, store.files(TABLE, ids), len(texts), len(texts) - len(missing))
    return Embedded(
        found, sum(len(shard) for _, shard in wanted), f"{source.partition('#')[0]}, {files.pooling} pooling"
    )


def sentence_vectors(home: HomeResource, version: Version, prompts: pl.DataFrame) -> StoredVectors | None:
    """The version's sentence embeddings as a predictor; None where it names no encoder.

    Args:
        home: Where the embeddings are.
        version: The version.
        prompts: Column text; its order is that of the rows.
    """
    model_id = sentence_model_id(version)
    if model_id is None:
        return None
    texts = text_digests(prompts["text"].to_list())
    owners = (model_id,)
    return StoredVectors(home.warehouse(), "sentence", TABLE, "embedding", "model_id", owners, "text_digest", texts)


def sentence_model_id(version: Version) -> str | None:
    """The id of the version's sentence encoder, as its files are now; None where it names none."""
    source = version.spec.evidence.sentence_model
    if source is None:
        return None
    from saerl_assets.models.sentence_sources import locate_sentence_model

    return locate_sentence_model(source, cache=model_cache(), folder=version.folder).model_id


def text_digests(texts: Sequence[str]) -> list[str]:
    """The first 32 hex digits of each text's SHA-256."""
    return [hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts]
