"""Which model a name means: a path, an alias, or a repository on the Hub."""

import difflib
from collections.abc import Callable
from pathlib import Path

from circius.base.errors import ModelNotFoundError
from circius.weights.aliases import ALIASES, DEMO
from circius.weights.demo import demo_path, has_demo, pull_demo
from circius.weights.model_name import HubName, parse_hub_name
from circius.weights.pulled import find_pulled
from circius.weights.shipped import SHIPPED, shipped_path
from circius.weights.target import holds_checkpoint


def resolve(name: str) -> Path:
    """The folder or GGUF file that `name` means; downloads nothing.

    In this order: a path that exists (a folder called like an alias counts only if it holds a checkpoint), an
    alias, and a Hub id (owner/name, owner/name@revision, owner/name:file.gguf) that was pulled before.

    Raises:
        ModelNotFoundError: there is none; the message names what is close to it, or how to pull it.
    """
    path = _existing(name)
    if path is not None:
        return path
    if name == DEMO:
        if has_demo():
            return demo_path()
        raise ModelNotFoundError("the demo model is not here yet: run `circius pull demo`")
    if name in SHIPPED:
        return shipped_path(name)
    hub_name = _hub_name(name)
    if hub_name is None:
        raise ModelNotFoundError(f"no model {_shortened(name)!r} here: {_suggest(name)}")
    pulled = find_pulled(hub_name)
    if pulled is None:
        raise ModelNotFoundError(
            f"no folder {name!r} here, and no model of this name is pulled: run `circius pull {name}`{_close(name)}"
        )
    return pulled


def pull(
    name: str,
    *,
    revision: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    endpoint: str | None = None,
) -> Path:
    """Downloads the model of an alias or a Hub id, unless it is here, and returns its folder or GGUF file.

    revision: a branch, tag or commit of the repository; as `owner/name@revision` says it too.
    on_progress: called with the bytes that are here and those that there will be.
    on_note: called with a sentence about something that the user should know, such as an unreachable Hub.
    endpoint: another address of the Hub than huggingface_hub's own choice.

    Raises:
        ModelNotFoundError: the name is neither an alias nor a Hub id.
        DownloadError: it could not be fetched, or what came is not what was promised.
        StorageError: there is no space for the demo model.
    """
    if name in (DEMO, *SHIPPED):
        if revision is not None:
            raise ModelNotFoundError(f"the {name} model has no revisions, got {revision!r}: pull it without one")
        return pull_demo(on_progress=on_progress) if name == DEMO else shipped_path(name)
    hub_name = _hub_name(name)
    if hub_name is None:
        raise ModelNotFoundError(f"{_shortened(name)!r} is neither an alias nor a Hub id: {_suggest(name)}")
    if revision is not None:
        hub_name = _with_revision(hub_name, revision)
    from circius.weights.download import pull_repository  # the Hub's client takes long to import

    return pull_repository(hub_name, endpoint=endpoint, on_progress=on_progress, on_note=on_note)


def _existing(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        is_file = path.is_file()
        if path.is_dir() and (name not in ALIASES or holds_checkpoint(path)):
            return path
    except (OSError, RuntimeError, ValueError):  # no path could be called so, or it may not be looked at
        return None
    if not is_file:
        return None
    if path.suffix.lower() != ".gguf":
        raise ModelNotFoundError(f"{name} is a file, but no .gguf file: give a checkpoint's folder or a .gguf file")
    return path


def _hub_name(name: str) -> HubName | None:
    return parse_hub_name(ALIASES[name].source if name in ALIASES else name)


def _with_revision(name: HubName, revision: str) -> HubName:
    suffix = f":{name.file}" if name.file else ""
    with_revision = parse_hub_name(f"{name.repository}@{revision}{suffix}")
    if with_revision is None:
        raise ModelNotFoundError(f"{revision!r} cannot be a revision: give a branch, a tag or a commit")
    return with_revision


def _suggest(name: str) -> str:
    return (
        f"give a folder, a .gguf file, a Hub id (owner/name) or an alias ({', '.join(ALIASES)}){_close(name)}; "
        "`circius pull NAME` fetches the last two"
    )


def _shortened(name: str) -> str:
    """The name, or the beginning of what is too long for one, such as a prompt in the wrong place."""
    return name if len(name) <= 100 else name[:97] + "..."


def _close(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), ALIASES, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""
