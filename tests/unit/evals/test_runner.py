"""Runs on a real tiny model: a line an item, going on after being cut off anywhere, and refusing to mix runs."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circius.base.errors import CirciusError, InvalidInputError
from circius.evals import runner
from circius.evals.comparing import compared
from circius.evals.engine_model import EngineModel
from circius.evals.item import Ask, Choices, ChoicesAnswer, Text, TextAnswer
from circius.evals.model import OnAnswered, unheard
from circius.evals.questions import Exam
from circius.evals.record import RunFolder
from circius.evals.report import html_report
from circius.evals.runner import Listeners, run
from circius.evals.show import compared_rows, run_rows, task_notes
from circius.evals.task import Sources
from circius.evals.tasks import make_task
from circius.evals.tasks.settings import Settings
from tests.unit.engine.tiny import byte_llm


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of about two items."""
    monkeypatch.setattr("circius.evals.questions.GROUP_CHARACTERS", 100)


def _exams(small: Sources, *names: str, **given: Any) -> list[Exam]:
    tasks = [_short(make_task(name, Settings(samples=2))) for name in names]
    return [Exam.of(task, small, **given) for task in tasks]


def _short(task: Any) -> Any:
    """The same with answers of a few tokens: a random model writes to the end of its allowance."""

    def asks(item: Any, shots: Any) -> tuple[Ask, ...]:
        return tuple(replace(ask, max_tokens=5) if isinstance(ask, Text) else ask for ask in task.asks(item, shots))

    return replace(task, asks=asks)


def _items(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder.path / "items").iterdir())}


class _Counting(EngineModel):
    """The engine, counting what it is asked."""

    def __init__(self, model: EngineModel, *, dies_after: int | None = None) -> None:
        super().__init__(model.llm, max_streams=model.n_at_once, name="tiny")
        self.n_asked, self._dies_after = 0, dies_after

    def loglikelihoods(self, asks: Sequence[Choices], on_answered: OnAnswered = unheard) -> list[ChoicesAnswer]:
        self._count(asks)
        return super().loglikelihoods(asks, on_answered)

    def texts(self, asks: Sequence[Text], on_answered: OnAnswered = unheard) -> list[TextAnswer]:
        self._count(asks)
        return super().texts(asks, on_answered)

    def _count(self, asks: Sequence[object]) -> None:
        self.n_asked += len(asks)
        if self._dies_after is not None and self.n_asked > self._dies_after:
            raise KeyboardInterrupt


TASKS = ("openbookqa", "gsm8k", "mmlu")


