"""Mistral's templates v1 and v3 as Jinja: what a vocabulary of one's own ships, for transformers and the like.

circius itself encodes v3 by its own code, which it takes for any vocabulary with v3's control tokens; the vocabulary of
a v1 template has none, so there this template is the one that is used. Tools are only in circius's own.
"""

from functools import reduce
from typing import Literal

from circius.text.injection import TURN_MARKS
from circius.text.mistral_tools import CALLS, RESULTS, TOOLS

ChatStyle = Literal["none", "v1", "v3"]

CONTROLS: dict[ChatStyle, tuple[str, ...]] = {
    "none": (),
    "v1": (),
    "v3": (*TURN_MARKS, CALLS, *TOOLS, *RESULTS, "[IMG]"),
}
"""The control tokens that a chat template needs, in the order of v3's ids from 3 to 10; `[IMG]` tells v3 from v2."""

_TURNS = """\
{%- if messages[0]['role'] == 'system' %}
{%- set system, turns = messages[0]['content'], messages[1:] %}
{%- else %}
{%- set system, turns = '', messages %}
{%- endif %}
{%- set spoken = namespace(at=-1) %}
{%- for turn in turns if turn['role'] == 'user' %}
{%- set spoken.at = WHICH %}
{%- endfor %}
{{- bos_token }}
{%- set users = namespace(n=-1) %}
{%- for turn in turns %}
{%- if turn['role'] == 'user' %}
{%- set users.n = users.n + 1 %}
{{- 'OPEN' + (system + '\\n\\n' if system and users.n == spoken.at else '') + turn['content'] + 'CLOSE' }}
{%- elif turn['role'] == 'assistant' and not turn['tool_calls'] %}
{{- ANSWER + eos_token }}
{%- else %}
{{- raise_exception('only plain messages of system (first), user and assistant are in this template') }}
{%- endif %}
{%- endfor %}
"""


# What follows a control token gets the prefix space of SentencePiece; elsewhere the space is written.
_GAPS = {
    "v1": {"WHICH": "0", "OPEN": "[INST] ", "CLOSE": " [/INST]", "ANSWER": "' ' + turn['content']"},
    "v3": {"WHICH": "loop.index0", "OPEN": "[INST]", "CLOSE": "[/INST]", "ANSWER": "turn['content'].rstrip(' ')"},
}


def jinja_of(style: Literal["v1", "v3"]) -> str:
    """The template's source. The system prompt is in the first user's turn (v1), or the last (v3)."""
    return reduce(lambda source, gap: source.replace(gap, _GAPS[style][gap]), _GAPS[style], _TURNS)
