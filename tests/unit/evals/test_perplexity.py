"""Perplexity by llama.cpp's count and lm-eval's, worked out here once more by hand."""

import math
from pathlib import Path

import pytest
import torch

from circius.base.errors import InvalidInputError, PromptError
from circius.evals.engine_model import EngineModel
from circius.evals.lines import Outcome
from circius.evals.model import answer_all
from circius.evals.questions import Exam
from circius.evals.results import result_of
from circius.evals.task import Sources
from circius.evals.tasks import OF_A_TEXT, make_task
from circius.evals.tasks.perplexity import detokenised, pages, rolling
from circius.evals.tasks.settings import Settings
from tests.unit.engine.tiny import byte_llm

TEXT = "".join(f"Line {n}: the sea is {n * n} deep, and nobody swims in it.\n" for n in range(30))
WIKI = (
    " \n = First Page = \n \n It was 1 @,@ 000 m deep . \n \n = = A Heading = = \n \n Nobody swam ; not one . \n"
    " \n = Second Page = \n \n It was \" dry \" ( so they said ) . \n"
)  # fmt: skip


def _figures(model: EngineModel, name: str, text: Path) -> dict[str, dict[str, float]]:
    exam = Exam.of(make_task(name, Settings()), Sources(text=text, tokens=model.tokens))
    outcomes = []
    for item in exam.items:
        judged = exam.task.judge(item, answer_all(model, exam.question(item).asks))
        outcomes.append(Outcome(id=item.id, values=judged.values))
    figures: dict[str, dict[str, float]] = result_of(exam, outcomes)["figures"]
    return figures


def _nll(model: EngineModel, ids: list[int]) -> torch.Tensor:
    """-ln p of all tokens but the first, in one forward."""
    tokens = torch.tensor(ids)
    logprobs = model.llm.model(tokens, [len(tokens)]).log_softmax(-1)
    return -logprobs[torch.arange(len(ids) - 1), tokens[1:]].double()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def test_chunks_are_scored_in_their_second_half_as_llama_cpp_does(tiny: EngineModel, text: Path) -> None:
    ids = tiny.encode(TEXT.removesuffix("\n"))
    n_chunks = len(ids) // 512
    assert n_chunks == 3
    scored = []
    for n in range(n_chunks):
        chunk = ids[n * 512 : (n + 1) * 512]
        chunk[0] = 1  # BOS stands in the place of each chunk's first token
        scored.append(_nll(tiny, chunk)[256:])  # of the tokens 257 to 511
    nll = torch.cat(scored)
    assert len(nll) == 3 * 255
    own = _figures(tiny, "perplexity", text)["perplexity"]
    assert own["value"] == pytest.approx(math.exp(float(nll.mean())), rel=1e-5)
    assert own["n"] == len(nll)
    error = float(nll.std(correction=0)) / math.sqrt(len(nll) - 1)
    assert math.log(own["high"] / own["value"]) == pytest.approx(1.96 * error, rel=1e-3)


def test_a_whole_text_is_scored_from_its_first_token_on(tiny: EngineModel, text: Path) -> None:
    nll = float(_nll(tiny, tiny.encode(TEXT)).sum())
    own = _figures(tiny, "bits_per_byte", text)
    assert own["bits_per_byte"]["value"] == pytest.approx(nll / math.log(2) / len(TEXT), rel=1e-5)
    assert own["byte_perplexity"]["value"] == pytest.approx(math.exp(nll / len(TEXT)), rel=1e-5)
    n_words = len(TEXT.split()) + 1  # lm-eval counts what is behind the last line break
    assert own["word_perplexity"]["value"] == pytest.approx(math.exp(nll / n_words), rel=1e-4)


