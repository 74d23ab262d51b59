"""How well a model predicts a text: as llama.cpp counts it, and as lm-eval does. Lower is better."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from circius.base.errors import InvalidInputError, PromptError
from circius.evals.item import Answer, Item, Passage, PassageAnswer
from circius.evals.metrics.interval import LEVEL, Estimate
from circius.evals.model import Tokens
from circius.evals.task import Judged, Scored, Sources, Task

CHUNK = 512
"""Tokens of a chunk in llama.cpp's perplexity, of which those of the second half are scored."""
_PAGE_TITLE = re.compile(r"(?m)^(?= = [^=\n].*[^=\n] = $)")


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Some passages that are scored together, and the length of the text that they come from."""

    passages: tuple[Passage, ...]
    n_words: int = 0
    n_bytes: int = 0


def chunks(sources: Sources) -> list[Item]:
    """The text in chunks of 512 tokens, BOS in the place of each first one; a rest that fills none is left out."""
    tokens, text = _needed(sources)
    ids = list(tokens.encode(text.removesuffix("\n")))
    starts = [tokens.start] if tokens.adds_bos and tokens.start is not None else []
    ids = [*starts, *ids]
    if len(ids) < 2 * CHUNK:
        raise PromptError(f"the text has {len(ids)} tokens: its perplexity needs {2 * CHUNK} at least")
    return [
        Item(
            id=str(number),
            doc=Stretch(passages=(_chunk(ids[number * CHUNK : (number + 1) * CHUNK], starts),)),
        )
        for number in range(len(ids) // CHUNK)
    ]


def wikitext_chunks(sources: Sources) -> list[Item]:
    """The same, of a text for which there are published figures."""
    _wikitext(sources)
    return chunks(sources)


def whole(sources: Sources) -> list[Item]:
    """The text as one document."""
    tokens, text = _needed(sources)
    return [Item(id="0", doc=_document(tokens, text, text))]


def pages(sources: Sources) -> list[Item]:
    """The articles of WikiText, each a document of its own, without the spaces that its tokenisation put there."""
    tokens, text = _wikitext(sources)
    articles = [page for page in _PAGE_TITLE.split(text) if page.strip()]
    return [
        Item(id=str(number), doc=_document(tokens, page, detokenised(page))) for number, page in enumerate(articles)
    ]


def asks(item: Item, _: object) -> tuple[Passage, ...]:
    passages: tuple[Passage, ...] = item.doc.passages
    return passages


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    """Sums, from which the figures are made over the whole text."""
    stretch: Stretch = item.doc
    own = [answer for answer in answers if isinstance(answer, PassageAnswer)]
    values = {
        "nll": -math.fsum(answer.logprob for answer in own),
        "squares": math.fsum(answer.squares for answer in own),
        "tokens": float(sum(answer.n_tokens for answer in own)),
        "words": float(stretch.n_words),
        "bytes": float(stretch.n_bytes),
    }
    return Judged(values=values)


def by_token(scored: Sequence[Scored]) -> dict[str, Estimate]:
    """Perplexity by token, with the interval of its mean as llama.cpp works it out."""
    sums = _sums(scored)
    n, mean = sums["tokens"], sums["nll"] / sums["tokens"]
    variance = max(0.0, sums["squares"] / n - mean * mean)
    error = math.sqrt(variance / (n - 1)) if n > 1 else 0.0
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * error
    return {"perplexity": _estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half), int(n), "by token")}


def by_length(scored: Sequence[Scored]) -> dict[str, Estimate]:
    """lm-eval's figures, over the words and bytes of all documents; their spread is not known from sums."""
    sums = _sums(scored)
    word, byte = sums["nll"] / sums["words"], sums["nll"] / sums["bytes"]
    figures = {
        "word_perplexity": (math.exp(min(word, 700)), int(sums["words"])),
        "byte_perplexity": (math.exp(byte), int(sums["bytes"])),
        "bits_per_byte": (byte / math.log(2), int(sums["bytes"])),
    }
    return {name: _estimate(value, value, value, n, "none") for name, (value, n) in figures.items()}


def rolling(ids: Sequence[int], *, start: int, most: int) -> Iterator[Passage]:
    """Every token once, each after as many as the context allows at the end of a text: lm-eval's rolling windows.

    >>> [(window.ids, window.n_known) for window in rolling([0, 1, 2, 3, 4], start=9, most=3)]
    [((9, 0, 1, 2), 1), ((1, 2, 3, 4), 2)]
    """
    first = min(most, len(ids))
    yield Passage(ids=(start, *ids[:first]))
    for begin in range(first, len(ids), most):
        end = min(begin + most, len(ids))
        window = tuple(ids[end - most - 1 : end])
        yield Passage(ids=window, n_known=len(window) - (end - begin))


