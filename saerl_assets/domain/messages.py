"""Prompts as chat messages in one canonical form, and the identity that follows from it.

Belongs here: what counts as the same prompt, and why a value is no prompt. Does not belong here: affixes,
which are only left out for reading (affixes), folding duplicates (prompts).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import TypeAlias

from saerl_assets.domain.fields import MISSING, RowError, to_json
from saerl_assets.domain.spec import digest

Messages: TypeAlias = "list[dict[str, str]]"

ID_HEX_DIGITS = 32
"""Length of ids: 128 bits, so that even 10^12 prompts share none."""

_LINE_END = re.compile(r"\r+\n")


def canonical_text(text: str) -> str:
    r"""Text in Unicode's NFC, with `\n` line ends, without white space around it.

    Raises:
        RowError: `not_utf8` for half a surrogate pair, which JSON can escape but no encoding can hold.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            reason = f"The text holds half of a surrogate pair at character {error.start + 1}. Write it as UTF-8."
            raise RowError("not_utf8", reason) from error
        text = unicodedata.normalize("NFC", text)
    if "\r" in text:
        text = _LINE_END.sub("\n", text)
    return text.strip()


def canonical_messages(value: object, field: str) -> tuple[Messages, bool]:
    """The messages of a prompt, and whether it was a chat.

    A string is one user message. Of a chat message `role` and `content` count, nothing else.

    Args:
        value: What the prompt's field holds, or `MISSING`.
        field: The field's name, for the reason.

    Raises:
        RowError: `missing_field`, `null_prompt`, `not_text`, `bad_messages`, `blank_prompt` or `not_utf8`.
    """
    if isinstance(value, str):
        messages, is_chat = [{"role": "user", "content": canonical_text(value)}], False
    elif isinstance(value, list):
        messages, is_chat = (
            [canonical_message(message, place, field) for place, message in enumerate(value)],
            True,
        )
        if not messages:
            raise RowError("bad_messages", f"{field} is an empty list. Give at least one message.")
    else:
        raise _no_prompt(value, field)
    if not any(message["content"] for message in messages if message["role"] != "system"):
        raise RowError("blank_prompt", f"{field} holds nothing but white space. Fill it or remove the row.")
    return messages, is_chat


def canonical_response(value: object, field: str, *, is_needed: bool) -> str | None:
    """A response's canonical text, or none.

    Raises:
        RowError: `missing_response` where it is needed and not there, `not_text`, `not_utf8`.
    """
    if value is not MISSING and value is not None and not isinstance(value, str):
        remedy = "Name the field that holds the text, such as completion.0.content."
        raise RowError("not_text", f"{field} is {kind_of(value)} where text is due. {remedy}")
    response = canonical_text(value) if isinstance(value, str) else ""
    if is_needed and not response:
        raise RowError("missing_response", f"{field} is missing, null or blank, but reader.scope reads a response.")
    return response or None


def prompt_id(messages: Messages, response: str | None) -> str:
    """Identity of a prompt: the first 32 hex digits of the SHA-256 over its messages and response."""
    return digest({"messages": messages, "response": response})[:ID_HEX_DIGITS]


def question_id(messages: Messages) -> str:
    """Identity of what is asked: that of the prompt without its response, and so of a prompt without one its own."""
    return prompt_id(messages, None)


def asking_message(messages: Messages) -> int:
    """Index of the message that affixes are stripped from: the last one by the user, else the last one."""
    for place in range(len(messages) - 1, -1, -1):
        if messages[place]["role"] == "user":
            return place
    return len(messages) - 1


def as_text(value: object, field: str) -> str | None:
    """An answer or a topic as text, numbers and truth values as JSON writes them.

    Null, missing, blank and NaN are none.

    Raises:
        RowError: `not_text` for a list or an object, `not_utf8`.
    """
    if value is MISSING or value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, list | tuple | Mapping):
        remedy = (
            f"Name one value in it, such as {field}.0." if not isinstance(value, Mapping) else "Name a field in it."
        )
        raise RowError("not_text", f"{field} is {kind_of(value)} where text or a number is due. {remedy}")
    if not isinstance(value, str):
        return to_json(value).strip('"')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        reason = f"{field} holds half of a surrogate pair at character {error.start + 1}. Write it as UTF-8."
        raise RowError("not_utf8", reason) from error
    return value.strip() or None


def canonical_message(message: object, place: int, field: str) -> dict[str, str]:
    """One chat message with `role` and `content`, nothing else.

    Raises:
        RowError: `bad_messages` or `not_utf8`.
    """
    if not isinstance(message, Mapping):
        raise RowError("bad_messages", f"{field}.{place} is {kind_of(message)}, not a message with role and content.")
    for key in ("role", "content"):
        if not isinstance(message.get(key), str):
            what = kind_of(message[key]) if key in message else "missing"
            raise RowError("bad_messages", f"{field}.{place}.{key} is {what}; a message needs it as text.")
    role = canonical_text(message["role"])
    if not role:
        raise RowError("bad_messages", f"{field}.{place}.role is blank. Write user, assistant or system.")
    return {"role": role, "content": canonical_text(message["content"])}


def _no_prompt(value: object, field: str) -> RowError:
    if value is MISSING:
        return RowError("missing_field", f"The row has no field {field}. Add it or remove the row.")
    if value is None:
        return RowError("null_prompt", f"{field} is null. Fill it or remove the row.")
    return RowError("not_text", f"{field} is {kind_of(value)} where text or a list of messages is due.")


def kind_of(value: object) -> str:
    """What a value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return "text"
    return "an object" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else type(value).__name__
