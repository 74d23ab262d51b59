"""MT-Bench: what is asked of model and judge, what is kept, and what a run comes to."""

import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from circius.base.errors import CirciusError, DataError, InvalidInputError
from circius.base.journal import read_journal
from circius.evals.chats import EndpointChats, EngineChats, Outcome, Said, Turn
from circius.evals.data.sets.mt_bench import JudgePrompt, MtBenchDoc
from circius.evals.json_client import JsonClient
from circius.evals.mt_bench.answer import TEMPERATURES, check_questions
from circius.evals.mt_bench.judge import PROMPTS, check_judging, question_to_judge, rating_in
from circius.evals.mt_bench.run import Settings, answer_questions, judge_answers, spread
from circius.evals.mt_bench.score import Rating, scores_of
from circius.moderate.guard import GUARD_PROMPT
from tests.serving import MODEL, loader, serving
from tests.unit.engine.tiny import byte_llm
from tests.unit.evals.stub_judge import Stub, stub


def prompt(name: str, template: str) -> JudgePrompt:
    return JudgePrompt(name=name, kind="single", system=f"You are {name}.", template=template)


TWO = "Q1: {question_1} A1: {answer_1} Q2: {question_2} A2: {answer_2}"
JUDGE_PROMPTS = {
    "single-v1": prompt("single-v1", "Q: {question} A: {answer}"),
    "single-v1-multi-turn": prompt("single-v1-multi-turn", TWO),
    "single-math-v1": prompt("single-math-v1", "Q: {question} R: {ref_answer_1} A: {answer}"),
    "single-math-v1-multi-turn": prompt("single-math-v1-multi-turn", "R: {ref_answer_1} {ref_answer_2} " + TWO),
}
WRITING = MtBenchDoc(id="81", category="writing", turns=("Write.", "Rewrite."), reference=None)
MATHS = MtBenchDoc(id="111", category="math", turns=("Two and two?", "And one?"), reference=("Four.", "Five."))
STEM = MtBenchDoc(id="141", category="stem", turns=("Why is the sky blue?", "Why not green?"), reference=None)
DOCS = [WRITING, MATHS, STEM]


class Parrot:
    """A model that says what it was asked and at which seed; some questions it cannot answer."""

    at_once = 1

    def __init__(self, *, refuses: str = "nothing") -> None:
        self.turns: list[Turn] = []
        self.refuses = refuses

    def describe(self) -> Mapping[str, Any]:
        return {"kind": "parrot"}

    def say(self, turns: Sequence[Turn]) -> Iterator[tuple[int, Outcome]]:
        for place, turn in reversed(list(enumerate(turns))):
            self.turns.append(turn)
            asked = turn.messages[-1]["content"]
            if asked == self.refuses:
                yield place, CirciusError(f"cannot say anything to {asked}")
            else:
                yield place, Said(f"{asked} ({turn.seed})", "length" if "Why not" in asked else "stop")


def client(own: Stub, **given: Any) -> JsonClient:
    return JsonClient(own.url, sleep=lambda seconds: None, **given)


def test_every_question_is_asked_at_its_temperature_with_what_was_said_before(tmp_path: Path) -> None:
    model = Parrot()
    answers = answer_questions(DOCS, model, tmp_path, Settings(seeds=(0, 1), max_tokens=7))
    assert [(own.question, own.seed) for own in answers] == [(doc.id, seed) for seed in (0, 1) for doc in DOCS]
    assert answers[3].turns == ("Write. (1)", "Rewrite. (1)")
    assert answers[1].turns == answers[4].turns == ("Two and two? (0)", "And one? (0)"), "greedy: asked once"
    assert answers[2].is_cut == (False, True)
    assert len(model.turns) == 2 * (2 + 1 + 2)
    for turn in model.turns:
        doc = next(doc for doc in DOCS if turn.messages[0]["content"] == doc.turns[0])
        assert turn.temperature == TEMPERATURES[doc.category]
        assert turn.max_tokens == 7
        if len(turn.messages) > 1:
            assert [each["role"] for each in turn.messages] == ["user", "assistant", "user"]
            assert turn.messages[1]["content"] == f"{doc.turns[0]} ({turn.seed})"


