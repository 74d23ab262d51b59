"""Every benchmark's protocol: the very prompts, and what answers are worth."""

import pytest

from circius.base.errors import DataError, InvalidInputError
from circius.evals.engine_model import EngineModel
from circius.evals.item import Ask, Choices, ChoicesAnswer, Sample, Text, TextAnswer
from circius.evals.model import answer_all
from circius.evals.questions import Exam
from circius.evals.task import Judged, Sources
from circius.evals.tasks import NAMES, OF_A_TEXT, SUITES, find_suite, make_task
from circius.evals.tasks.settings import Settings

GREEDY = Settings(samples=0)


def _exam(name: str, small: Sources, settings: Settings = GREEDY) -> Exam:
    return Exam.of(make_task(name, settings), small)


def _asks(name: str, small: Sources, item: int = 0, settings: Settings = GREEDY) -> tuple[Ask, ...]:
    exam = _exam(name, small, settings)
    return exam.question(exam.items[item]).asks


def _choices(name: str, small: Sources, place: int = 0) -> Choices:
    ask = _asks(name, small)[place]
    assert isinstance(ask, Choices)
    return ask


def _text(name: str, small: Sources, item: int = 0) -> Text:
    (ask,) = _asks(name, small, item)
    assert isinstance(ask, Text)
    return ask


def _wrote(*texts: str) -> TextAnswer:
    return TextAnswer(samples=tuple(Sample(text=text, logprob=-1.0) for text in texts))


def _judged(name: str, small: Sources, *answers: TextAnswer, item: int = 0, settings: Settings = GREEDY) -> Judged:
    exam = _exam(name, small, settings)
    return exam.task.judge(exam.items[item], list(answers))


@pytest.mark.parametrize(
    ("name", "context", "continuations", "unconditional"),
    [
        (
            "hellaswag",
            "Baking bread: How to bake bread. Knead the dough. The baker",
            (" puts it into the oven.", "  Sells the oven.", " reads a book.", " flies away."),
            "Answer:",
        ),
        ("piqa", "Question: Open a jar\nAnswer:", (" Turn the lid.", " Shout at the lid."), "Answer:"),
        ("siqa", "Q: Kim lent Lee a pen. How does Lee feel?\nA:", (" cheated", " thankful", " asleep"), "Answer:"),
        ("openbookqa", "What do bees make?", (" honey", " milk", " paper", " salt"), "Answer:"),
        ("arc_easy", "Question: What do bees make?\nAnswer:", (" honey", " milk", " paper", " salt"), "Answer:"),
        ("boolq", "Snow is white.\nQuestion: is snow white?\nAnswer:", (" no", " yes"), "Answer:"),
    ],
)
def test_choices_after_one_context(
    name: str, context: str, continuations: tuple[str, ...], unconditional: str, small: Sources
) -> None:
    assert _choices(name, small) == Choices.after(context, continuations, unconditional)


def test_winogrande_asks_for_the_rest_after_each_name(small: Sources) -> None:
    assert _choices("winogrande", small) == Choices(
        contexts=("Ann thanked Beth because Ann", "Ann thanked Beth because Beth"),
        continuations=(" had helped.", " had helped."),
    )


def test_commonsenseqa_asks_for_texts_and_for_letters(small: Sources) -> None:
    assert _choices("commonsenseqa", small).continuations == (" honey", " milk", " paper", " salt", " steel")
    letters = _choices("commonsenseqa", small, 1)
    assert letters.contexts[0].endswith("make?\nA. honey\nB. milk\nC. paper\nD. salt\nE. steel\nAnswer:")
    assert letters.continuations == (" A", " B", " C", " D", " E")


def test_mmlu_has_five_shots_of_its_subject(small: Sources) -> None:
    context = _choices("mmlu", small).contexts[0]
    shot = "Which is a colour?\nA. red\nB. ten\nC. run\nD. sad\nAnswer:"
    head = "The following are multiple choice questions (with answers) about high school art.\n\n"
    assert context == head + f"{shot} A\n\n" * 5 + shot


def test_open_questions_have_five_shots_in_llamas_form(small: Sources) -> None:
    ask = _text("naturalquestions", small)
    shots = "".join(f"Q: who was number {n}\nA: Number {n}\n" for n in range(5))
    assert ask.prompt == f"Answer these questions:\n{shots}Q: who wrote Emma\nA:"
    assert (ask.stop, ask.max_tokens, ask.is_greedy) == (("\n",), 32, True)


def test_quac_shows_the_turns_before_with_gold_answers(small: Sources) -> None:
    head = "Context: Ada was born in Turin. She sailed.\n"
    asked = ("where was Ada born?", "did she sail?", "what was her hat like?")
    assert _text("quac", small).prompt == f"{head}\nQuestion: {asked[0]}\nAnswer:"
    assert _text("quac", small, 2).prompt == (
        f"{head}\nQuestion: {asked[0]}\nAnswer: Turin\n\nQuestion: {asked[1]}\nAnswer: She sailed\n"
        f"\nQuestion: {asked[2]}\nAnswer:"
    )


