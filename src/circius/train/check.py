"""Looking through data before anything is spent on them: every problem with its line, and what there is to learn."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from circius.base.errors import CirciusError, InvalidInputError
from circius.text.chat import ChatTemplate
from circius.text.tokenizer import Tokenizer
from circius.train.conversations import ConversationReader
from circius.train.encode_texts import encoded_in_order
from circius.train.fingerprint import begin_id, end_id
from circius.train.forms import CHAT_FORMS, detect, is_preference, used_keys
from circius.train.preferences import PREFERENCE_KEYS, preference_of
from circius.train.prepare import Reading
from circius.train.records import Place, Problem, Record, read_records
from circius.train.repair import repaired
from circius.train.texts import TEXT_FIELDS, is_plain_text
from circius.train.too_long import Counts, LengthRule, examples_of, has_late_system

PREFERENCE, TEXT = "preference", "text"
FORMS = (*CHAT_FORMS, PREFERENCE, TEXT)


@dataclass(kw_only=True)
class FileReport:
    """What is in one file."""

    file: Path
    form: str
    """One of `FORMS`, or `auto` if not even the first record told."""
    counts: Counts = field(default_factory=Counts)
    n_problems: int = 0
    n_repaired: int = 0
    n_bytes: int = 0
    """Of the text of documents, in UTF-8."""
    n_with_pairs: int = 0
    """Conversations that bring two answers for DPO along."""
    n_system_late: int = 0
    """Conversations with a system prompt that the template shows with the last question only, and earlier answers."""
    unused_keys: Counter[str] = field(default_factory=Counter)
    """Keys of records that training takes no notice of, and how many records have them."""


@dataclass(kw_only=True)
class Report:
    """What is in all files. An estimate of time or memory needs `total` and nothing else."""

    files: list[FileReport] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    repairs: list[Problem] = field(default_factory=list)
    """What was mended where; the problem that it mends is still among the problems."""

    @property
    def total(self) -> Counts:
        total = Counts()
        for one in self.files:
            total += one.counts
        return total

    def epochs(self, n_tokens: int) -> float:
        """How often a training that reads so many tokens sees every example."""
        return n_tokens / max(1, self.total.n_tokens)


class Checker:
    """Reads files as a training would, but goes on after a problem.

    load_template: called when the first conversation is met, since texts need no template.
    corrected: for a file that is to be corrected, where its valid records go, one a line.

    Raises:
        InvalidInputError: there is no such form.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        load_template: Callable[[], ChatTemplate],
        rule: LengthRule,
        *,
        form: str = "auto",
        reading: Reading | None = None,
        corrected: Mapping[Path, TextIO] | None = None,
    ) -> None:
        if form not in ("auto", *FORMS):
            raise InvalidInputError(f"form {form!r} is not known: use auto, {', '.join(FORMS)}")
        self._tokenizer, self._load_template, self._rule, self._form = tokenizer, load_template, rule, form
        self._reading = reading or Reading()
        self._template: ChatTemplate | None = None
        self._corrected = corrected or {}

    def check(self, file: Path, report: Report) -> None:
        """Adds what a file holds to the report.

        Raises:
            InvalidInputError: it cannot be read at all, or holds texts and is to be corrected.
            TemplateError: there are conversations, and the model has no template for them.
        """
        own = FileReport(file=file, form=form_of(file, self._form, self._reading))
        if own.form == TEXT and file in self._corrected:
            raise InvalidInputError(
                f"{file} holds texts, which are not corrected: mend what is wrong by hand, or check it by itself "
                "without --write-corrected"
            )
        report.files.append(own)
        n_before = len(report.problems)
        if own.form == TEXT:
            self._check_texts(own, report)
        else:
            self._check_records(own, report)
        if not own.counts.n_whole and len(report.problems) == n_before:
            report.problems.append(Problem(Place(file, 1), "there is nothing in this file"))
        try:
            self._rule.check(own.counts)
        except InvalidInputError as error:
            report.problems.append(Problem(Place(file, 0), str(error)))
        own.n_problems = len(report.problems) - n_before

    def _check_texts(self, own: FileReport, report: Report) -> None:
        n_frame = (begin_id(self._tokenizer) is not None) + (end_id(self._tokenizer) is not None)
        counts, seq_len = own.counts, self._rule.seq_len
        documents = self._reading.documents([own.file], report.problems.append)
        for encoded in encoded_in_order(documents, self._tokenizer):
            n_tokens = len(encoded.ids) + n_frame
            n_pieces = 1 if seq_len is None else -(-(n_tokens - 1) // (seq_len - 1))
            counts += Counts([n_tokens], n_pieces, n_tokens + n_pieces - 1, n_tokens - 1)
            own.n_bytes += encoded.n_bytes

    def _check_records(self, own: FileReport, report: Report) -> None:
        out = self._corrected.get(own.file)
        read = self._pair if own.form == PREFERENCE else self._conversations(own)
        for record in read_records(own.file, report.problems.append):
            own.unused_keys.update(list(record.fields))
            own.n_with_pairs += own.form != PREFERENCE and is_preference(record.fields)
            valid: Record | None = record
            try:
                own.counts += read(record)
            except CirciusError as error:
                report.problems.append(Problem(record.place, str(error)))
                valid = _mended(record, read, own, report)
            if out is not None and valid is not None:
                out.write(f"{valid.raw or json.dumps(valid.fields, ensure_ascii=False)}\n")
        for key in PREFERENCE_KEYS if own.form == PREFERENCE else used_keys(own.form):
            own.unused_keys.pop(key, None)

    def _conversations(self, own: FileReport) -> Callable[[Record], Counts]:
        reader = ConversationReader(own.form)

        def read(record: Record) -> Counts:
            counts = Counts()
            found = reader.conversations(record)
            for conversation in found:
                examples_of(conversation, self._chat_template(), self._rule, counts)
            own.form = reader.form
            own.n_system_late += sum(has_late_system(one, self._chat_template()) for one in found)
            return counts

        return read

    def _pair(self, record: Record) -> Counts:
        examples = preference_of(record).examples(self._chat_template())
        counts = Counts([max(map(len, examples))])
        if self._rule.is_too_long(counts.longest):
            counts.n_dropped = 1
        else:
            for example in examples:
                counts.keep(example)
        return counts

    def _chat_template(self) -> ChatTemplate:
        if self._template is None:
            self._template = self._load_template()
        return self._template


def form_of(file: Path, form: str, reading: Reading) -> str:
    """How a file is read: `form`, or what its name and its first record tell; `auto` if they tell nothing."""
    if is_plain_text(file):
        return TEXT
    if form != "auto":
        return form
    first = next(read_records(file, lambda _: None), None)
    fields = {} if first is None else first.fields
    if (found := detect(fields)) is not None:
        return found
    if is_preference(fields):
        return PREFERENCE
    keys = TEXT_FIELDS if reading.field is None else (reading.field,)
    return TEXT if any(isinstance(fields.get(key), str) for key in keys) else "auto"


def _mended(record: Record, read: Callable[[Record], Counts], own: FileReport, report: Report) -> Record | None:
    """The record mended without a loss, if that makes it valid; then it counts."""
    mended = repaired(record.fields)
    if mended is None:
        return None
    fields, done = mended
    try:
        own.counts += read(Record(record.place, fields))
    except CirciusError:
        return None
    own.n_repaired += 1
    report.repairs.append(Problem(record.place, done))
    return Record(record.place, fields)
