"""The examples of one file with their places, for somebody who looks at them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circius.text.chat import ChatTemplate
from circius.text.tokenizer import Tokenizer
from circius.train.check import PREFERENCE, TEXT, form_of
from circius.train.conversations import read_conversations
from circius.train.encode_texts import encoded_in_order
from circius.train.example import Example
from circius.train.fingerprint import begin_id, end_id
from circius.train.preferences import read_preferences
from circius.train.prepare import Reading
from circius.train.records import Place
from circius.train.too_long import Counts, LengthRule, examples_of

TEXT_PIECE = 256
"""How much of a text is shown at once where nothing is said."""


@dataclass(frozen=True)
class Shown:
    """An example, where it is from, and what it is of several from there."""

    place: Place
    example: Example
    title: str = ""


def shown_examples(
    file: Path,
    tokenizer: Tokenizer,
    find_template: Callable[[], ChatTemplate],
    rule: LengthRule,
    *,
    form: str = "auto",
    reading: Reading | None = None,
) -> Iterator[Shown]:
    """What is learnt from a file, one example after the other, as training makes them.

    Raises:
        InvalidInputError: the file, or a record before one that is shown, is not valid.
        TemplateError: the model has no template, or cannot render a conversation.
    """
    reading = reading or Reading()
    form = form_of(file, form, reading)
    if form == TEXT:
        yield from _pieces(file, tokenizer, rule.seq_len or TEXT_PIECE, reading)
    elif form == PREFERENCE:
        for pair in read_preferences(file):
            chosen, rejected = pair.examples(find_template())
            yield from (Shown(pair.place, chosen, " (chosen)"), Shown(pair.place, rejected, " (rejected)"))
    else:
        for conversation in read_conversations(file, form):
            examples = examples_of(conversation, find_template(), rule, Counts())
            for number, example in enumerate(examples, start=1):
                title = f" (part {number} of {len(examples)})" if len(examples) > 1 else ""
                yield Shown(conversation.place, example, title)


def _pieces(file: Path, tokenizer: Tokenizer, seq_len: int, reading: Reading) -> Iterator[Shown]:
    """The pieces of documents, as `TextSource` cuts them."""
    begin = begin_id(tokenizer)
    for encoded in encoded_in_order(reading.documents([file]), tokenizer):
        frame = ([] if begin is None else [begin]), [end_id(tokenizer)]
        ids = np.concatenate([np.array(frame[0], np.int64), encoded.ids.astype(np.int64), np.array(frame[1])])
        for start in range(0, len(ids) - 1, seq_len - 1):
            piece = ids[start : start + seq_len]
            yield Shown(encoded.document.place, Example(piece, np.arange(len(piece)) > 0))
