"""What can be typed in a chat beside messages: /help and its companions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from circius.base.errors import InvalidInputError
from circius.cli.conversation import load_conversation, save_conversation
from circius.cli.output import Output, size

if TYPE_CHECKING:
    from circius import LLM, ChatSession, RequestOutput
    from circius.text import Message


@dataclass(kw_only=True)
class ChatState:
    """A chat under way, with a person or a script. `last` is the latest answer; `is_over` ends the chat."""

    session: "ChatSession"
    llm: "LLM"
    model: str
    output: Output
    is_terminal: bool
    last: "RequestOutput | None" = None
    n_turns: int = 0
    is_over: bool = False
    ask_again: "list[Message] | None" = field(default=None)
    """A conversation to be answered once more, set by /retry."""


@dataclass(frozen=True)
class ChatCommand:
    """One command: what to type, what it does, and the function that does it, given what follows its name."""

    usage: str
    about: str
    run: Callable[[ChatState, str], None]


def run_command(state: ChatState, line: str) -> None:
    """Does what a line that begins with a slash says.

    Raises:
        InvalidInputError: there is no such command, or it cannot do that.
        StorageError: a conversation cannot be written.
    """
    name, _, rest = line.strip().partition(" ")
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else "/help lists them"
        raise InvalidInputError(f"unknown command {name}: {hint} (a message that begins with a slash needs two)")
    COMMANDS[name].run(state, rest.strip())


def _help(state: ChatState, _: str) -> None:
    width = max(len(command.usage) for command in COMMANDS.values())
    for command in COMMANDS.values():
        state.output.reply(f"{command.usage:<{width}}  {command.about}")
    state.output.reply('Esc-Enter breaks a line, """ opens and closes a block of lines, Ctrl-C stops an answer.')


def _system(state: ChatState, text: str) -> None:
    from circius.text import Message

    rest = [message for message in state.session.messages if message.role != "system"]
    state.session.messages = [Message("system", text), *rest] if text else rest
    state.output.reply("system prompt set" if text else "system prompt removed")


def _guard(state: ChatState, word: str) -> None:
    wanted = {"on": True, "off": False, "": not state.session.guard}
    if word not in wanted:
        raise InvalidInputError(f"/guard: it can be on or off, got {word!r}")
    state.session.guard = wanted[word]
    state.output.reply("guard prompt on, before the system prompt" if state.session.guard else "guard prompt off")


def _save(state: ChatState, name: str) -> None:
    path = _path(name, "/save")
    save_conversation(path, state.session.messages, model=state.model)
    state.output.reply(f"{len(state.session.messages)} messages saved to {path}")


def _load(state: ChatState, name: str) -> None:
    path = _path(name, "/load")
    state.session.reset(load_conversation(path))
    state.output.reply(f"{len(state.session.messages)} messages loaded from {path}")


def _reset(state: ChatState, _: str) -> None:
    system = [message for message in state.session.messages if message.role == "system"]
    state.session.reset(system)
    state.output.reply("conversation forgotten" + (", the system prompt kept" if system else ""))


def _stats(state: ChatState, _: str) -> None:
    session, last = state.session, state.last
    state.output.reply(f"{state.n_turns} answers, {len(session.messages)} messages in the conversation")
    state.output.reply(f"cache: {session.n_cached_tokens} tokens, {size(session.n_cache_bytes)}")
    if last is not None:
        timings = last.timings
        state.output.reply(
            f"last answer: {timings.completion_tokens} tokens at {timings.decode_tokens_per_s:.1f} tok/s; prompt of "
            f"{timings.prompt_tokens} tokens, {timings.cached_tokens} of them from the cache"
        )


def _retry(state: ChatState, _: str) -> None:
    messages = list(state.session.messages)
    while messages and messages[-1].role != "user":
        messages.pop()
    if not messages:
        raise InvalidInputError("/retry: there is no answer to try again yet")
    state.ask_again = messages


def _exit(state: ChatState, _: str) -> None:
    state.is_over = True


def _path(name: str, command: str) -> Path:
    if not name:
        raise InvalidInputError(f"{command} needs the name of a file: {command} FILE")
    return Path(name).expanduser()


COMMANDS: Mapping[str, ChatCommand] = MappingProxyType(
    {
        "/help": ChatCommand("/help", "list the commands", _help),
        "/system": ChatCommand("/system [TEXT]", "set the system prompt; without TEXT remove it", _system),
        "/guard": ChatCommand("/guard [on|off]", "put the guard prompt before the conversation, or not", _guard),
        "/save": ChatCommand("/save FILE", "write the conversation to a file", _save),
        "/load": ChatCommand("/load FILE", "go on with a saved conversation", _load),
        "/reset": ChatCommand("/reset", "forget the conversation, keep the system prompt", _reset),
        "/retry": ChatCommand("/retry", "answer the last message once more", _retry),
        "/stats": ChatCommand("/stats", "show tokens, cache and speed", _stats),
        "/exit": ChatCommand("/exit", "leave (so does Ctrl-D)", _exit),
    }
)
