"""The report: one page that shows what happened and asks for nothing from outside."""

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from circius.base.errors import InvalidInputError
from circius.text import Tokenizer, load_chat_template, load_tokenizer, write_byte_tokenizer
from circius.train.charts import Series, line_chart, short, smoothed, thinned, ticks
from circius.train.config import RunConfig, SourceConfig
from circius.train.metrics import training_operations
from circius.train.report import render, write_report
from circius.train.run_folder import read_record
from circius.train.template_file import add_template
from tests.unit.train.runs import SHAPE, lines_of
from tests.vocabularies import mistral

VOID = {"meta", "line", "polyline", "circle", "br"}


class _Checker(HTMLParser):
    """Sees to it that every tag that is opened is closed, and collects text and links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _checked(page: str) -> _Checker:
    checker = _Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert checker.links == []
    assert not re.search(r"url\(|@import|https?://", page)
    return checker


def test_the_page_of_a_real_run(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    page = write_report(run).read_text(encoding="utf-8")
    text = _checked(page).text
    last = lines_of(whole, "train")[-1]
    assert f"{last['loss']:.4g}" in text
    assert f"pretrain of random weights: step {last['step']} of 20, finished" in text
    for expected in ("Loss", "Learning rate", "Gradient norm", "Tokens a second", "shards, held out", "bits per byte"):
        assert expected in text
    assert page.count("<svg") == 4
    assert json.dumps(SHAPE.window_size) in text
    assert "prefers-color-scheme: dark" in page


def test_a_run_that_has_not_begun_or_went_wrong_has_a_page_too(whole: Path) -> None:
    record = read_record(whole)
    assert record is not None
    assert "step 0 of 20" in _checked(render("empty", {**record, "sessions": []}, [])).text
    lines = lines_of(whole)
    timed = {"seconds": 1.0, "tokens_per_s": 5.0, "mfu": None, "memory_bytes": None}
    broken = [{**line, **timed, "loss": "nan", "grad_norm": "inf"} for line in lines if line["kind"] == "train"]
    note = {"kind": "note", "step": 3, "text": "<script>alert(1)</script>"}
    sample = {"kind": "sample", "step": 3, "prompt": "<b>", "how": "greedy", "text": "</td>\x00&"}
    page = render("<wrong>", record, [*broken, note, sample])
    assert "<script>" not in page
    assert "nan" in _checked(page).text


def test_only_runs_have_reports(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"is not the folder of a run"):
        write_report(tmp_path)


def test_no_peak_is_lost_when_points_are_thinned() -> None:
    points = [(float(x), 1.0) for x in range(10_000)]
    points[7_777] = (7_777.0, 50.0)
    kept = thinned(points, most=100)
    assert (7_777.0, 50.0) in kept
    assert len(kept) <= 102
    assert kept == sorted(kept)


def test_a_smoothed_line_stays_between_its_points() -> None:
    points = [(float(x), float(x % 2)) for x in range(1_000)]
    means = smoothed(points)
    assert means[0] == points[0]
    assert all(0.4 < y < 0.6 for _, y in means[200:])


def test_axes() -> None:
    assert ticks(0.001, 0.01) == [0.002, 0.004, 0.006, 0.008, 0.01]
    assert ticks(3, 3) == [3]
    assert [short(value) for value in (0, 1e-5, 0.25, 999, 10_000, 2.5e7, -3e-4)] == [
        *("0", "1e-5", "0.25", "999", "10k", "25M", "-3e-4"),
    ]
    points = [(1, 1e-3), (2, 10.0), (3, 0.0), (4, math.inf)]
    logarithmic = line_chart("x", [Series(name="y", points=points)], is_log=True)
    [path] = re.findall(r'points="([^"]*)"', logarithmic)
    assert len(path.split()) == 2, "zero has no logarithm, and infinity no place"
    flat = line_chart("x", [Series(name="y", points=[(1, 5.0)], style="dots")])
    assert "nan" not in flat


def test_operations_count_the_window_and_what_is_frozen() -> None:
    base = training_operations(SHAPE, [8], is_frozen=False)
    matrices = SHAPE.n_parameters - SHAPE.vocab_size * SHAPE.dim - (2 * SHAPE.n_layers + 1) * SHAPE.dim
    attention = 12 * SHAPE.n_layers * SHAPE.n_heads * SHAPE.head_dim * sum(range(1, 9))
    assert base == 6 * matrices * 8 + attention
    assert training_operations(SHAPE, [8], is_frozen=True) == base * 2 / 3
    assert training_operations(SHAPE, [8, 8], is_frozen=False) == 2 * base
    long = training_operations(SHAPE, [64], is_frozen=False) - 6 * matrices * 64
    seen = sum(min(n, 16) for n in range(1, 65))
    assert long == 12 * SHAPE.n_layers * SHAPE.n_heads * SHAPE.head_dim * seen


@pytest.mark.parametrize("name", ["v1", "v2", "v3", "bytes"])
def test_the_template_that_is_written_down_is_the_one_that_was_named(name: str, tmp_path: Path) -> None:
    """By the name of the tokenizer's file, and as Jinja that gives the same ids."""
    version = "v1" if name == "bytes" else name
    tokenizer = _tokenizer(name, tmp_path / "bytes")
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copyfile(tokenizer.source, folder / "tokenizer.model")
    config = RunConfig(
        kind="finetune", model="m", sources=(SourceConfig(path="x"),), seq_len=8, batch_tokens=8, n_steps=1,
        template=version,  # type: ignore[arg-type]
    )  # fmt: skip
    add_template(folder, tokenizer, config)
    chat = [("user", "Hi  there"), ("assistant", "Yo."), ("user", "And\nnow?")]
    messages = [{"role": role, "content": text} for role, text in chat]
    own = load_tokenizer(folder)
    wanted = load_chat_template(tokenizer.source, tokenizer, name=version).encode(messages)
    for found in ("auto", "model"):
        template = load_chat_template(folder, own, name=found)
        assert template.is_shipped
        assert template.encode(messages) == wanted
    assert load_chat_template(folder, own).name == version


def _tokenizer(name: str, folder: Path) -> Tokenizer:
    if name != "bytes":
        return mistral(name)
    write_byte_tokenizer(folder)
    return load_tokenizer(folder / "tokenizer.model")
