"""How much an engine does at once, and what it has done. No torch here."""

from dataclasses import dataclass, field

from circius.base.errors import InvalidInputError
from circius.engine.prefix import PAGE


@dataclass(frozen=True, kw_only=True)
class EngineLimits:
    """How much runs at once.

    max_streams: answers computed in one step. chunk_size, mixed_chunk_size: tokens of prompts in one step, without and
    beside answers that are being made. cache_tokens: places in the cache, for all streams together. speculate: the most
    tokens to guess ahead for a stream and step. shares_prefixes: whether requests use what others have computed.
    """

    cache_tokens: int
    max_streams: int = 8
    chunk_size: int = 512
    mixed_chunk_size: int = 128
    speculate: int = 0
    shares_prefixes: bool = True

    def __post_init__(self) -> None:
        if self.cache_tokens < PAGE:
            raise InvalidInputError(f"cache_tokens must be at least {PAGE}, one page, got {self.cache_tokens}")


@dataclass
class Counts:
    """What the engine has done since it was made."""

    n_steps: int = 0
    n_prompt_tokens: int = 0
    """Of prompts that have been read, those found in the cache included."""
    n_found_tokens: int = 0
    n_new_tokens: int = 0
    n_drafted: int = 0
    n_accepted: int = 0
    n_ended: dict[str, int] = field(default_factory=dict)
    """Answers by finish reason; "error" for those of jobs that failed."""