def test_a_text_longer_than_the_context_is_read_in_windows(tmp_path: Path, text: Path) -> None:
    model = EngineModel(byte_llm(tmp_path, window=40, context=100, chunk_size=64))
    ids = model.tokens.encode(TEXT)
    windows = list(rolling(ids, start=1, most=100))
    assert sum(len(window.ids) - window.n_known for window in windows) == len(ids)
    assert all(len(window.ids) == 101 for window in windows)
    nll = sum(float(_nll(model, list(window.ids))[window.n_known - 1 :].sum()) for window in windows)
    own = _figures(model, "bits_per_byte", text)["bits_per_byte"]["value"]
    assert own == pytest.approx(nll / math.log(2) / len(TEXT), rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 7, 99, 100, 101, 199, 200, 201, 250])
def test_windows_are_lm_evals(n: int) -> None:
    utils = pytest.importorskip("lm_eval.utils")
    ids = list(range(n))
    theirs = [
        utils.make_disjoint_window(pair)
        for pair in utils.get_rolling_token_windows(token_list=ids, prefix_token=-1, max_seq_len=100, context_len=1)
    ]
    ours = [(list(w.ids[: w.n_known]), list(w.ids[w.n_known :])) for w in rolling(ids, start=-1, most=100)]
    assert [(list(context), list(own)) for context, own in theirs] == ours


def test_wikitext_is_read_page_by_page(tiny: EngineModel, tmp_path: Path) -> None:
    path = tmp_path / "wiki.test.raw"
    path.write_text(WIKI)
    found = pages(Sources(text=path, tokens=tiny.tokens))
    assert len(found) == 2
    assert sum(item.doc.n_bytes for item in found) == len(WIKI.removeprefix(" \n"))
    assert tiny.llm.tokenizer is not None
    read = tiny.llm.tokenizer.decode(found[0].doc.passages[0].ids)
    assert read == " = First Page =\n\nIt was 1,000 m deep.\n\n== A Heading ==\n\nNobody swam; not one.\n\n"
    own = _figures(tiny, "wikitext2", path)
    nll = sum(float(_nll(tiny, list(item.doc.passages[0].ids)).sum()) for item in found)
    assert own["byte_perplexity"]["value"] == pytest.approx(math.exp(nll / len(WIKI.removeprefix(" \n"))), rel=1e-5)


@pytest.mark.parametrize(
    "page",
    [
        WIKI,
        ' He said : " well , 1 @,@ 000 ( or so ) " . \n = = Title = = \n',
        " 20 ° C ; N men 's hats ! 's ' quoted ' { x } [ y ] \n",
        "= = = = deep = = = = and = = = less = = = ? ",
    ],
)
def test_pages_are_detokenised_as_lm_eval_does(page: str) -> None:
    utils = pytest.importorskip("lm_eval.tasks.wikitext.preprocess_wikitext")
    assert detokenised(page) == utils.wikitext_detokenizer({"page": page})


@pytest.mark.parametrize("name", OF_A_TEXT)
def test_what_is_needed_is_said(name: str, tiny: EngineModel, text: Path, tmp_path: Path) -> None:
    task = make_task(name, Settings())
    with pytest.raises(InvalidInputError, match="--text FILE"):
        task.items(Sources(tokens=tiny.tokens))
    with pytest.raises(InvalidInputError, match="no --endpoint"):
        task.items(Sources(text=text))
    (tmp_path / "latin").write_bytes(b"fa\xe7ade")
    with pytest.raises(PromptError, match="not UTF-8"):
        task.items(Sources(text=tmp_path / "latin", tokens=tiny.tokens))
    with pytest.raises(InvalidInputError, match="cannot read"):
        task.items(Sources(text=tmp_path / "nothing", tokens=tiny.tokens))


def test_texts_of_no_use_are_refused(tiny: EngineModel, text: Path, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short")
    with pytest.raises(PromptError, match="needs 1024 at least"):
        make_task("perplexity", Settings()).items(Sources(text=tmp_path / "short", tokens=tiny.tokens))
    for name in ("wikitext2", "wikitext2_chunks"):
        with pytest.raises(PromptError, match="no raw WikiText"):
            make_task(name, Settings()).items(Sources(text=text, tokens=tiny.tokens))