def test_bbh_shows_bare_answers_and_the_other_reasoning(small: Sources) -> None:
    direct, cot = _text("bbh", small), _text("bbh_cot", small)
    assert direct.prompt.startswith("About boolean_expressions.\n\nQ: Is 0 large?\nA: No\n\nQ: Is 1 large?\nA: No\n\n")
    assert direct.prompt.endswith("\n\nQ: Is 0 small?\nA:")
    reasoned = "Q: Is 0 large?\nA: Let's think step by step.\n0 is not. So the answer is No.\n\nQ: Is 1"
    assert cot.prompt.startswith(f"About boolean_expressions.\n\n{reasoned}")
    assert cot.prompt.endswith("\n\nQ: Is 0 small?\nA: Let's think step by step.")


def test_agieval_has_the_official_form(small: Sources) -> None:
    likelihoods, written = _asks("agieval", small)
    assert isinstance(likelihoods, Choices)
    assert isinstance(written, Text)
    options = "Choose from the following options:    (A)one (B)two (C)three\n"
    assert written.prompt.startswith(
        f"Here are the answers for the problems in the exam.\nProblem 1.    What is 1?\n{options}"
        "The answer is therefore B\n\nProblem 2.    What is 2?\n"
    )
    assert written.prompt.endswith(f"\n\nProblem 4.    What is 0?\n{options}")
    assert likelihoods.contexts[0] == f"{written.prompt}The answer is therefore"
    assert likelihoods.continuations == (" A", " B", " C")


def test_votes_are_the_protocols_unless_the_user_says_otherwise(small: Sources) -> None:
    greedy, drawn = _asks("gsm8k", small, settings=Settings())
    assert isinstance(greedy, Text)
    assert isinstance(drawn, Text)
    assert greedy.prompt.count("Q: ") == 9
    assert greedy.prompt.endswith("The answer is 8.\n\nQ: Tom has 3 pears and buys 4. How many has he?\nA:")
    assert (drawn.n, drawn.temperature, drawn.top_p, drawn.stop) == (8, 0.6, 0.95, ("Q:",))
    (_, math) = _asks("math", small, settings=Settings())
    assert isinstance(math, Text)
    assert (math.n, math.stop) == (4, ("Problem:",))
    assert math.prompt.endswith("I hope it is correct.\n\nProblem:\nWhat is $1 + 1$?\n\nSolution:")
    (_, own) = _asks("gsm8k", small, settings=Settings(samples=3, temperature=1.5, top_p=1.0))
    assert isinstance(own, Text)
    assert (own.n, own.temperature, own.top_p) == (3, 1.5, 1.0)
    assert len(_asks("gsm8k", small)) == 1


def test_samples_have_seeds_of_their_items(small: Sources) -> None:
    def seeds(seed: int) -> list[int | None]:
        exam = Exam.of(make_task("gsm8k", Settings()), small, seed=seed)
        return [ask.seed for item in exam.items for ask in exam.question(item).asks if isinstance(ask, Text)]

    assert seeds(0) == seeds(0)
    assert set(seeds(0)) & set(seeds(1)) == {None}
    assert len(set(seeds(0))) == 4  # None for the greedy ones


def test_programs_are_asked_for_in_their_form(small: Sources) -> None:
    code = _text("humaneval", small)
    assert (code.prompt, code.max_tokens) == ('def double(x):\n    """Twice x."""\n', 1024)
    assert code.stop == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    mbpp = _text("mbpp", small)
    assert mbpp.prompt.count("[DONE]\n\n") == 3
    assert mbpp.prompt.endswith("your task: Write a function to add 6. Your code should pass these tests:\n\n"
                                "assert add(1) == 7\n[BEGIN]\n")  # fmt: skip
    assert [item.doc.task_id for item in _exam("mbpp", small).items] == [6, 11, 12, 600]


@pytest.mark.parametrize(
    ("name", "item", "wrote", "values"),
    [
        ("naturalquestions", 0, " The Austen.\nQ: and", {"exact_match": 1.0, "f1": 1.0}),
        ("triviaqa", 0, " Jane Austen", {"exact_match": 0.0, "f1": pytest.approx(2 / 3)}),
        ("quac", 0, " in Turin", {"f1": pytest.approx((1 + 2 / 3) / 2)}),
        ("quac", 2, " Cannot answer.", {"f1": 1.0}),
        ("gsm8k", 0, " 3 + 4 = 7. The answer is 7.", {"maj@1": 1.0}),
        ("gsm8k", 0, " I do not know.", {"maj@1": 0.0}),
        ("math", 0, " Final Answer: The final answer is $2$. I hope it is correct.", {"maj@1": 1.0}),
        ("bbh", 0, " Yes\n\nQ: no", {"exact_match": 1.0}),
        ("bbh_cot", 2, " 2 is not. So the answer is No.", {"exact_match": 1.0}),
        ("bbh_cot", 2, " No.", {"exact_match": 0.0}),
    ],
)
def test_what_texts_are_worth(name: str, item: int, wrote: str, values: dict[str, float], small: Sources) -> None:
    assert _judged(name, small, _wrote(wrote), item=item).values == values


