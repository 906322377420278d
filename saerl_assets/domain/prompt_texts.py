"""Finding a prompt by what a log shows of it: its text, a chat, or a text that a chat template has made.

Belongs here: the one index of texts that all readers of logs share. Does not belong here: prompts named by id
(log_formats), prompts of a label file, which are the data's own to the letter (labels).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import TypeAlias

Chat: TypeAlias = "tuple[tuple[str, str], ...]"
"""Role and text of each message."""

_ANCHOR = 24
"""Characters of a text by which it is found inside a longer one."""
_MAX_AFFIXES = 16
_MAX_KNOWN = 1_000_000
_MAX_SEARCH = 10_000_000
"""Places and candidates that are looked at inside longer texts, over a whole log: tens of seconds. A log that follows
needs the first lines only, for what a chat template puts around a prompt is the same everywhere."""

_ASKED = re.compile(r"(?:^|\n)\W*(?:user|human)\W*\n+|\[INST\]", re.IGNORECASE)
_ANSWERED = re.compile(r"(?:\n+\W*(?:assistant|model|ai)\W*|\[/INST\])\s*(?:<think>)?\s*$", re.IGNORECASE)


class PromptTexts:
    """The texts of some prompts, to find prompts by what a log shows of them.

    White space counts as one space. Of a chat the last message of the user is looked for, which a chat template leaves
    as it is; so several prompts may have one text: the responses to a prompt, or prompts of other system messages.
    """

    def __init__(self, prompts: Iterable[tuple[str, object]]) -> None:
        """Takes pairs of a prompt's id and its text or messages; an id that comes again counts once."""
        self.alias: dict[str, str] = {}
        """Prompt id to the id that stands for all prompts of its text, the first one."""
        self._ids: dict[str, list[str]] = {}
        self._chats: dict[str, Chat] = {}
        for prompt_id, prompt in prompts:
            if prompt_id in self.alias:
                continue
            chat = _chat(prompt)
            text = _asked(chat)
            ids = self._ids.setdefault(text, [])
            ids.append(prompt_id)
            self.alias[prompt_id] = ids[0]
            self._chats[prompt_id] = chat
        self._anchors: dict[int, dict[str, list[str]]] = {}
        self._affixes: list[tuple[str, str]] = []
        self._known: dict[tuple[str, bool], list[str]] = {}
        self._left_to_search = _MAX_SEARCH

    @property
    def gave_up(self) -> bool:
        """There was so much to search that later texts were compared as wholes only."""
        return self._left_to_search <= 0

    def find(self, shown: object, *, anywhere: bool = False) -> list[str]:
        """The prompts that a text or a chat is; none where there is none.

        Args:
            shown: What a log shows: a text, as it is or as a chat template rendered it, or messages.
            anywhere: Whether a prompt may stand anywhere in it, with whatever around it. Otherwise only a user's name
                may stand before it and the assistant's after it, so that a text which merely quotes a prompt is none.

        Returns:
            Their ids. Of a chat those with the same turns before the last question, and of these, or of all that have
            the text, those that are the same throughout, if there are any.
        """
        key = (shown if isinstance(shown, str) else json.dumps(shown, default=str), anywhere)
        if key not in self._known:
            if len(self._known) > _MAX_KNOWN:
                self._known.clear()
            self._known[key] = self._look_for(shown, anywhere=anywhere)
        return self._known[key]

    def _look_for(self, shown: object, *, anywhere: bool) -> list[str]:
        chat = _chat(shown)
        text = _asked(chat)
        if not text:
            return []
        found = self._ids.get(text) or (self._rendered(shown) if isinstance(shown, str) else [])
        if not found and anywhere:
            found = self._within(text)
        if not isinstance(shown, str):
            found = [each for each in found if _earlier(self._chats[each]) == _earlier(chat)]
        return [each for each in found if self._chats[each] == chat] or found

    def _rendered(self, text: str) -> list[str]:
        """The prompt in a text that a chat template has made: what is between the user's name and the assistant's."""
        said = _ANSWERED.sub("", text.replace("\r\n", "\n").strip())
        places = [0, *(match.end() for match in _ASKED.finditer(said))]
        return next((found for place in places if (found := self._ids.get(_one_line(said[place:]), []))), [])

    def _within(self, text: str) -> list[str]:
        """The prompt that a text contains: the longest, and of those the last."""
        for prefix, suffix in self._affixes:
            if text.startswith(prefix) and text.endswith(suffix):
                found = self._ids.get(text[len(prefix) : len(text) - len(suffix)].strip())
                if found:
                    return found
        if self.gave_up:
            return []
        best, at = self._longest(text)
        if at < 0:
            return []
        self._affixes = [(text[:at], text[at + len(best) :]), *self._affixes][:_MAX_AFFIXES]
        return self._ids[best]

    def _longest(self, text: str) -> tuple[str, int]:
        """The longest prompt's text in another one and where it begins; -1 where there is none."""
        best, at = "", -1
        for length, anchors in self._by_anchor().items():
            self._left_to_search -= len(text)
            for start in range(len(text) - length + 1):
                candidates = anchors.get(text[start : start + length], ())
                self._left_to_search -= len(candidates)
                for candidate in candidates:
                    if len(candidate) >= len(best) and _stands_alone(text, start, candidate):
                        best, at = candidate, start
        return best, at

    def _by_anchor(self) -> dict[int, dict[str, list[str]]]:
        """The texts by their first characters, made when a text is looked into for the first time."""
        if not self._anchors:
            for text in self._ids:
                length = min(_ANCHOR, len(text))
                if length:
                    self._anchors.setdefault(length, {}).setdefault(text[:length], []).append(text)
        return self._anchors


def asked_text(prompt: object) -> str:
    """What of a prompt is looked for: its text, of a chat the last message of the user, on one line."""
    return _asked(_chat(prompt))


def _chat(prompt: object) -> Chat:
    """A prompt as roles and texts; what is no message is left out, and so are images."""
    if not isinstance(prompt, list):
        return (("user", _plain(prompt)),)
    said = (message for message in prompt if isinstance(message, dict))
    return tuple((str(message.get("role")), _plain(message.get("content"))) for message in said)


def _plain(content: object) -> str:
    """A message's text; of one in parts, as chats with images have them, that of all parts."""
    if isinstance(content, list):
        content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return unicodedata.normalize("NFC", str(content)).replace("\r\n", "\n").strip()


def _one_line(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _asking(chat: Chat) -> int:
    """Index of the last message of the user, else of the last one."""
    return next((place for place in reversed(range(len(chat))) if chat[place][0] == "user"), len(chat) - 1)


def _asked(chat: Chat) -> str:
    return _one_line(chat[_asking(chat)][1]) if chat else ""


def _earlier(chat: Chat) -> Chat:
    """The turns before the last question, system messages left out."""
    turns = chat[: max(_asking(chat), 0)]
    return tuple((role, _one_line(text)) for role, text in turns if role != "system")


def _stands_alone(text: str, start: int, candidate: str) -> bool:
    """It is there, and no word goes on at its ends."""
    end = start + len(candidate)
    if not text.startswith(candidate, start):
        return False
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (before.isalnum() and candidate[0].isalnum()) and not (after.isalnum() and candidate[-1].isalnum())
