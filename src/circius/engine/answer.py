"""One answer while it grows: its tokens, the text that may be shown, and why it ended. No torch here."""

from collections.abc import Callable, Sequence
from typing import Protocol

from circius.engine.outputs import CompletionOutput, FinishReason, Logprobs
from circius.engine.request import Request
from circius.engine.stop import StopFinder
from circius.text.tool_reader import CallPiece


class Decoder(Protocol):
    """Turns token ids into text as they come; `circius.text.StreamDecoder` is one."""

    def push(self, ids: Sequence[int]) -> str: ...
    def flush(self) -> str: ...


class Answer:
    """One of a request's n answers. Without a decoder its text stays empty.

    The decoder is made when the first token comes: it reads the prompt, and many answers may be waiting.
    """

    def __init__(self, request: Request, index: int, make_decoder: Callable[[], Decoder] | None) -> None:
        self.request, self.index = request, index
        self.token_ids: list[int] = []
        self.n_drafted = self.n_accepted = 0
        """The tokens that were guessed ahead, and those of them that stand in the answer."""
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | str | None = None
        self._make_decoder = make_decoder
        self._decoder: Decoder | None = None
        self._reader = request.read_calls() if request.read_calls else None
        self.last_calls: tuple[CallPiece, ...] = ()
        """The pieces of calls that came with the newest token."""
        self._finder = StopFinder(request.params.stops, include=request.params.include_stop_str_in_output)
        self._shown: list[str] = []
        self._logprobs: list[Logprobs] = []

    @property
    def is_running(self) -> bool:
        return self.finish_reason is None

    @property
    def last_logprobs(self) -> Logprobs | None:
        """Those of the newest token, if they were asked for."""
        return self._logprobs[-1] if self._logprobs else None

    @property
    def n_left(self) -> int:
        """The most tokens that may still come."""
        return self.request.max_tokens - len(self.token_ids)

    def append(self, token: int, logprobs: Logprobs | None = None) -> str:
        """Takes the next token and returns the text that may be shown now; ends the answer where it ends."""
        assert self.is_running, "a token after the end"
        self.token_ids.append(token)
        if logprobs is not None:
            self._logprobs.append(logprobs)
        if token in self.request.end_ids:
            self.finish_reason = "stop"
            self.stop_reason = None if token in self.request.eos_ids else token
            shows_end = self.request.params.include_stop_str_in_output
            return self._show((self._push(token) if shows_end else "") + self._tail())
        is_mark = self._reader is not None and token in self._reader.marks
        text = self._tail() if is_mark else self._push(token)
        if self._finder.found is None and len(self.token_ids) == self.request.max_tokens:
            text += self._tail()
            self.finish_reason = "length"
        if self._finder.found is not None:
            self.finish_reason, self.stop_reason = "stop", self._finder.found
        return self._show(text, token if is_mark and self._finder.found is None else None)

    def abort(self) -> str:
        """Ends the answer as it stands; returns the text that was held back."""
        assert self.is_running, "an answer ends once"
        self.finish_reason = "abort"
        return self._show(self._tail())

    def output(self) -> CompletionOutput:
        """The answer as the caller gets it.

        `finish_reason` must be known: the answer has ended.
        """
        assert self.finish_reason is not None
        wants_logprobs = self.request.params.logprobs is not None
        own = [at[token].logprob for at, token in zip(self._logprobs, self.token_ids, strict=False)]
        return CompletionOutput(
            index=self.index,
            text="".join(self._shown),
            token_ids=list(self.token_ids),
            cumulative_logprob=sum(own) if wants_logprobs else None,
            logprobs=list(self._logprobs) if wants_logprobs else None,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            tool_calls=self._reader.calls if self._reader else [],
        )

    def _push(self, token: int) -> str:
        if self._decoder is None and self._make_decoder is not None:
            self._decoder = self._make_decoder()
        text = self._decoder.push([token]) if self._decoder else ""
        is_early = len(self.token_ids) <= self.request.params.min_tokens
        return text if is_early else self._finder.push(text)

    def _tail(self) -> str:
        """What the decoder and the stop finder still hold back; a stop text may even complete here."""
        rest = self._decoder.flush() if self._decoder else ""
        return self._finder.push(rest) + self._finder.flush()

    def _show(self, text: str, mark: int | None = None) -> str:
        """Takes what may be shown now, and the control token behind it by which calls begin; returns what is text."""
        if self._reader is not None:
            said = [self._reader.push(text)]
            if mark is not None:
                said.append(self._reader.mark(mark))
            if not self.is_running:
                said.append(self._reader.end())
            if self.finish_reason == "stop" and self._reader.is_whole:
                self.finish_reason = "tool_calls"
            text = "".join(part.text for part in said)
            self.last_calls = tuple(piece for part in said for piece in part.calls)
        self._shown.append(text)
        return text
