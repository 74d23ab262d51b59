"""Measuring guardrails, on harmless sentences in the form of the public sets."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from circius.base.errors import InvalidInputError
from circius.base.journal import read_journal
from circius.moderate.measure import TABLE_5, Plan, check_refusals_in, measure
from circius.moderate.rates import Rate
from circius.moderate.reflect import Verdict
from circius.moderate.samples import SEED, Sample, drawn, read_labelled, read_samples

REFUSAL, ANSWER = "I'm sorry, but I cannot help with that.", "Take flour and water."


def write_sets(folder: Path, *, n_safe: int = 6, n_unsafe: int = 4, n_sst: int = 3) -> Path:
    """Stand-ins: `red` sentences take the place of unsafe prompts."""
    (folder / "xstest").mkdir(parents=True)
    (folder / "simplesafetytests").mkdir()
    with (folder / "xstest" / "xstest_prompts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "type", "label", "focus", "note"])
        for place in range(n_safe):
            writer.writerow([place, f"a green question, number {place}", "homonyms", "safe", "", ""])
        for place in range(n_unsafe):
            writer.writerow([100 + place, f'a red question, "number" {place}', "contrast_homonyms", "unsafe", "", ""])
    with (folder / "simplesafetytests" / "SimpleSafetyTests_test_cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "harm_area", "counter", "category", "prompts_final"])
        for place in range(n_sst):
            writer.writerow([f"sst_{place:03}", "an area", place, "a kind", f"another red question, number {place}"])
    return folder


def answer(prompts: Sequence[str], guard: bool) -> list[str]:
    return [REFUSAL if "red" in prompt or (guard and "number 0" in prompt) else ANSWER for prompt in prompts]


def judge(prompts: Sequence[str]) -> list[Verdict]:
    """Right about all but one red and one green question."""

    wrong = {"a green question, number 1": 0.4, "another red question, number 2": 0.6}
    scores = [wrong.get(prompt, 0.9 if "green" in prompt else 0.1) for prompt in prompts]
    return [
        Verdict(
            scores={"illegal": 1 - p, "hate_violence_harassment": 0.0, "unqualified_advice": 0.0, "not_moderated": p},
            coverage=0.5,
        )
        for p in scores
    ]


def test_both_sets_are_read(tmp_path: Path) -> None:
    samples = read_samples(write_sets(tmp_path / "data"))
    assert [sample.is_safe for sample in samples] == [True] * 6 + [False] * 7
    assert samples[6] == Sample("xstest-100", 'a red question, "number" 0', is_safe=False)
    assert samples[-1].id == "sst_002"


def test_the_same_prompts_are_drawn_everywhere() -> None:
    """The digest decides: these ids are written down, so a draw that changes is noticed."""
    samples = [Sample(f"s{place}", f"text {place}", is_safe=False) for place in range(300)]
    first = drawn(samples, 175)
    assert first == drawn(samples, 175)
    assert len({sample.id for sample in first}) == 175
    assert [sample.id for sample in first[:6]] == [each.id for each in samples if each in first][:6]
    assert drawn(samples, 175, seed=SEED + 1) != first
    assert {sample.id for sample in drawn(samples, 20)} <= {sample.id for sample in first}, "fewer are among the more"
    assert [sample.id for sample in drawn(samples, 3)] == ["s51", "s82", "s185"]
    with pytest.raises(InvalidInputError, match="301 prompts were asked for, and there are 300"):
        drawn(samples, 301)


def test_rates_with_and_without_the_guard(tmp_path: Path) -> None:
    plan = Plan.of(write_sets(tmp_path / "data"), n_unsafe=7)
    found = measure(plan, answer, {"short": judge}, tmp_path / "run.jsonl", belongs_to={"model": "m"})
    assert found.without_guard.refused_unsafe == Rate(7, 7)
    assert found.without_guard.refused_safe == Rate(0, 6)
    assert found.with_guard.refused_safe == Rate(1, 6)
    assert not found.with_guard.refused_table_5
    own = found.moderation["short"]
    assert own.at_half.precision == Rate(5, 6)
    assert own.at_half.recall == Rate(5, 6)
    assert own.at_paper is not None
    assert own.at_paper.confusion.precision == Rate(6, 7)
    assert own.mean_coverage == pytest.approx(0.5)
    kept = (tmp_path / "run.jsonl").read_text()
    assert "red question" not in kept, "prompts are not copied"


def test_a_killed_run_goes_on_without_asking_twice(tmp_path: Path) -> None:
    plan = Plan.of(write_sets(tmp_path / "data", n_safe=30), n_unsafe=7)
    asked: list[tuple[str, bool]] = []

    def dying(prompts: Sequence[str], guard: bool) -> list[str]:
        if len(asked) >= 16:
            raise KeyboardInterrupt
        asked.extend((prompt, guard) for prompt in prompts)
        return answer(prompts, guard)

    def counting(prompts: Sequence[str], guard: bool) -> list[str]:
        asked.extend((prompt, guard) for prompt in prompts)
        return answer(prompts, guard)

    where, whose = tmp_path / "run.jsonl", {"model": "m"}
    with pytest.raises(KeyboardInterrupt):
        measure(plan, dying, {"short": judge}, where, belongs_to=whose)
    again = measure(plan, counting, {"short": judge}, where, belongs_to=whose)
    assert len(asked) == len(set(asked)) == 2 * (7 + 30 + 1)
    assert again == measure(plan, answer, {"short": judge}, tmp_path / "other.jsonl", belongs_to=whose)
    with pytest.raises(InvalidInputError, match="belongs to another run"):
        measure(plan, answer, {"short": judge}, where, belongs_to={"model": "another"})
    assert len(read_journal(where)[1]) == 2 * 38 + 14
    assert sum(prompt == TABLE_5 for prompt, _ in asked) == 2


def test_the_rules_against_labels(tmp_path: Path) -> None:
    folder = write_sets(tmp_path / "data")
    with (folder / "xstest" / "xstest_v2_completions_somebody.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "completion", "final_label"])
        writer.writerow(["v2-1", "?", REFUSAL, "2_full_refusal"])
        writer.writerow(["v2-2", "?", ANSWER, "1_full_compliance"])
        writer.writerow(["v2-3", "?", "Everybody should be allowed to.", "2_full_refusal"])
        writer.writerow(["v2-4", "?", REFUSAL, "3_partial_refusal"])
    assert [each.truth for each in read_labelled(folder)["somebody"]] == ["refuse", "comply", "refuse", "partly"]
    found = check_refusals_in(folder)["somebody"]
    assert (found.precision, found.recall) == (Rate(1, 1), Rate(1, 2))


def test_files_that_are_not_the_sets(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot read .*xstest_prompts\.csv"):
        read_samples(tmp_path)
    folder = write_sets(tmp_path / "data")
    with pytest.raises(InvalidInputError, match=r"has no xstest_v2_completions_\*\.csv"):
        check_refusals_in(folder)
    (folder / "xstest" / "xstest_prompts.csv").write_text("id,prompt,label\n1,Hi,green\n")
    with pytest.raises(InvalidInputError, match="prompt 1 has the label 'green', not safe or unsafe"):
        read_samples(folder)
    (folder / "xstest" / "xstest_prompts.csv").write_text("id,question\n1,Hi\n")
    with pytest.raises(InvalidInputError, match="has no column 'prompt'"):
        read_samples(folder)
