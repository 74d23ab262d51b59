"""Writing down which of Mistral's templates a model was taught with, for those who talk with it later."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from circius.base.errors import CirciusError
from circius.text import Tokenizer, load_chat_template
from circius.text.jinja_template import JinjaTemplate
from circius.train.config import RunConfig

_SPM = "tokenizer.model"
_TEMPLATE_FILE = "chat_template.jinja"
_JINJA = (
    "{{{{ bos_token }}}}{{% for message in messages %}}{{% if message['role'] == 'user' %}}"
    "{{{{ '[INST]{gap}' + message['content'] + '{gap}[/INST]' }}}}"
    "{{% elif message['role'] == 'assistant' %}}{{{{ '{before}' + message['content'] + eos_token }}}}"
    "{{% else %}}{{{{ raise_exception('the roles are user and assistant') }}}}{{% endif %}}{{% endfor %}}"
)
_GAPS: Mapping[str, str] = MappingProxyType({"v1": " ", "v2": "", "v3": ""})
_PROBE = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three\nfour?"},
]


def add_template(folder: Path, tokenizer: Tokenizer, config: RunConfig) -> None:
    """Adds to a model's folder what says which template its conversations had, if one was named: the tokenizer under
    the name that Mistral gives it, and the turns in Jinja, by which others know a model to talk with.

    A template that came with the tokenizer is there already.
    """
    name = config.template
    if config.kind == "pretrain" or name not in _GAPS:
        return
    if (folder / _SPM).is_file():
        shutil.copyfile(folder / _SPM, folder / f"{_SPM}.{name}")
    jinja = _jinja(name, tokenizer)
    if jinja is not None:
        (folder / _TEMPLATE_FILE).write_text(jinja, encoding="utf-8")


def _jinja(name: str, tokenizer: Tokenizer) -> str | None:
    """The Jinja that gives the ids of the native template; None if none does with this tokenizer.

    Whether an answer begins with a space depends on whether encoding puts one there itself.
    """
    wanted = load_chat_template(tokenizer.source, tokenizer, name=name).encode(_PROBE)
    ends = {"bos_token": tokenizer.bos_id, "eos_token": min(tokenizer.eos_ids)}
    pieces = {key: tokenizer.piece(index) for key, index in ends.items() if index is not None}
    for before in (" ", ""):
        source = _JINJA.format(gap=_GAPS[name], before=before)
        try:
            template = JinjaTemplate(source, tokenizer, injection="escape", special_tokens=pieces)
            if template.encode(_PROBE) == wanted:
                return source
        except CirciusError:
            continue
    return None
