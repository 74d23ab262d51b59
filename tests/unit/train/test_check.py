"""`data check` and `data show` beneath the command line: counts on files that are built to have them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from circius.base.errors import InvalidInputError
from circius.text import ChatTemplate, load_chat_template
from circius.train.chat_source import ChatSource
from circius.train.check import FORMS, Checker, Report
from circius.train.prepare import Reading, prepare
from circius.train.shown import shown_examples
from circius.train.text_source import TextSource
from circius.train.too_long import LengthRule
from tests.vocabularies import FILES, mistral

HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
BYE = {"role": "user", "content": "Bye"}


def template() -> ChatTemplate:
    return load_chat_template(FILES["v3"], mistral("v3"))


def no_template() -> ChatTemplate:
    raise AssertionError("texts need no template")


def written(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    (folder / name).write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return folder / name


def checked(*files: Path, rule: LengthRule | None = None, **options: Any) -> Report:
    checker = Checker(mistral("v3"), template, rule or LengthRule(None), **options)
    report = Report()
    for file in files:
        checker.check(file, report)
    return report


def test_counts_are_what_training_reads(tmp_path: Path) -> None:
    long = [message for number in range(9) for message in ({**HI[0], "content": f"Q{number}"}, HI[1])]
    file = written(tmp_path, {"messages": HI, "id": 1}, {"messages": long}, {"messages": HI, "id": 2, "x": 3})
    rule = LengthRule(20, "split")
    [one] = checked(file, rule=rule).files
    source = ChatSource(file, template(), seq_len=20, too_long="split")
    assert one.counts == source.counts
    assert (one.form, one.n_problems, one.unused_keys) == ("messages", 0, {"id": 2, "x": 1})


def test_texts_are_not_corrected_to_nothing(tmp_path: Path) -> None:
    file, out = written(tmp_path, {"text": "one"}, {"txt": "two"}), io.StringIO()
    with pytest.raises(InvalidInputError, match=r"rows\.jsonl holds texts, which are not corrected"):
        checked(file, corrected={file: out})
    assert len(checked(file).problems) == 1


def test_every_problem_has_its_line_and_spoils_nothing(tmp_path: Path) -> None:
    bad = {"messages": [{"role": "bot", "content": "Hi"}]}
    file = written(tmp_path, {"messages": HI}, "{", bad, {"messages": HI}, [1], {"messages": HI[:1]}, {"messages": HI})
    report = checked(file)
    assert [problem.place.line for problem in report.problems] == [2, 3, 5, 6]
    good = checked(written(tmp_path, *[{"messages": HI}] * 3, name="good.jsonl"))
    assert report.total == good.total
    assert report.files[0].n_problems == 4


def test_a_record_that_fails_half_way_counts_nothing(tmp_path: Path) -> None:
    row = {"instruction": "Spell", "instances": [{"input": "1", "output": "one"}, {"input": "2", "output": ""}]}
    report = checked(written(tmp_path, row))
    assert len(report.problems) == 1
    assert report.total.n_whole == report.total.n_tokens == 0


def test_mending(tmp_path: Path) -> None:
    rows = [
        {"messages": HI, "id": "kept as it is"},
        {"messages": [*HI, BYE, BYE], "id": 2},
        {"messages": [{**HI[0], "weight": 0}, HI[1]]},
        {"messages": [{**HI[0], "weight": 1}, HI[1]]},
        {"messages": [{"role": "bot", "content": "x"}, HI[1], BYE]},
        {"messages": [BYE]},
        {"conversations": [*HI, BYE]},
    ]
    file, out = written(tmp_path, *rows), io.StringIO()
    report = checked(file, corrected={file: out})
    assert [problem.place.line for problem in report.problems] == [2, 3, 4, 5, 6, 7]
    assert [(repair.place.line, repair.message) for repair in report.repairs] == [
        (2, "2 messages after the last answer were left out"),
        (3, "the weight of 1 message that is never learnt was removed"),
        (7, "1 message after the last answer was left out"),
    ]
    lines = out.getvalue().splitlines()
    assert lines[0] == json.dumps(rows[0])
    assert [json.loads(line) for line in lines[1:]] == [
        {"messages": HI, "id": 2},
        {"messages": HI},
        {"conversations": HI},
    ]
    mended = checked(written(tmp_path, *lines, name="mended.jsonl"))
    assert (mended.problems, mended.total) == ([], report.total)
    assert report.files[0].n_repaired == 3


def test_too_many_long_ones_are_a_problem_of_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, {"messages": HI}, {"messages": [HI[0], {**HI[1], "content": "word " * 50}]})
    [problem] = checked(file, rule=LengthRule(20)).problems
    assert str(problem).startswith(f"{file}: 1 of 2 conversations (50.0%) have more than 20 tokens")
    assert checked(file, rule=LengthRule(20, "drop")).problems == []


def test_pairs(tmp_path: Path) -> None:
    row = {"instruction": "Hi", "output": "Hello", "chosen": "Hello", "rejected": "No"}
    file = written(tmp_path, row, {**row, "rejected": "Hello"})
    [one] = checked(file, form="preference").files
    shown = shown_examples(file, mistral("v3"), template, LengthRule(None), form="preference")
    chosen, rejected = (next(shown) for _ in range(2))
    assert (chosen.title, rejected.title) == (" (chosen)", " (rejected)")
    assert (one.form, one.n_problems, one.counts.n_examples, one.unused_keys) == ("preference", 1, 2, {"output": 2})
    assert one.counts.lengths == [max(len(chosen.example), len(rejected.example))]
    [other] = checked(file).files
    assert (other.form, other.n_problems, other.n_with_pairs) == ("alpaca", 0, 2)
    del row["output"]
    assert checked(written(tmp_path, row)).files[0].form == "preference"
    assert checked(written(tmp_path, row), rule=LengthRule(4, "drop")).total.n_dropped == 1


@pytest.mark.parametrize("seq_len", [None, 5])
def test_texts(tmp_path: Path, seq_len: int | None) -> None:
    texts = ["Hello there, this is one.", "é🦜", " "]
    file = written(tmp_path, *({"text": text} for text in texts))
    (tmp_path / "plain.txt").write_text(texts[0])
    checker = Checker(mistral("v3"), no_template, LengthRule(seq_len))
    report = Report()
    for one in (file, tmp_path / "plain.txt"):
        checker.check(one, report)
    prepare([file, tmp_path / "plain.txt"], mistral("v3"), tmp_path / "shards")
    source = TextSource(tmp_path / "shards", mistral("v3"), seq_len=seq_len or 1000)
    total = report.total
    assert (total.n_whole, total.n_examples) == (3, len(source))
    assert total.n_tokens == sum(source.n_tokens(index) for index in range(len(source)))
    assert total.n_learnt == sum(source.example(index).n_learnt for index in range(len(source)))
    assert [one.n_bytes for one in report.files] == [len("".join(texts).strip().encode()), len(texts[0])]
    assert [one.form for one in report.files] == ["text", "text"]


def test_what_is_shown_is_what_is_learnt(tmp_path: Path) -> None:
    long = [message for number in range(9) for message in ({**HI[0], "content": f"Q{number}"}, HI[1])]
    file = written(tmp_path, {"messages": HI}, {"messages": long})
    rule = LengthRule(20, "split")
    shown = list(shown_examples(file, mistral("v3"), template, rule))
    source = ChatSource(file, template(), seq_len=20, too_long="split")
    assert [one.example.ids.tolist() for one in shown] == [source.example(i).ids.tolist() for i in range(len(source))]
    assert [one.title for one in shown[:2]] == ["", f" (part 1 of {len(source) - 1})"]
    texts = written(tmp_path, {"text": "a b c d e f g"}, {"text": "h"}, name="texts.jsonl")
    prepare([texts], mistral("v3"), tmp_path / "shards")
    pieces = TextSource(tmp_path / "shards", mistral("v3"), seq_len=4)
    seen = list(shown_examples(texts, mistral("v3"), no_template, LengthRule(4)))
    assert [one.example.ids.tolist() for one in seen] == [pieces.example(i).ids.tolist() for i in range(len(pieces))]
    assert [one.example.learnt.tolist() for one in seen] == [
        pieces.example(i).learnt.tolist() for i in range(len(pieces))
    ]


def test_a_system_prompt_that_comes_late(tmp_path: Path) -> None:
    system = {"role": "system", "content": "S"}
    rows = [{"messages": [system, *HI]}, {"messages": [system, *HI, *HI]}, {"messages": [*HI, *HI]}]
    assert checked(written(tmp_path, *rows)).files[0].n_system_late == 1


def test_epochs() -> None:
    report = Report()
    assert report.epochs(100) == 100.0


def test_empty_files_and_unknown_forms(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    [problem] = checked(tmp_path / "empty.jsonl").problems
    assert problem.message == "there is nothing in this file"
    with pytest.raises(InvalidInputError, match="form 'xml' is not known: use auto, messages"):
        Checker(mistral("v3"), template, LengthRule(None), form="xml")
    [one] = checked(written(tmp_path, {"a": 1}, {"b": 2})).files
    assert (one.form, one.n_problems) == ("auto", 2)


def test_the_form_that_a_later_record_tells(tmp_path: Path) -> None:
    report = checked(written(tmp_path, {"a": 1}, {"messages": HI, "id": 2}))
    assert (report.files[0].form, report.files[0].n_problems) == ("messages", 1)
    assert report.files[0].unused_keys == {"a": 1, "id": 1}


def test_the_command_line_knows_every_form() -> None:
    from circius.cli.data_options import Form, TooLong
    from circius.train.too_long import TOO_LONG

    assert [form.value for form in Form] == ["auto", *FORMS]
    assert tuple(TooLong) == TOO_LONG


def test_text_options(tmp_path: Path) -> None:
    file = written(tmp_path, {"body": "one"}, {"body": "two"})
    assert checked(file, reading=Reading(field="body")).total.n_whole == 2
    (tmp_path / "a.txt").write_text("a\n---\nb\n")
    assert checked(tmp_path / "a.txt", reading=Reading(separator="---")).total.n_whole == 2