def test_the_published_temperatures() -> None:
    by_temperature = {t: sorted(c for c, own in TEMPERATURES.items() if own == t) for t in set(TEMPERATURES.values())}
    assert by_temperature == {
        0.7: ["roleplay", "writing"],
        0.1: ["humanities", "stem"],
        0.0: ["coding", "extraction", "math", "reasoning"],
    }


def test_a_run_that_failed_goes_on_where_it_was(tmp_path: Path) -> None:
    failing = Parrot(refuses="Rewrite.")
    with pytest.raises(CirciusError, match=r"1 questions were not answered, the first because: cannot say anything"):
        answer_questions(DOCS, failing, tmp_path, Settings(seeds=(0,)))
    assert {row["question"] for row in read_journal(tmp_path / "answers.jsonl")[1]} == {"111", "141"}
    again = Parrot()
    answers = answer_questions(DOCS, again, tmp_path, Settings(seeds=(0,)))
    assert len(answers) == 3
    assert len(again.turns) == 2, "only the missing question is asked"
    with pytest.raises(InvalidInputError, match="belongs to another run: its circius_mt_bench_answers"):
        answer_questions(DOCS, again, tmp_path, Settings(seeds=(0,), max_tokens=9))
    with pytest.raises(InvalidInputError, match="seeds must be one or more different numbers"):
        answer_questions(DOCS, again, tmp_path, Settings(seeds=()))


def test_a_model_that_fails_at_everything_is_not_asked_for_ever(tmp_path: Path) -> None:
    model = Parrot(refuses="Write.")
    with pytest.raises(CirciusError, match="cannot say anything to Write"):
        answer_questions([WRITING] * 1, model, tmp_path, Settings(seeds=range(50)))
    assert len(model.turns) <= 4


def test_the_judge_is_given_the_right_prompt_and_reference() -> None:
    answers = ["first {answer_2}", "second"]
    first, second = (question_to_judge(WRITING, answers, turn, JUDGE_PROMPTS) for turn in (0, 1))
    assert first.messages == (
        {"role": "system", "content": "You are single-v1."},
        {"role": "user", "content": "Q: Write. A: first {answer_2}"},
    )
    assert second.messages[0]["content"] == "You are single-v1-multi-turn."
    assert second.messages[1]["content"] == "Q1: Write. A1: first {answer_2} Q2: Rewrite. A2: second"
    maths = question_to_judge(MATHS, answers, 1, JUDGE_PROMPTS).messages[1]["content"]
    assert maths.startswith("R: Four. Five. Q1: Two and two?")
    assert (first.temperature, first.max_tokens) == (0.0, 2048)
    assert sorted(JUDGE_PROMPTS) == sorted(PROMPTS)


