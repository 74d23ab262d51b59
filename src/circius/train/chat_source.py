"""Conversations to learn from, encoded once and kept as flat arrays."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from circius.base.errors import CirciusError, InvalidInputError
from circius.text.chat import ChatTemplate
from circius.train.conversations import Conversation, read_conversations
from circius.train.example import Example
from circius.train.records import Problem, refuse
from circius.train.too_long import Counts, LengthRule, TooLong, examples_of


class ChatSource:
    """The conversations of some files, in their order, each one example, or several if it is split.

    All are encoded when the source is made; `counts` tells what became of them, and `conversations` the examples of
    each of which something is learnt.

    Raises:
        InvalidInputError: a file or a conversation that is not valid, or too many that are too long.
    """

    def __init__(
        self,
        files: Path | Sequence[Path],
        template: ChatTemplate,
        *,
        seq_len: int,
        too_long: TooLong = "error",
        form: str = "auto",
        name: str | None = None,
    ) -> None:
        files = [files] if isinstance(files, Path) else list(files)
        rule = LengthRule(seq_len, too_long)
        self.counts = Counts()
        self.conversations: list[range] = []
        self._name = name or "+".join(file.name for file in files)
        read = (one for file in files for one in read_conversations(file, form))
        self._examples = FlatExamples(self._noted(_encoded(one, template, rule, self.counts) for one in read))
        rule.check(self.counts)
        if not len(self._examples):
            raise InvalidInputError(f"{self._name}: no conversation that is learnt from is in it")

    @property
    def name(self) -> str:
        return self._name

    def __len__(self) -> int:
        return len(self._examples)

    def n_tokens(self, index: int) -> int:
        return self._examples.n_tokens(index)

    def example(self, index: int) -> Example:
        return self._examples.example(index)

    def _noted(self, encoded: Iterable[list[Example]]) -> Iterator[Example]:
        """The examples one after the other; whose they are is remembered."""
        n = 0
        for examples in encoded:
            if examples:
                self.conversations.append(range(n, n + len(examples)))
            n += len(examples)
            yield from examples


class FlatExamples:
    """Many examples in three arrays, five bytes a token: ids, which are learnt, and where each example begins."""

    def __init__(self, examples: Iterable[Example]) -> None:
        ids, learnt, starts = bytearray(), bytearray(), [0]
        for example in examples:
            ids += example.ids.astype(np.int32).tobytes()
            learnt += example.learnt.tobytes()
            starts.append(starts[-1] + len(example))
        self._ids = np.frombuffer(ids, np.int32)
        self._learnt = np.frombuffer(learnt, np.bool_)
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def n_tokens(self, index: int) -> int:
        return self._starts[index + 1] - self._starts[index]

    def example(self, index: int) -> Example:
        own = slice(self._starts[index], self._starts[index + 1])
        return Example(self._ids[own].astype(np.int64), self._learnt[own].copy())


def _encoded(conversation: Conversation, template: ChatTemplate, rule: LengthRule, counts: Counts) -> list[Example]:
    try:
        return examples_of(conversation, template, rule, counts)
    except CirciusError as error:
        refuse(Problem(conversation.place, str(error)))
