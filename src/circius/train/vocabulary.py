"""Training a vocabulary as Mistral's was: SentencePiece BPE with byte fallback and single digits."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from circius.base.errors import InvalidInputError
from circius.text.spm_model import PieceType, parse_spm
from circius.train.prepare import Reading
from circius.train.records import OnProblem, refuse
from circius.train.texts import text_files, text_hash

SENTENCE_BYTES = 4096
"""SentencePiece leaves longer sentences out without a word, so lines are cut to this, where a word begins."""

_RESERVED = str.maketrans(dict.fromkeys("▁▅\t\0", " "))
"""Characters that SentencePiece has a meaning of its own for; it leaves a sentence with one of the first two out."""
_ASCII = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, kw_only=True)
class VocabularyPlan:
    """How a vocabulary is trained.

    vocab_size: pieces in all: `<unk>`, `<s>`, `</s>`, the control tokens, 256 bytes, characters and merged pieces.
    controls: the texts of control tokens, which get the ids from 3 on.
    sample_bytes: at most this much text is learnt from, taken evenly from all of it.
    coverage: the share of the text whose characters get pieces of their own; printable ASCII always does, and what is
        rarer is spelt in bytes.

    Raises:
        InvalidInputError: a value that is not allowed.
    """

    vocab_size: int
    controls: tuple[str, ...] = ()
    sample_bytes: int = 200 << 20
    coverage: float = 0.9999

    def __post_init__(self) -> None:
        least = 3 + len(self.controls) + 256 + len(_ASCII) + 1
        if self.vocab_size <= least:
            raise InvalidInputError(
                f"vocab_size must be more than {least} (control tokens, bytes, printable ASCII), got {self.vocab_size}"
            )
        if self.sample_bytes < 1:
            raise InvalidInputError(f"sample_bytes must be 1 or more, got {self.sample_bytes}")
        if not 0 < self.coverage <= 1:
            raise InvalidInputError(f"coverage must be above 0 and at most 1, got {self.coverage}")


@dataclass(frozen=True)
class Sample:
    """What a vocabulary is learnt from: lines of text files, evenly taken.

    n_bytes: of all the text. share: of it that is taken.
    """

    files: Sequence[Path]
    reading: Reading
    n_bytes: int
    share: float

    @classmethod
    def of(
        cls, paths: Sequence[Path], sample_bytes: int, reading: Reading | None = None, on_problem: OnProblem = refuse
    ) -> "Sample":
        """Reads the files once, to see how much there is.

        Raises:
            InvalidInputError: a file cannot be read, or there is no text in them.
        """
        files, reading = text_files(paths), reading or Reading()
        n_bytes = sum(len(document.text.encode()) for document in reading.documents(files, on_problem))
        if not n_bytes:
            raise InvalidInputError(f"{', '.join(map(str, files))}: no text in them")
        return cls(files, reading, n_bytes, min(1.0, sample_bytes / n_bytes))

    def sentences(self) -> Iterator[str]:
        """The lines that are taken, in order, cut where they are long."""
        limit = self.share * 2**64
        for document in self.reading.documents(self.files):
            for line in document.text.splitlines():
                if line and (self.share == 1 or text_hash(line) < limit):
                    yield from cut(line.translate(_RESERVED))


def train_vocabulary(sentences: Iterable[str], plan: VocabularyPlan) -> bytes:
    """The content of a `tokenizer.model`; the same for the same sentences and plan.

    Raises:
        InvalidInputError: the text is too little, or too varied, for a vocabulary of this size.
    """
    import sentencepiece

    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=written,
            model_type="bpe",
            vocab_size=plan.vocab_size,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            add_dummy_prefix=True,
            control_symbols=list(plan.controls),
            required_chars=_ASCII,
            character_coverage=plan.coverage,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            unk_surface=" \u2047 ",
            num_threads=1,
            minloglevel=3,
        )
    except RuntimeError as error:
        raise InvalidInputError(_explained(str(error), plan)) from None
    model = parse_spm(written.getvalue())
    assert model.pieces[: 3 + len(plan.controls)] == ("<unk>", "<s>", "</s>", *plan.controls)
    assert model.types.count(PieceType.BYTE) == 256
    return written.getvalue()


def cut(line: str) -> Iterator[str]:
    """The line in parts of at most `SENTENCE_BYTES` bytes, cut before words.

    The space before such a word goes, since each part gets one in front.

    >>> [len(part) for part in cut("word " * 1000 + "end")]
    [4094, 908]
    """
    while len(line) * 4 > SENTENCE_BYTES and len(line.encode()) > SENTENCE_BYTES:
        head = line.encode()[:SENTENCE_BYTES].decode(errors="ignore")
        end = head.rfind(" ")
        if end <= 0:
            yield head
            line = line[len(head) :]
        else:
            yield head[:end]
            line = line[end + 1 :]
    if line:
        yield line


def _explained(error: str, plan: VocabularyPlan) -> str:
    """SentencePiece's complaint in our words; it is a line of its source, and then a sentence."""
    sentence = error.rpartition("]")[2].strip() or error
    if "too high" in sentence:
        what = "the text is too little for so many pieces"
    elif "smaller than required_chars" in sentence:
        what = "the text has more characters than that"
    else:
        return f"SentencePiece could not train the vocabulary: {' '.join(error.split())}"
    return f"a vocabulary of {plan.vocab_size}: {what} ({sentence})"