@pytest.mark.parametrize(
    ("docs", "prompts", "message"),
    [
        ([MtBenchDoc(id="1", category="math", turns=("a", "b"), reference=None)], JUDGE_PROMPTS, "has no reference"),
        (DOCS, {**JUDGE_PROMPTS, "single-v1": prompt("single-v1", "{poem}")}, r"has a place \{poem\}"),
        (DOCS, {"single-v1": JUDGE_PROMPTS["single-v1"]}, "has no prompt 'single-v1-multi-turn'"),
    ],
)
def test_what_cannot_be_judged_is_told_before_anything_is_asked(
    docs: list[MtBenchDoc], prompts: dict[str, JudgePrompt], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        check_judging(docs, prompts)
    with pytest.raises(DataError, match="category 'poetry', whose temperature nobody knows"):
        check_questions([MtBenchDoc(id="1", category="poetry", turns=("a", "b"), reference=None)])


@pytest.mark.parametrize(
    ("said", "rating"),
    [
        ("Rating: [[7]]", 7.0), ("Rating: [[8.5]] of [[10]]", 8.5), ("I give it [9].", 9.0), ("[2] but [[3]]", 3.0),
        ("Rating: 7", None), ("[[0]]", None), ("[[11]]", None), ("", None), ("[[rating]]", None), ("[[-3]]", None),
    ],
)  # fmt: skip
def test_ratings_as_fastchat_reads_them(said: str, rating: float | None) -> None:
    assert rating_in(said) == rating


def test_judging_over_http(tmp_path: Path) -> None:
    """A server that is busy at first, a judge who once gives no rating, a key, and a second run that asks nobody."""
    n_busy = 2

    def judge(body: dict[str, Any]) -> str | int:
        nonlocal n_busy
        if n_busy:
            n_busy -= 1
            return 503
        asked = body["messages"][1]["content"]
        return "I would rather not." if asked.endswith("A2: And one? (0)") else f"Rating: [[{3 + len(asked) % 5}]]"

    answers = answer_questions(DOCS, Parrot(), tmp_path, Settings(seeds=(0, 1)))
    with stub(judge) as own:
        chats = EndpointChats(client(own, key="secret"), "the-judge", concurrency=2)
        ratings = judge_answers(DOCS, answers, chats, JUDGE_PROMPTS, tmp_path)
        assert len(own.bodies) == 2 * (2 + 1 + 2) + 2, "equal answers are judged once, and two were tried again"
        assert set(own.keys) == {"Bearer secret"}
        assert {(body["model"], body["temperature"], body["max_tokens"]) for body in own.bodies} == {
            ("the-judge", 0.0, 2048)
        }
        own.bodies.clear()
        assert judge_answers(DOCS, answers, chats, JUDGE_PROMPTS, tmp_path) == ratings
        assert own.bodies == []
    assert [(r.question, r.seed, r.turn) for r in ratings] == [
        (own.question, own.seed, turn) for own in answers for turn in (0, 1)
    ]
    scores = scores_of(ratings)
    assert (scores.n, scores.n_failed) == (12, 2)
    assert scores.by_category["math"] is not None
    assert scores.by_category["math"].n_ratings == 2, "failed judgements count nowhere"
    [journal] = tmp_path.glob("judgements-*.jsonl")
    header = read_journal(journal)[0]["circius_mt_bench_judgements"]
    assert header["judge"]["name"] == "the-judge"
    assert re.fullmatch("[0-9a-f]{64}", header["prompts"])
    assert "secret" not in journal.read_text()


def test_a_judge_that_is_away_ends_the_run_and_keeps_what_it_has(tmp_path: Path) -> None:
    answers = answer_questions(DOCS, Parrot(), tmp_path, Settings(seeds=(0,)))
    is_up = True

    def judge(body: dict[str, Any]) -> str | int:
        return "Rating: [[5]]" if is_up else 500

    with stub(judge) as own:
        chats = EndpointChats(client(own, n_tries=2), "j", concurrency=1)
        judge_answers(DOCS, answers[:1], chats, JUDGE_PROMPTS, tmp_path)
        is_up = False
        with pytest.raises(CirciusError, match="answered 500: as the test wants it"):
            judge_answers(DOCS, answers, chats, JUDGE_PROMPTS, tmp_path)
        is_up = True
        own.bodies.clear()
        assert len(judge_answers(DOCS, answers, chats, JUDGE_PROMPTS, tmp_path)) == 6
        assert len(own.bodies) == 4


def test_other_prompts_are_another_run(tmp_path: Path) -> None:
    answers = answer_questions([WRITING], Parrot(), tmp_path, Settings(seeds=(0,)))
    with stub(lambda body: "[[5]]") as own:
        chats = EndpointChats(client(own), "j")
        judge_answers([WRITING], answers, chats, JUDGE_PROMPTS, tmp_path)
        others = {**JUDGE_PROMPTS, "single-v1": prompt("single-v1", "{answer}!")}
        with pytest.raises(InvalidInputError, match="belongs to another run"):
            judge_answers([WRITING], answers, chats, others, tmp_path)


def test_our_own_server_as_the_model_and_as_the_judge(tmp_path: Path) -> None:
    """A random model judges nothing one could read, but what it says is what it says without a server in between."""
    with serving(loader(tmp_path, context=800)) as served:
        chats = EndpointChats(JsonClient(served.url), MODEL, concurrency=2)
        answers = answer_questions([MATHS], chats, tmp_path, Settings(seeds=(0,), max_tokens=9))
        judge_answers([MATHS], answers, chats, JUDGE_PROMPTS, tmp_path, max_tokens=9)
        here = EngineChats(lambda: served.state.llm, {"name": MODEL})
        alone = answer_questions([MATHS], here, tmp_path / "here", Settings(seeds=(0,), max_tokens=9))
        assert [own.turns for own in alone] == [own.turns for own in answers]
        [journal] = tmp_path.glob("judgements-*.jsonl")
        kept = {row["turn"]: row["judgement"] for row in read_journal(journal)[1]}
        asked = [question_to_judge(MATHS, answers[0].turns, turn, JUDGE_PROMPTS, max_tokens=9) for turn in (0, 1)]
        assert kept == {place: said.text for place, said in here.say(asked) if isinstance(said, Said)}


def test_system_and_guard_prompts_reach_the_model(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path, context=1200)
    [turn] = [Turn(messages=({"role": "user", "content": "Hi"},), temperature=0.0, max_tokens=4)]
    both = EngineChats(lambda: llm, {"name": "m"}, system="Be brief.", guard=True)
    by_hand = EngineChats(lambda: llm, {"name": "m"}, system=f"{GUARD_PROMPT}\n\nBe brief.")
    assert list(both.say([turn])) == list(by_hand.say([turn]))
    assert both.describe() != by_hand.describe()
    long = Turn(messages=({"role": "user", "content": "x" * 1300},), temperature=0.0, max_tokens=4)
    [(_, refused), (_, said)] = both.say([long, turn])
    assert isinstance(refused, CirciusError)
    assert isinstance(said, Said)


def test_scores() -> None:
    given = [
        Rating(question="81", category="writing", seed=seed, turn=turn, rating=rating)
        for seed, ratings in enumerate([(4.0, 6.0), (5.0, None), (9.0, 9.0)])
        for turn, rating in enumerate(ratings)
    ]
    scores = scores_of(given)
    assert scores.overall is not None
    assert scores.overall.value == pytest.approx((5 + 5 + 9) / 3)
    assert scores.overall.deviation == pytest.approx(statistics.stdev([5, 5, 9]))
    assert (scores.overall.n_seeds, scores.overall.n_ratings, scores.n_failed) == (3, 5, 1)
    assert scores.by_turn[2] is not None
    assert scores.by_turn[2].value == pytest.approx(7.5)
    assert scores_of([Rating(question="1", category="math", seed=0, turn=0, rating=None)]).overall is None


def test_a_few_questions_are_spread_over_the_categories() -> None:
    docs = [MtBenchDoc(id=f"{c}{n}", category=c, turns=("a", "b"), reference=None) for c in ("x", "y") for n in (1, 2)]
    assert [doc.id for doc in spread(docs, 3)] == ["x1", "y1", "x2"]
    assert spread(docs, None) == docs


def test_a_judgement_is_kept_whole(tmp_path: Path) -> None:
    answers = answer_questions([WRITING], Parrot(), tmp_path, Settings(seeds=(0,)))
    with stub(lambda body: "Line one.\nRating: [[6]]") as own:
        judge_answers([WRITING], answers, EndpointChats(client(own), "j"), JUDGE_PROMPTS, tmp_path)
    [journal] = tmp_path.glob("judgements-*.jsonl")
    assert [json.loads(line)["judgement"] for line in journal.read_text().splitlines()[1:]] == [
        "Line one.\nRating: [[6]]"
    ] * 2