def is_wikitext(text: str) -> bool:
    """Whether a text begins as a raw file of WikiText does: with the title of an article.

    >>> is_wikitext(" \\n = Robert Boulter = \\n"), is_wikitext("Robert Boulter")
    (True, False)
    """
    return re.match(r"\s*= [^=\n].*[^=\n] = \n", text) is not None


_SPACES_AROUND: Mapping[str, str] = {
    " @-@ ": "-", " @,@ ": ",", " @.@ ": ".",
    " : ": ": ", " ; ": "; ", " . ": ". ", " ! ": "! ", " ? ": "? ", " , ": ", ",
}  # fmt: skip
_SPACES_INSIDE = tuple(
    (re.compile(rf"{re.escape(left)}\s*([^{re.escape(right)}]*?)\s*{re.escape(right)}"), rf"{left}\1{right}")
    for left, right in ("()", "[]", "{}", '""', "''")
)
_REST: Mapping[str, str] = {
    "= = = =": "====", "= = =": "===", "= =": "==", " ° ": "°", " \n": "\n", "\n ": "\n", " N ": " 1 ", " 's": "'s",
}  # fmt: skip


def detokenised(page: str) -> str:
    """A page of WikiText as people would write it, by the steps that Megatron began with and lm-eval keeps.

    >>> detokenised("He said : \\" well , 1 @,@ 000 ( or so ) \\" .")
    'He said: "well, 1,000 (or so)" .'
    """
    text = page.replace("s '", "s'")
    for spaced, bare in _SPACES_AROUND.items():
        text = text.replace(spaced, bare)
    for pattern, inside in _SPACES_INSIDE:
        text = pattern.sub(inside, text)
    for spaced, bare in _REST.items():
        text = text.replace(spaced, bare)
    return text


def _chunk(ids: Sequence[int], starts: Sequence[int]) -> Passage:
    return Passage(ids=(*starts, *ids[len(starts) :]), n_known=CHUNK // 2 + 1)


def _document(tokens: Tokens, original: str, read: str) -> Stretch:
    """Words and bytes are counted before anything was changed, as lm-eval does."""
    if tokens.start is None:
        raise InvalidInputError("the tokenizer has no token that a text starts with: its first word cannot be scored")
    ids = tokens.encode(read)
    return Stretch(
        passages=tuple(rolling(ids, start=tokens.start, most=tokens.context)),
        n_words=len(re.split(r"\s+", original)),
        n_bytes=len(original.encode()),
    )


def _needed(sources: Sources) -> tuple[Tokens, str]:
    if sources.tokens is None:
        raise InvalidInputError(
            "perplexity is counted by tokens, which only a model in this process shows: no --endpoint"
        )
    if sources.text is None:
        raise InvalidInputError("perplexity needs a text: give one with --text FILE")
    try:
        return sources.tokens, sources.text.read_bytes().decode("utf-8")
    except OSError as error:
        raise InvalidInputError(f"cannot read {sources.text}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{sources.text} is not UTF-8 text: byte at offset {error.start}; convert it first"
        ) from error


def _wikitext(sources: Sources) -> tuple[Tokens, str]:
    tokens, text = _needed(sources)
    if not is_wikitext(text):
        raise PromptError(f"{sources.text} is no raw WikiText: it begins with no line such as ' = Robert Boulter = '")
    return tokens, text


def _sums(scored: Sequence[Scored]) -> dict[str, float]:
    names = ("nll", "squares", "tokens", "words", "bytes")
    return {name: math.fsum(one.values[name] for one in scored) for name in names}


def _estimate(value: float, low: float, high: float, n: int, method: str) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=n, method=method)


PERPLEXITY = Task(
    name="perplexity",
    title="Perplexity",
    about="chunks of 512 tokens, BOS first, the second half scored: llama.cpp's count",
    items=chunks,
    asks=asks,
    judge=judge,
    primary="perplexity",
    estimate=by_token,
    unit="perplexity",
)
BITS_PER_BYTE = Task(
    name="bits_per_byte",
    title="Bits per byte",
    about="the text as one document in rolling windows of the whole context: lm-eval's count",
    items=whole,
    asks=asks,
    judge=judge,
    primary="bits_per_byte",
    estimate=by_length,
    unit="bits",
)
WIKITEXT_CHUNKS = replace(PERPLEXITY, name="wikitext2_chunks", title="WikiText-2, in chunks", items=wikitext_chunks)
WIKITEXT = Task(
    name="wikitext2",
    title="WikiText-2",
    about="articles in rolling windows of the whole context, detokenised: lm-eval's word perplexity",
    items=pages,
    asks=asks,
    judge=judge,
    primary="word_perplexity",
    estimate=by_length,
    unit="perplexity",
)
