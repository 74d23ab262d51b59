"""The options of verbs that let models talk or judge, and what comes of them: ours, or somebody's server."""

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circius.base.errors import InvalidInputError
from circius.cli.loading import ModelOptions, find_model, open_llm
from circius.cli.output import Output

if TYPE_CHECKING:
    from circius.evals.chats import EndpointChats, EngineChats

ANSWERS, JUDGE = "Answers", "Judge"
_DECIDING = ("dtype", "activations", "kv_bits", "context", "window", "rope_theta", "template")
"""The options that change what a model says."""

JudgeUrl = Annotated[
    str | None,
    typer.Option(
        "--judge-url",
        metavar="URL",
        help="An OpenAI-compatible server whose model judges, such as http://127.0.0.1:8000/v1.",
        show_default="none",
        rich_help_panel=JUDGE,
    ),
]
JudgeModel = Annotated[
    str | None,
    typer.Option(
        "--judge-model", metavar="NAME", help="What that server calls it.", show_default="none", rich_help_panel=JUDGE
    ),
]
KeyEnv = Annotated[
    str | None,
    typer.Option(
        "--key-env",
        metavar="NAME",
        help="The environment variable that holds the judge's API key.",
        show_default="none",
        rich_help_panel=JUDGE,
    ),
]
EndpointKeyEnv = Annotated[
    str | None,
    typer.Option(
        "--endpoint-key-env",
        metavar="NAME",
        help="The environment variable that holds the endpoint's API key.",
        show_default="none",
        rich_help_panel=ANSWERS,
    ),
]
Concurrency = Annotated[
    int,
    typer.Option(
        "--concurrency", metavar="N", min=1, help="Requests open at once with a server.", rich_help_panel=JUDGE
    ),
]


def endpoint(
    url: str,
    name: str,
    *,
    key_env: str | None,
    concurrency: int,
    system: str | None = None,
    option: str = "--endpoint-key-env",
) -> "EndpointChats":
    """A model behind a server. option: that which names the variable with its key.

    Raises:
        InvalidInputError: no address, or a variable that is not set.
    """
    from circius.evals.chats import EndpointChats
    from circius.evals.json_client import JsonClient

    client = JsonClient(url, key=key_from(key_env, option))
    return EndpointChats(client, name, concurrency=concurrency, system=system)


def key_from(variable: str | None, option: str) -> str | None:
    """A server's key, from the environment, so that no shell history has it; None where no variable is named.

    Raises:
        InvalidInputError: the variable is not set, or empty.
    """
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise InvalidInputError(f"{option} {variable}: there is no such variable in the environment, or it is empty")
    return key


def engine_chats(
    loading: ModelOptions, output: Output, *, system: str | None = None, guard: bool = False
) -> "EngineChats":
    """A model in this process, which is loaded when it is first asked.

    Raises:
        ModelNotFoundError: there is none.
    """
    from circius.evals.chats import EngineChats

    return EngineChats(lambda: open_llm(loading, output), identity_of(loading, output), system=system, guard=guard)


def identity_of(loading: ModelOptions, output: Output) -> dict[str, Any]:
    """What tells a model and its settings from others, for the record of a run: no weight is loaded.

    Raises:
        ModelNotFoundError: there is none.
    """
    from circius.evals.fingerprint import fingerprint

    path = find_model(loading.model, output)
    settings = {name: value for name, value in asdict(loading).items() if name in _DECIDING and value is not None}
    adapter = None if loading.adapter is None else fingerprint(loading.adapter)
    return {"name": loading.model, "fingerprint": fingerprint(path), "settings": settings, "adapter": adapter}


def judge_of(url: str | None, model: str | None, key_env: str | None, concurrency: int) -> "EndpointChats | None":
    """The judge that the options name, or None where they name none.

    Raises:
        InvalidInputError: half a judge.
    """
    if url is None and model is None:
        if key_env is not None:
            raise InvalidInputError("--key-env is for a judge: give --judge-url and --judge-model too")
        return None
    if url is None or model is None:
        raise InvalidInputError("a judge needs both --judge-url and --judge-model")
    return endpoint(url, model, key_env=key_env, concurrency=concurrency, option="--key-env")
