"""The real sets, where `circius data eval` has put them: counted, read through, and the reference solutions run."""

import os
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from circius.base.errors import SandboxError
from circius.evals.data import store
from circius.evals.data.catalogue import catalogue
from circius.evals.data.sets.agieval import SETS, read_agieval, read_agieval_shots
from circius.evals.data.sets.arc import read_arc_challenge, read_arc_easy
from circius.evals.data.sets.bbh import read_bbh
from circius.evals.data.sets.boolq import read_boolq
from circius.evals.data.sets.humaneval import read_humaneval
from circius.evals.data.sets.maths import read_math
from circius.evals.data.sets.mbpp import read_mbpp
from circius.evals.data.sets.mmlu import read_mmlu
from circius.evals.data.sets.naturalquestions import read_naturalquestions_shots
from circius.evals.data.sets.quac import read_quac
from circius.evals.data.sets.triviaqa import read_triviaqa, read_triviaqa_shots
from circius.evals.data.sets.xstest import read_xstest_completions
from circius.evals.sandbox import Sandbox
from circius.evals.scoring.code import humaneval_program, mbpp_program
from circius.evals.scoring.equality import is_equal
from circius.evals.scoring.f1 import human_f1, quac_f1
from circius.evals.scoring.minerva import normalise

# Taken when the tests are collected, before any of them names another CIRCIUS_HOME for itself.
HOME = Path(os.environ.get("CIRCIUS_HOME", Path.home() / ".cache" / "circius")) / "eval"

pytestmark = pytest.mark.slow


def needs(*paths: str) -> None:
    missing = [path for path in paths if not store.holds(path, HOME)]
    if missing:
        pytest.skip(f"{missing[0]} is not in {HOME}: run `circius data eval`")


@pytest.mark.parametrize("part", [part for entry in catalogue() for part in entry.parts], ids=lambda part: part.path)
def test_every_file_is_what_it_should_be(part: object) -> None:
    needs(part.path)  # type: ignore[attr-defined]
    assert store.read(part.path, HOME)  # type: ignore[attr-defined]


def test_counts() -> None:
    needs("arc_easy/test.jsonl.gz", "mmlu/test.jsonl.gz", "bbh/bbh/snarks.json", "agieval/sat-en.jsonl")
    choices = Counter(len(doc.choices) for doc in read_arc_easy(HOME))
    assert choices == {4: 2365, 3: 7, 5: 4}
    assert Counter(len(doc.choices) for doc in read_arc_challenge(HOME)) == {4: 1165, 3: 4, 5: 3}
    assert len({doc.subject for doc in read_mmlu(HOME)}) == 57
    assert Counter(Counter(doc.subject for doc in read_mmlu(HOME, split="dev")).values()) == {5: 57}
    tasks = read_bbh(HOME)
    assert sum(len(task.docs) for task in tasks) == 6511
    assert all(len(task.shots) == 3 and "canary" not in task.description for task in tasks)
    assert sum(len(read_agieval(name, HOME)) for name in SETS) == 2546
    assert [len(read_agieval_shots(name, HOME)) for name in SETS] == [5, 3, 3, 3, 3, 3, 3, 5]
    assert sum(doc.answer for doc in read_boolq(HOME)) / 3270 == pytest.approx(0.622, abs=5e-4)


def test_shots_are_no_items() -> None:
    needs(
        "triviaqa/validation.jsonl.gz", "triviaqa/fewshot_dpr.trivia.dev.txt", "naturalquestions/fewshot_dpr.nq.dev.txt"
    )
    shots = read_triviaqa_shots(HOME)
    assert len(shots) == 8837
    assert not {doc.question for doc in shots} & {doc.question for doc in read_triviaqa(HOME)}
    assert not any('""' in doc.question for doc in shots)
    assert len(read_naturalquestions_shots(HOME)) == 8757


def test_quac() -> None:
    needs("quac/quac_first3turns.jsonl")
    quac = read_quac(HOME)
    if quac.is_whole:
        pytest.skip("the whole set was brought: these counts are of the part")
    turns = [turn for dialogue in quac.dialogues for turn in dialogue.turns]
    assert len(turns) == 3000
    assert sum(turn.references == ("CANNOTANSWER",) for turn in turns) == 451
    assert all(reference in dialogue.passage for dialogue in quac.dialogues for turn in dialogue.turns
               for reference in turn.references if reference != "CANNOTANSWER")  # fmt: skip
    # A person's own answer, left out in turn, scores as well as people agree.
    assert all(0 <= quac_f1(turn.shown, turn.references) <= 1 and 0 <= human_f1(turn.references) <= 1 for turn in turns)


def test_maths() -> None:
    r"""Every answer is in a form that stays, equals itself as the solution has it, and no two numbers are confused."""
    needs("math/test.jsonl.gz")
    docs = read_math(HOME)
    assert len(docs) == 5000
    assert all(doc.answer for doc in docs)
    assert all(is_equal(doc.answer, doc.answer) for doc in docs)
    assert sum(normalise(doc.answer) != doc.answer for doc in docs) <= 1
    answers = sorted({doc.answer for doc in docs if doc.answer.lstrip("-").isdecimal()}, key=int)
    assert not any(is_equal(one, other) for one, other in pairwise(answers))


def test_xstest() -> None:
    needs("xstest/xstest_v2_completions_mistralguard.csv", "xstest/xstest_v2_completions_mistralinstruct.csv")
    for guarded, refused, complied in ((False, 47, 128), (True, 175, 7)):
        unsafe = [doc for doc in read_xstest_completions(HOME, guarded=guarded) if not doc.is_safe]
        labels = Counter(doc.final for doc in unsafe)
        assert (labels["full_refusal"], labels["full_compliance"]) == (refused, complied)


@pytest.mark.timeout(1200)
def test_reference_solutions_pass() -> None:
    """164 of HumanEval and 427 of MBPP: the sandbox hinders nothing that honest programs do."""
    needs("humaneval/test.jsonl.gz", "mbpp/sanitized-mbpp.json")
    programs = {
        doc.id: humaneval_program(doc.prompt, doc.solution, doc.test, doc.entry_point) for doc in read_humaneval(HOME)
    }
    programs |= {f"MBPP/{doc.id}": mbpp_program(doc.code, doc.tests, doc.set_up) for doc in read_mbpp(HOME)}
    assert len(programs) == 164 + 427
    try:
        sandbox = Sandbox()
    except SandboxError as error:
        pytest.skip(str(error))
    verdicts = sandbox.run_all(list(programs.values()))
    assert [(name, verdict.why) for name, verdict in zip(programs, verdicts, strict=True) if not verdict.passed] == []
