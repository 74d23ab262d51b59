"""Showing an answer: its text as it comes, Ctrl-C to stop it, what it was and what it cost."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from circius.cli.output import Output, size
from circius.cli.progress import OnProgress, progress

if TYPE_CHECKING:
    import torch

    from circius.engine.outputs import CompletionOutput, Logprobs, RequestOutput, Timings
    from circius.model import Transformer


@contextmanager
def stopped_by_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether Ctrl-C was pressed since; a second press interrupts at once.

    So the first one ends an answer between two tokens, with the cache as good as before.
    """
    is_stopped = False

    def on_interrupt(signal_number: int, frame: FrameType | None) -> None:
        nonlocal is_stopped
        is_stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: is_stopped
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def without_echo() -> Iterator[None]:
    """Keeps what is typed meanwhile, Ctrl-C's mark too, from being mixed into an answer on the terminal."""
    try:
        import termios
    except ModuleNotFoundError:  # Windows
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    silent = [*before]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)


class Streamed:
    """The pieces of one answer on their way to stdout; before the first one, a bar while the prompt is read.

    With `is_shown` false the pieces are only waited for: the whole answer comes in another form.
    """

    def __init__(self, output: Output, *, is_shown: bool = True) -> None:
        self._output = output
        self._is_shown = is_shown
        self._n_shown = 0
        self._bar = ExitStack()
        self._on_progress: OnProgress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def read(self, done: int, total: int) -> None:
        """Tells how much of the prompt is read; the engine calls it for every chunk."""
        if self._on_progress is None:
            self._on_progress = self._bar.enter_context(progress("reading the prompt", self._output))
        self._on_progress(done, total)

    def take(self, prompt: int, index: int, text: str, ids: Sequence[int]) -> None:
        """Shows a piece; the engine calls it for every token."""
        self._bar.close()
        if text and self._is_shown:
            self._n_shown += len(text)
            self._output.text(text)

    def end(self, whole: str) -> None:
        """Shows what the engine still held back of the `whole` text, and ends the line."""
        self._output.text(whole[self._n_shown :] + "\n")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What an answer took, in bytes: the keys and values it ended with, and the process's peak, None where unknown."""

    cache_bytes: int
    peak_bytes: int | None


def statistics(result: "RequestOutput", memory: Memory) -> str:
    """One line for people: tokens, rates, time to the first token, memory, and the end if it was cut short."""
    timings = result.timings
    parts = [
        f"{timings.completion_tokens} tokens",
        f"{timings.decode_tokens_per_s:.1f} tok/s" if timings.decode_tokens_per_s else "",
        f"prompt {timings.prompt_tokens}"
        + (f" ({timings.cached_tokens} cached)" if timings.cached_tokens else "")
        + (f" at {timings.prefill_tokens_per_s:.0f} tok/s" if timings.prefill_tokens_per_s else ""),
        _share(timings),
        "" if timings.time_to_first_token_s is None else f"first token {timings.time_to_first_token_s:.2f} s",
        f"cache {size(memory.cache_bytes)}",
        "" if memory.peak_bytes is None else f"memory {size(memory.peak_bytes)}",
        _unusual_end(result),
    ]
    return " · ".join(part for part in parts if part)


def fields(result: "RequestOutput", memory: Memory) -> dict[str, Any]:
    """The result for machines. The first answer's fields stand at the top; with n > 1 all are in `outputs` as well."""
    timings = result.timings
    answers = [_answer_fields(answer) for answer in result.outputs]
    described = {
        **answers[0],
        "prompt_token_ids": result.prompt_token_ids,
        "usage": {
            "prompt_tokens": timings.prompt_tokens,
            "completion_tokens": timings.completion_tokens,
            "total_tokens": timings.prompt_tokens + timings.completion_tokens,
        },
        "timings": {
            **asdict(timings),
            "prefill_tokens_per_s": timings.prefill_tokens_per_s,
            "decode_tokens_per_s": timings.decode_tokens_per_s,
            "cache_bytes": memory.cache_bytes,
            "peak_memory_bytes": memory.peak_bytes,
        },
    }
    if result.prompt_logprobs is not None:
        described["prompt_logprobs"] = [
            None if entries is None else _place(token, entries)
            for token, entries in zip(result.prompt_token_ids, result.prompt_logprobs, strict=True)
        ]
    if len(answers) > 1:
        described["outputs"] = answers
    return described


def held_cache_bytes(model: "Transformer", result: "RequestOutput") -> int:
    """The bytes of keys and values that the answers to one prompt ended with."""
    n_prompt = len(result.prompt_token_ids)
    lengths = [n_prompt + max(len(answer.token_ids) - 1, 0) for answer in result.outputs]
    return sum(model.cache_bytes(length) for length in lengths)


def peak_memory_bytes(device: "torch.device") -> int | None:
    """The most memory that this process has held: on a GPU the device's, else the system's; None where unknown."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    from circius.engine import machine

    return machine.peak_memory_bytes()


def _share(timings: "Timings") -> str:
    if not timings.drafted_tokens:
        return ""
    share = timings.accepted_tokens / timings.drafted_tokens
    return f"{share:.0%} of {timings.drafted_tokens} drafted tokens accepted"


def _unusual_end(result: "RequestOutput") -> str:
    reasons = {answer.finish_reason for answer in result.outputs}
    if "abort" in reasons:
        return "stopped by Ctrl-C"
    return "cut at --max-tokens" if "length" in reasons else ""


def _answer_fields(answer: "CompletionOutput") -> dict[str, Any]:
    described: dict[str, Any] = {
        "text": answer.text,
        "token_ids": answer.token_ids,
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
    }
    if answer.logprobs is not None:
        described["cumulative_logprob"] = answer.cumulative_logprob
        described["logprobs"] = [
            _place(token, entries) for token, entries in zip(answer.token_ids, answer.logprobs, strict=True)
        ]
    return described


def _place(token: int, entries: "Logprobs") -> dict[str, Any]:
    ranked = sorted(entries.items(), key=lambda item: item[1].rank)
    top = [
        {"token_id": other, "token": entry.decoded_token, "logprob": entry.logprob, "rank": entry.rank}
        for other, entry in ranked
    ]
    own = entries[token]
    return {"token_id": token, "token": own.decoded_token, "logprob": own.logprob, "rank": own.rank, "top": top}
