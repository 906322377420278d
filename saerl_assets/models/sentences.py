"""Sentence embeddings: one vector for each text, by a transformer encoder of its own.

Belongs here: tokenizing, the forward pass, pooling over tokens. Does not belong here: finding the files
(sentence_sources), where vectors are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.sentence_sources import SentenceModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_LIMIT = 1 << 20
"""A tokenizer that knows no limit says a number larger than this."""


class SentenceEncoder:
    """A transformer encoder whose last hidden states become one vector for each text."""

    def __init__(self, model: Any, tokenizer: Any, files: SentenceModel) -> None:  # noqa: ANN401
        self._model, self._tokenizer, self._files = model, tokenizer, files
        limits = [files.max_tokens, tokenizer.model_max_length, _positions(model.config)]
        self.max_tokens = min(limit for limit in limits if limit is not None and 0 < limit < NO_LIMIT)
        self.n_dimensions = int(model.config.hidden_size)

    @classmethod
    def load(cls, files: SentenceModel, device: str) -> SentenceEncoder:
        """Loads the encoder in float32.

        Raises:
            SaerlError: `model_corrupt`, `model_incomplete`.
        """
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        try:
            tokenizer = AutoTokenizer.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
            model, found = AutoModel.from_pretrained(
                files.folder,
                dtype=torch.float32,
                output_loading_info=True,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
        except Exception as error:
            remedy = "Fetch the encoder again; its files cannot be read."
            raise SaerlError("model_corrupt", f"{error}", where=str(files.folder), remedy=remedy) from error
        # the pooler turns the first token into something else, which no sentence embedding is made from
        missing = sorted(name for name in found["missing_keys"] if not name.startswith("pooler."))
        if missing:
            remedy = "Fetch the encoder again, with every file of its weights."
            problem = f"Its files lack weights: {', '.join(missing[:3])}."
            raise SaerlError("model_incomplete", problem, where=str(files.folder), remedy=remedy)
        return cls(model.eval().requires_grad_(requires_grad=False).to(device), tokenizer, files)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], *, token_budget: int = 8_192) -> NDArray[np.float32]:
        """One vector for each text, float32 [n, n_dimensions].

        A text of more than `max_tokens` is cut, as the encoder's makers do.

        Args:
            texts: n texts.
            token_budget: Tokens of one forward pass, padding included.
        """
        encoded = self._tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"]
        lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
        found = np.zeros((len(texts), self.n_dimensions), dtype=np.float32)
        order = np.argsort(lengths, kind="stable")
        while len(order):
            # the longest that is left decides how many of the next shorter ones fit beside it
            n_texts = max(token_budget // max(int(lengths[order[-1]]), 1), 1)
            batch, order = order[-n_texts:], order[:-n_texts]
            found[batch] = self._pooled([encoded[place] for place in batch])
        return found

    def _pooled(self, token_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        padded = self._tokenizer.pad({"input_ids": list(token_ids)}, padding_side="right", return_tensors="pt")
        padded = padded.to(next(self._model.parameters()).device)
        states = self._model(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]).last_hidden_state
        if self._files.pooling == "cls":
            vectors = states[:, 0]
        else:
            is_text = padded["attention_mask"].unsqueeze(-1).to(states.dtype)
            vectors = (states * is_text).sum(dim=1) / is_text.sum(dim=1).clamp(min=1.0)
        if self._files.normalized:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        result: NDArray[np.float32] = vectors.float().cpu().numpy()
        return result


def _positions(config: Any) -> int | None:  # noqa: ANN401 - a model's config
    """Tokens that the position embeddings reach; RoBERTa's count from the padding token's id on."""
    n_positions = getattr(config, "max_position_embeddings", None)
    if n_positions is None:
        return None
    starts_late = getattr(config, "model_type", "") in {"roberta", "xlm-roberta", "camembert", "mpnet"}
    return int(n_positions) - (int(config.pad_token_id or 0) + 1 if starts_late else 0)