@pytest.fixture(scope="module")
def whole(small: Sources, tiny: EngineModel, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that nothing disturbed."""
    folder = RunFolder(tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circius.evals.questions.GROUP_CHARACTERS", 100)
        run(tiny, _exams(small, *TASKS), folder)
    return folder


def test_every_item_is_a_line_with_all_that_decided_it(whole: RunFolder) -> None:
    lines = [json.loads(line) for line in (whole.path / "items" / "openbookqa.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["q0", "q1", "q2"]
    (ask,) = lines[0]["asks"]
    assert ask["context"] == "What do bees make?"
    assert ask["continuations"] == [" honey", " milk", " paper", " salt"]
    assert len(ask["logprobs"]) == len(ask["unconditional_logprobs"]) == len(ask["continuation_ids"]) == 4
    assert ask["context_ids"][0] == 1  # BOS
    assert set(lines[0]["values"]) == {"raw", "per_character", "per_byte", "minus_unconditional"}
    (greedy, drawn) = json.loads((whole.path / "items" / "gsm8k.jsonl").read_text().splitlines()[0])["asks"]
    assert (len(greedy["samples"]), len(drawn["samples"])) == (1, 2)
    assert drawn["seed"] is not None


def test_the_record_says_what_decides_the_numbers(whole: RunFolder, tiny: EngineModel) -> None:
    record = whole.read_record()
    assert record["model"] == json.loads(json.dumps(tiny.describe()))
    assert record["tasks"]["mmlu"]["n_items"] == 6
    assert len(record["tasks"]["mmlu"]["questions_sha256"]) == 64
    assert list(record["tasks"]["mmlu"]["data"]) == ["mmlu/test.jsonl.gz", "mmlu/dev.jsonl.gz"]
    (session,) = record["sessions"]
    assert session["n_answered"] == 3 + 3 + 6
    assert session["seconds"] > 0


@pytest.mark.parametrize("dies_after", [0, 1, 3, 5, 9, 12])
def test_a_run_that_was_stopped_comes_to_the_same_lines(
    dies_after: int, whole: RunFolder, small: Sources, tiny: EngineModel, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(_Counting(tiny, dies_after=dies_after), _exams(small, *TASKS), folder)
    again = _Counting(tiny)
    results = run(again, _exams(small, *TASKS), folder)
    assert _items(folder) == _items(whole)
    assert results["tasks"] == whole.read_results()["tasks"]
    assert len(results["sessions"]) == 2
    assert again.n_asked < 3 + 2 * 3 + 6 or dies_after < 2  # groups of openbookqa have two items


@pytest.mark.parametrize("n_bytes", [1, 100, 1000, 2500])
def test_a_file_cut_off_anywhere_is_completed(
    n_bytes: int, whole: RunFolder, small: Sources, tiny: EngineModel, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    run(tiny, _exams(small, "openbookqa"), folder)
    file = tmp_path / "items" / "openbookqa.jsonl"
    file.write_bytes(file.read_bytes()[:-n_bytes])
    run(tiny, _exams(small, "openbookqa"), folder)
    assert file.read_bytes() == (whole.path / "items" / "openbookqa.jsonl").read_bytes()


def test_a_finished_run_asks_nothing_again(small: Sources, tiny: EngineModel, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    run(tiny, _exams(small, "openbookqa"), folder)
    again = _Counting(tiny)
    run(again, _exams(small, "openbookqa"), folder)
    assert again.n_asked == 0


def test_tasks_can_be_added_to_a_run(whole: RunFolder, small: Sources, tiny: EngineModel, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name in TASKS:
        run(tiny, _exams(small, name), folder)
    assert _items(folder) == _items(whole)
    assert folder.read_results()["tasks"] == whole.read_results()["tasks"]
    assert set(folder.read_record()["tasks"]) == set(TASKS)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [({"limit": 2}, "n_items: 3, now 2"), ({"seed": 1}, "seed: 0, now 1")],
)
def test_other_questions_are_refused(
    given: dict[str, int], complaint: str, small: Sources, tiny: EngineModel, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    run(tiny, _exams(small, "openbookqa"), folder)
    with pytest.raises(InvalidInputError, match=complaint):
        run(tiny, _exams(small, "openbookqa", **given), folder)


def test_another_model_is_refused(small: Sources, tiny: EngineModel, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    run(tiny, _exams(small, "openbookqa"), folder)
    other = EngineModel(byte_llm(tmp_path, window=40, context=4096, chunk_size=64, seed=1), max_streams=4, name="tiny")
    with pytest.raises(InvalidInputError, match="sha256"):
        run(other, _exams(small, "openbookqa"), folder)


def test_the_same_model_by_another_name_goes_on(small: Sources, tiny: EngineModel, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    run(tiny, _exams(small, "openbookqa"), folder)
    again = run(EngineModel(tiny.llm, max_streams=4, name="renamed"), _exams(small, "openbookqa"), folder)
    assert again["sessions"][1]["n_answered"] == 0


def test_another_prompt_is_refused(small: Sources, tiny: EngineModel, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    run(tiny, _exams(small, "openbookqa"), folder)
    (exam,) = _exams(small, "openbookqa")
    (piqa,) = _exams(small, "arc_easy")
    other = replace(exam, task=replace(exam.task, asks=piqa.task.asks))
    with pytest.raises(InvalidInputError, match="questions_sha256"):
        run(tiny, [other], folder)


def test_two_processes_do_not_write_to_one_run(small: Sources, tiny: EngineModel, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.lock(), pytest.raises(CirciusError, match="another process"):
        run(tiny, _exams(small, "openbookqa"), folder)
    run(tiny, _exams(small, "openbookqa"), folder)


def test_a_run_on_another_machine_says_so(
    small: Sources, tiny: EngineModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    run(tiny, _exams(small, "openbookqa"), folder)
    monkeypatch.setattr(runner, "processor_name", lambda: "Zilog Z80")
    notes: list[str] = []
    run(tiny, _exams(small, "openbookqa"), folder, listeners=Listeners(on_note=notes.append))
    assert any("Zilog Z80" in note for note in notes)


def test_damaged_lines_are_named(small: Sources, tiny: EngineModel, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    run(tiny, _exams(small, "openbookqa"), folder)
    file = tmp_path / "items" / "openbookqa.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[0])
    with pytest.raises(CirciusError, match="item 'q0' twice"):
        run(tiny, _exams(small, "openbookqa"), folder)
    file.write_bytes(b"{}}\n" + lines[1])
    with pytest.raises(CirciusError, match="line 1 is damaged"):
        run(tiny, _exams(small, "openbookqa"), folder)
    for broken in (b"[]", b"{}", b'{"id": "q1", "values": 3, "asks": []}', b'{"id": "q1", "values": {"raw": "x"}}'):
        file.write_bytes(lines[0] + broken + b"\n")
        with pytest.raises(CirciusError, match=r"line 2 is damaged .*delete the file"):
            run(tiny, _exams(small, "openbookqa"), folder)


def test_items_that_nobody_can_place_are_not_taken_for_this_model(
    small: Sources, tiny: EngineModel, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    run(tiny, _exams(small, "openbookqa"), folder)
    (tmp_path / "record.json").unlink()
    with pytest.raises(CirciusError, match=r"has items but no record\.json"):
        run(tiny, _exams(small, "openbookqa"), folder)


def test_a_report_without_examples_quotes_no_data_set(whole: RunFolder) -> None:
    assert "What do bees make?" in html_report(whole)
    page = html_report(whole, examples=False)
    assert "What do bees make?" not in page
    assert "minus_unconditional (the task&#x27;s own)" in page


def test_progress_never_goes_back(small: Sources, tiny: EngineModel, tmp_path: Path) -> None:
    heard: list[tuple[str, float, int]] = []
    listeners = Listeners(on_items=lambda name, done, n: heard.append((name, done, n)))
    run(tiny, _exams(small, "openbookqa", "gsm8k"), RunFolder(tmp_path), listeners=listeners)
    for name in ("openbookqa", "gsm8k"):
        own = [done for task, done, _ in heard if task == name]
        assert own == sorted(own)
        assert own[-1] == 3
    assert any(done % 1 for _, done, _ in heard), "parts of groups are heard of too"


def test_figures_have_their_intervals_and_notes(whole: RunFolder) -> None:
    results = whole.read_results()
    own = results["tasks"]["openbookqa"]["figures"]["minus_unconditional"]
    assert own["low"] <= own["value"] <= own["high"]
    assert own["n"] == 3
    assert results["tasks"]["gsm8k"]["primary"] == "maj@2"
    assert {"raw", "macro_raw"} <= set(results["tasks"]["mmlu"]["figures"])
    assert any("not those that circius knows" in note for note in task_notes(results))
    header, rows = run_rows(results)
    assert [row[0] for row in rows] == list(TASKS)
    assert all(len(row) == len(header) for row in rows)
    assert rows[2][header.index("Mistral 7B")] == "60.1"


def test_the_report_is_one_page_that_needs_nothing(whole: RunFolder) -> None:
    page = html_report(whole)
    assert page.startswith("<!doctype html>")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "src=" not in page
    assert "What do bees make?" in page
    assert "As the paper" in page
    assert page.count("<svg") == page.count("</svg>") >= 2
    assert "equivalent to &lt; 7.0B" in page or "equivalent to" in page
    assert math.isfinite(len(page))


def test_runs_are_compared_item_by_item(whole: RunFolder, small: Sources, tmp_path: Path) -> None:
    other = EngineModel(byte_llm(tmp_path, window=40, context=4096, chunk_size=64, seed=1), max_streams=4)
    second = RunFolder(tmp_path / "run")
    run(other, _exams(small, "openbookqa", "mmlu"), second)
    found = compared(whole, second)
    assert list(found) == ["openbookqa", "mmlu"]
    metric, _, paired = found["mmlu"]
    assert metric == "raw"
    assert paired.n == 6
    assert paired.second - paired.first == pytest.approx(paired.difference)
    header, rows = compared_rows(found)
    assert all(len(row) == len(header) for row in rows)
    assert list(compared(whole, second, tasks=["mmlu"], metric="per_byte")) == ["mmlu"]


def test_runs_that_cannot_be_compared_say_why(
    whole: RunFolder, small: Sources, tiny: EngineModel, tmp_path: Path
) -> None:
    part = RunFolder(tmp_path / "part")
    run(tiny, _exams(small, "openbookqa", limit=2), part)
    with pytest.raises(InvalidInputError, match="do not have the same items"):
        compared(whole, part)
    with pytest.raises(InvalidInputError, match="mmlu is not in both"):
        compared(whole, part, tasks=["mmlu"])
    with pytest.raises(InvalidInputError, match="has no f1 by item; it has"):
        compared(whole, part, metric="f1")
    with pytest.raises(InvalidInputError, match="holds no results"):
        compared(whole, RunFolder(tmp_path / "nothing"))
