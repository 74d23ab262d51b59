"""Which chat template a model is to be used with, and where its own one is kept."""

from pathlib import Path
from typing import Any

from circius.base.errors import ParamsError, TemplateError
from circius.text.chat import ChatTemplate
from circius.text.gguf_metadata import read_tokenizer_metadata
from circius.text.injection import INJECTIONS, TURN_MARKS, Injection
from circius.text.mistral import MistralV1, MistralV23, Version, mistral_version
from circius.text.special_files import read_json, token_texts
from circius.text.tokenizer import Tokenizer

NAMES = ("auto", "v1", "v2", "v3", "model")
_FOR_TOOLS = "tool_use"
"""The name under which models keep such a template."""


def load_chat_template(
    path: Path, tokenizer: Tokenizer, *, name: str = "auto", injection: str = "escape"
) -> ChatTemplate:
    """The chat template of the model at `path` (a folder, a tokenizer file or a `.gguf`).

    `auto` takes Mistral's own v1, v2 or v3 for Mistral 7B vocabularies, unless the model's template is of another
    family (as in models fine-tuned from Mistral 7B with their own); for all others the model's template. `injection`
    says what to do with control-token text and turn marks in a message: `escape` them, refuse (`strict`), or `allow`
    them as the original software does.

    Raises:
        ParamsError: `name` or `injection` is not one of those.
        TemplateError: the model has no chat template and is not a Mistral 7B, or its template is not valid.
    """
    if name not in NAMES:
        raise ParamsError(f"chat template {name!r} is not known: use one of {', '.join(NAMES)}")
    if injection not in INJECTIONS:
        raise ParamsError(f"injection {injection!r} is not known: use one of {', '.join(INJECTIONS)}")
    mode: Injection = injection  # type: ignore[assignment]  # just checked
    source = find_template(path)
    template = _choose(path, source, tokenizer, name, mode)
    template.is_shipped = source is not None
    return template


def _choose(path: Path, source: str | None, tokenizer: Tokenizer, name: str, mode: Injection) -> ChatTemplate:
    if name in ("v1", "v2", "v3"):
        return _mistral(name, tokenizer, mode, ())  # type: ignore[arg-type]  # just checked
    if name == "model":
        return _own(path, source, tokenizer, mode)
    version = mistral_version(tokenizer) or _version_of_name(tokenizer)
    if version is not None and (source is None or TURN_MARKS[0] in source):
        return _mistral(version, tokenizer, mode, (_why(version, source),))
    if source is None:
        raise TemplateError(
            f"{path}: this model has no chat template, so it is probably a base model: use it to complete text "
            "(generate), or name a template (v1, v2 or v3)"
        )
    return _own(path, source, tokenizer, mode)


def find_template(path: Path) -> str | None:
    """The Jinja template that the model at `path` ships, if it does.

    Raises:
        TemplateError: it ships several, and none is called `default`; or it cannot be read.
    """
    if path.suffix == ".gguf" and path.is_file():
        own = read_tokenizer_metadata(path).get("tokenizer.chat_template")
        return own if isinstance(own, str) else None
    if not path.is_dir():
        return None
    alone = path / "chat_template.jinja"
    if alone.is_file():
        try:
            return alone.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateError(f"{alone}: cannot read the chat template: {error}") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        own = read_json(path / name).get("chat_template")
        if own is not None:
            return _one_template(path / name, own)
    inside = sorted(path.glob("*.gguf"))
    only_gguf = len(inside) == 1 and not any(path.glob("*tokenizer*"))
    return find_template(inside[0]) if only_gguf else None


def find_tool_template(path: Path) -> str | None:
    """The template that the model at `path` has for conversations with tools, if it has one of its own for them."""
    if path.suffix == ".gguf" and path.is_file():
        own = read_tokenizer_metadata(path).get(f"tokenizer.chat_template.{_FOR_TOOLS}")
        return own if isinstance(own, str) else None
    alone = path / "additional_chat_templates" / f"{_FOR_TOOLS}.jinja"
    if alone.is_file():
        return alone.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json") if path.is_dir() else ():
        named = read_json(path / name).get("chat_template")
        for one in named if isinstance(named, list) else ():
            if isinstance(one, dict) and one.get("name") == _FOR_TOOLS and isinstance(one.get("template"), str):
                return str(one["template"])
    return None


def _one_template(file: Path, own: Any) -> str:
    """The template itself, or the one named `default` of a list."""
    if isinstance(own, str):
        return own
    named = {}
    if isinstance(own, list):
        named = {one.get("name"): one.get("template") for one in own if isinstance(one, dict)}
    default = named.get("default")
    if not isinstance(default, str):
        raise TemplateError(
            f"{file}: chat_template holds {sorted(map(str, named)) or type(own).__name__}; a text, or a list with one "
            "called 'default', is expected"
        )
    return default


def _own(path: Path, source: str | None, tokenizer: Tokenizer, injection: Injection) -> ChatTemplate:
    from circius.text.jinja_template import JinjaTemplate

    if source is None:
        raise TemplateError(f"{path}: this model ships no chat template; name one (v1, v2 or v3)")
    folder = path if path.is_dir() else path.parent
    texts = {} if path.suffix == ".gguf" else token_texts(folder)
    tool_source = find_tool_template(path)
    return JinjaTemplate(source, tokenizer, injection=injection, special_tokens=texts, tool_source=tool_source)


def _mistral(version: Version, tokenizer: Tokenizer, injection: Injection, notes: tuple[str, ...]) -> ChatTemplate:
    if version == "v1":
        return MistralV1(tokenizer, injection=injection, notes=notes)
    return MistralV23(version, tokenizer, injection=injection, notes=notes)


def _version_of_name(tokenizer: Tokenizer) -> Version | None:
    """The version that a file name such as `tokenizer.model.v3` gives."""
    suffix = tokenizer.source.suffix.removeprefix(".")
    return suffix if suffix in ("v1", "v2", "v3") else None  # type: ignore[return-value]


def _why(version: Version, source: str | None) -> str:
    if source is not None:
        return f"Chat template {version}, by the vocabulary; the model's own template writes the same turns."
    return (
        f"Chat template {version} was assumed from the vocabulary: the model ships none, and a base model has the same "
        "vocabulary as its instruct model."
    )