def test_samples_vote_and_what_cannot_be_read_does_not(small: Sources) -> None:
    voted = _judged("gsm8k", small, _wrote("The answer is 9."), _wrote("7", "what", "9", "so 7", "The answer is $7."))
    assert voted.values == {"maj@1": 0.0, "maj@5": 1.0, "mean@5": pytest.approx(3 / 5)}
    assert voted.said == {"maj@1": "9", "maj@5": "7", "samples": ["7", None, "9", "7", "7"]}


def test_the_likelier_answer_wins_a_tie_of_votes(small: Sources) -> None:
    drawn = TextAnswer(samples=(Sample(text="8", logprob=-9.0), Sample(text="7", logprob=-2.0)))
    assert _judged("gsm8k", small, _wrote("1"), drawn).values["maj@2"] == 1.0


def test_choices_are_judged_by_four_rules(small: Sources) -> None:
    exam = _exam("openbookqa", small)
    answer = ChoicesAnswer(
        logprobs=(-5.0, -2.0, -4.0, -8.0), is_greedy=(False,) * 4, unconditional=(-9.0, -3.0, -3.0, -3.0)
    )
    judged = exam.task.judge(exam.items[0], [answer])
    assert judged.values == {"raw": 0.0, "per_character": 0.0, "per_byte": 0.0, "minus_unconditional": 1.0}
    assert (judged.said, judged.gold) == ({"minus_unconditional": 0}, 0)


def test_programs_are_run_with_their_tests(small: Sources) -> None:
    ran: list[str] = []

    def run(programs: list[str]) -> list[tuple[bool, str]]:
        ran.extend(programs)
        return [("return 2 * x" in program, "AssertionError") for program in programs]

    settings = Settings(samples=4, run_programs=run)
    wrong, right = "    return x\n", "    return 2 * x\n\ndef other(): pass"
    judged = _judged("humaneval", small, _wrote(wrong), _wrote(right, wrong, wrong, wrong), settings=settings)
    assert judged.values == {"pass@1": 0.0, "sampled_pass@1": 0.25}
    assert len(ran) == 5
    assert ran[1].startswith('def double(x):\n    """Twice x."""\n    return 2 * x')
    assert ran[1].endswith("\n\ncheck(double)\n")
    assert "other" not in ran[1]


def test_mbpp_counts_its_test_split_and_all(small: Sources) -> None:
    settings = Settings(run_programs=lambda programs: [(True, "passed") for _ in programs])
    values = [_judged("mbpp", small, _wrote("x"), item=n, settings=settings).values for n in range(4)]
    assert values == [{"pass@1_of_424": 1.0}, *[{"pass@1_of_424": 1.0, "pass@1": 1.0}] * 2, {"pass@1_of_424": 1.0}]


def test_a_question_on_which_people_disagree_does_not_count(small: Sources) -> None:
    exam = _exam("quac", small)
    asked = exam.items[0].doc
    turn = asked.dialogue.turns[0]
    object.__setattr__(turn, "references", ("a city", "the south of France", "nobody knows"))
    judged = exam.task.judge(exam.items[0], [_wrote("Turin")])
    assert judged.values == {}
    assert judged.left_out


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_A_TEXT])
def test_every_task_asks_a_model_and_judges_it(name: str, small: Sources, tiny: EngineModel) -> None:
    """The real engine on a random model: what it says is nonsense, and is judged as such."""
    settings = Settings(samples=0, run_programs=lambda programs: [(False, "not run") for _ in programs])
    exam = Exam.of(make_task(name, settings), small, limit=1)
    asks = [_short(ask) for ask in exam.question(exam.items[0]).asks]
    judged = exam.task.judge(exam.items[0], answer_all(tiny, asks))
    assert all(0 <= value <= 1 for value in judged.values.values())
    assert judged.values or judged.left_out
    assert exam.task.primary.removeprefix("macro_") in judged.values or judged.left_out or name == "mbpp"


def _short(ask: Ask) -> Ask:
    if isinstance(ask, Text):
        return Text(prompt=ask.prompt, stop=ask.stop, max_tokens=12)
    return ask


def test_suites_name_tasks_that_exist() -> None:
    for suite in SUITES.values():
        assert set(suite.tasks) <= set(NAMES)
    assert len(set(SUITES["paper"].tasks)) == 19 + 1  # BBH is there twice


def test_unknown_names_say_what_is_near() -> None:
    with pytest.raises(InvalidInputError, match="did you mean hellaswag"):
        make_task("helaswag", Settings())
    with pytest.raises(InvalidInputError, match="did you mean paper"):
        find_suite("papper")


def test_missing_data_say_how_to_get_them(tmp_path: object) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    with pytest.raises(DataError, match="circius data eval hellaswag"):
        Exam.of(make_task("hellaswag", Settings()), Sources(home=tmp_path))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [({"samples": -1}, "samples must be 0"), ({"temperature": 0.0}, "temperature above 0"), ({"top_p": 0.0}, "top_p")],
)
def test_settings_out_of_range_are_refused(given: dict[str, float], complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        Settings(**given)  # type: ignore[arg-type]
