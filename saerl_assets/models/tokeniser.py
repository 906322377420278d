"""The reader's tokenizer: prompts and responses as the token ids that are read.

Belongs here: tokenizing and the template. Does not belong here: the model's weights, which it works without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.readings import TokenisedText
from saerl_assets.models.gguf import tokeniser_folder
from saerl_assets.models.sources import ModelFiles

Template = Literal["plain", "chat"]
Bos = Literal["tokenizer", "always", "never"]


class Tokeniser:
    """A model's tokenizer with its template: `saerl_assets.domain.readings.Tokenise`.

    Template `plain` reads the bare text, with the special tokens that the tokenizer puts around one (a BOS
    where the model has one). Template `chat` renders messages as the tokenizer's chat template does, up to
    where the assistant's turn begins. `bos` says whether a text starts with the beginning-of-sequence token whatever
    the tokenizer and its template do by themselves. A response follows the prompt's tokens as tokens of its own,
    so that a prompt reads the same with it and without.
    """

    def __init__(
        self,
        tokenizer: Any,  # noqa: ANN401
        template: Template,
        bos: Bos = "tokenizer",
        section: str = "reader",
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._bos = bos
        self._section = section

    @classmethod
    def load(cls, files: ModelFiles, template: Template, bos: Bos = "tokenizer", section: str = "reader") -> Tokeniser:
        """Loads the tokenizer without the weights.

        Args:
            files: Of the model.
            template: How a prompt is rendered.
            bos: Whether a text starts with the beginning-of-sequence token.
            section: Section of the spec that chose the template, for messages.

        Raises:
            SaerlError: `model_without_tokenizer`, `no_chat_template` for template `chat`, `no_bos` where it is
                to start every text and the tokenizer has none.
        """
        from transformers import AutoTokenizer

        folder = tokeniser_folder(files)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            remedy = "Put the model's tokenizer files (tokenizer.json, tokenizer_config.json) beside its weights."
            raise SaerlError("model_without_tokenizer", f"{error}", where=str(files.folder), remedy=remedy) from error
        if template == "chat" and not tokenizer.chat_template:
            remedy = f"Set {section}.template = 'plain', or use a model that was trained on chats."
            raise SaerlError(
                "no_chat_template", "The tokenizer has no chat template.", where=files.source, remedy=remedy
            )
        if bos == "always" and tokenizer.bos_token_id is None:
            remedy = "Set reader.bos = 'tokenizer'; a model without that token was trained without it."
            problem = "The tokenizer has no beginning-of-sequence token."
            raise SaerlError("no_bos", problem, where="reader.bos", remedy=remedy)
        return cls(tokenizer, template, bos, section)

    @property
    def bos_token_id(self) -> int | None:
        """The beginning-of-sequence token, where the tokenizer has one."""
        found = self._tokenizer.bos_token_id
        return None if found is None else int(found)

    @property
    def end_token_id(self) -> int | None:
        """The end-of-sequence token, where the tokenizer has one."""
        found = self._tokenizer.eos_token_id
        return None if found is None else int(found)

    def completion_of(self, token_ids: Sequence[int]) -> str:
        """The text of what a model wrote, without special tokens."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def texts_of(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token by itself."""
        return [str(self._tokenizer.decode([token])) for token in token_ids]

    def text_of(self, token_ids: Sequence[int]) -> str:
        """The text of tokens in a row, special ones included."""
        return str(self._tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False))

    def __call__(
        self, prompts: Sequence[list[dict[str, str]] | str], responses: Sequence[str | None]
    ) -> list[TokenisedText]:
        """Token ids of each prompt, followed by those of its response where there is one.

        Raises:
            SaerlError: `template_refused`, with the chat template's complaint.
        """
        rendered = [self._render(prompt) for prompt in prompts]
        heads = [self._started(ids) for ids in self._encode(rendered, special=self._template == "plain")]
        spoken = [place for place, response in enumerate(responses) if response is not None]
        tails = self._encode([responses[place] or "" for place in spoken], special=False)
        tail_at = dict(zip(spoken, tails, strict=True))
        return [
            TokenisedText(head + tail_at.get(place, []), len(head) if place in tail_at else 0)
            for place, head in enumerate(heads)
        ]

    def _render(self, prompt: list[dict[str, str]] | str) -> str:
        if self._template == "plain":
            return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
        from jinja2 import TemplateError

        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            remedy = f"Change the messages' roles, or set {self._section}.template = 'plain'."
            problem = f"The model's chat template refuses messages of {roles}: {error}."
            raise SaerlError("template_refused", problem, where=f"{self._section}.template", remedy=remedy) from error

    def _started(self, ids: list[int]) -> list[int]:
        bos = self._tokenizer.bos_token_id
        starts = bool(ids) and ids[0] == bos
        if self._bos == "always" and not starts:
            return [bos, *ids]
        return ids[1:] if self._bos == "never" and starts else ids

    def _encode(self, texts: list[str], *, special: bool) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self._tokenizer(texts, add_special_tokens=special)["input_ids"]
        return found
