"""A corpus to train an SAE on, where it is not to be trained on the version's own prompts.

Belongs here: its source and its shards. Does not belong here: which of its rows are texts (domain).
"""

from typing import TYPE_CHECKING

from saerl_assets.domain.corpus import take_corpus
from saerl_assets.domain.progress import Progress
from saerl_assets.resources.reading import Reading
from saerl_assets.storage.sources import read_source

if TYPE_CHECKING:
    from saerl_assets.models.texts import Shard


def corpus_shards(reading: Reading, progress: Progress) -> "list[Shard]":
    """The corpus that the version's spec names, as shards to read.

    Raises:
        SaerlError: what is wrong with the corpus.
    """
    from saerl_assets.models.texts import Text, plan_shards
    from saerl_assets.models.tokeniser import Tokeniser

    spec, source = reading.spec, reading.version.sources["sae.corpus"]
    corpus = take_corpus(
        read_source(source),
        Tokeniser.load(reading.files(), "plain", spec.reader.bos),
        field=spec.sae.corpus_field,
        file=source.location,
        max_tokens=spec.reader.max_tokens,
        enough_tokens=spec.sae.max_activation_tokens,
        progress=progress,
    )
    reading.say(
        f"corpus: {len(corpus.pieces):,} pieces with {corpus.n_tokens:,} tokens from {corpus.n_rows:,} rows, "
        f"{corpus.n_unusable:,} of which gave none"
    )
    texts = [Text(name, ids) for name, ids in corpus.pieces.items()]
    return plan_shards(texts, texts_per_shard=reading.compute.shard_size(len(texts)))
