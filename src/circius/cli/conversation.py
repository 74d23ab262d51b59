"""A conversation on disk: written whole or not at all, read with care."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circius.base.errors import InvalidInputError, StorageError
from circius.cli.texts import read_text_file

if TYPE_CHECKING:
    from circius.text import Message

FORMAT = "circius-conversation"
VERSION = 1


def save_conversation(path: Path, messages: "Sequence[Message]", *, model: str) -> None:
    """Writes the conversation as JSON; a file of that name is replaced only once the new one is complete.

    Raises:
        StorageError: the file cannot be written.
    """
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
    }
    try:
        write_atomically(path, json.dumps(fields, ensure_ascii=False, indent=2) + "\n")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from None


def load_conversation(path: Path) -> "list[Message]":
    """The messages of a saved conversation.

    Raises:
        InvalidInputError: the file is missing, is not a saved conversation, or a message in it is malformed.
    """
    try:
        fields = json.loads(read_text_file(path))
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"{path} is not a saved conversation: line {error.lineno}: {error.msg}") from None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise InvalidInputError(f'{path} is not a saved conversation: it lacks "format": "{FORMAT}"')
    if fields.get("version") != VERSION:
        raise InvalidInputError(
            f"{path} is a conversation of version {fields.get('version')!r}, this circius reads version {VERSION}"
        )
    messages = fields.get("messages")
    if not isinstance(messages, list):
        raise InvalidInputError(f"{path} has no list of messages")
    return [_message(path, index, entry) for index, entry in enumerate(messages, start=1)]


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file under a temporary name in the same folder, then renames it."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _message(path: Path, index: int, entry: Any) -> "Message":
    from circius.text import Message

    if (
        not isinstance(entry, dict)
        or entry.get("role") not in ("system", "user", "assistant")
        or not isinstance(entry.get("content"), str)
    ):
        raise InvalidInputError(
            f"message {index} of {path} must have a role (system, user or assistant) and a content that is text"
        )
    return Message.from_mapping(entry)
