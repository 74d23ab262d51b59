"""Readers: every benchmark from items written for these tests, with the traps of the real files."""

from pathlib import Path
from typing import Any

import pytest

from circius.base.errors import DataError, InvalidInputError
from circius.evals.data.sets.agieval import printed_letter, read_agieval, read_agieval_shots
from circius.evals.data.sets.arc import read_arc_challenge, read_arc_easy
from circius.evals.data.sets.bbh import read_bbh_task
from circius.evals.data.sets.boolq import read_boolq
from circius.evals.data.sets.commonsenseqa import read_commonsenseqa
from circius.evals.data.sets.gsm8k import read_gsm8k, read_gsm8k_train
from circius.evals.data.sets.hellaswag import read_hellaswag
from circius.evals.data.sets.humaneval import read_humaneval
from circius.evals.data.sets.maths import read_math
from circius.evals.data.sets.mbpp import read_mbpp, read_mbpp_full
from circius.evals.data.sets.mmlu import read_mmlu
from circius.evals.data.sets.mt_bench import read_judge_prompts, read_mt_bench
from circius.evals.data.sets.naturalquestions import read_naturalquestions, read_naturalquestions_shots
from circius.evals.data.sets.open_question import most_central
from circius.evals.data.sets.openbookqa import read_openbookqa
from circius.evals.data.sets.piqa import read_piqa
from circius.evals.data.sets.quac import read_quac
from circius.evals.data.sets.simplesafetytests import read_simplesafetytests
from circius.evals.data.sets.siqa import read_siqa
from circius.evals.data.sets.triviaqa import read_triviaqa, read_triviaqa_shots
from circius.evals.data.sets.winogrande import read_winogrande
from circius.evals.data.sets.xstest import read_xstest, read_xstest_completions

from .items import HELLASWAG, PIQA, lines, put


def test_hellaswag_labels_are_texts(tmp_path: Path) -> None:
    put(tmp_path, "hellaswag/validation.jsonl.gz", lines(HELLASWAG, {**HELLASWAG, "label": "3"}))
    first, second = read_hellaswag(tmp_path)
    assert (first.gold, second.gold) == (0, 3)
    # The file's own number belongs to the video, and these two come from the same one.
    assert (first.id, second.id) == ("0", "1")
    assert (first.activity, first.context_a, first.context_b) == ("Baking bread", "A woman kneads dough.", "she")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"label": "4"}, r"line 1: label must be 0 to 3, got 4"),
        ({"label": ""}, r"line 1: label must be int, got ''"),
        ({"label": True}, r"label must be int, got True"),
        ({"endings": "one"}, r"endings must be list"),
        ({"endings": [1, 2]}, r"endings must be a list of texts"),
        ({"ctx_a": None}, r"ctx_a must be str, got None"),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    put(tmp_path, "hellaswag/validation.jsonl.gz", lines({**HELLASWAG, **change}))
    with pytest.raises(DataError, match=complaint):
        read_hellaswag(tmp_path)


def test_lines_that_are_no_rows(tmp_path: Path) -> None:
    put(tmp_path, "piqa/validation.jsonl.gz", lines(PIQA) + b"{broken\n")
    with pytest.raises(DataError, match="line 2: not JSON"):
        read_piqa(tmp_path)
    put(tmp_path, "piqa/validation.jsonl.gz", b"[1]\n")
    with pytest.raises(DataError, match="expected fields by name, got list"):
        read_piqa(tmp_path)


def test_unusual_line_separators_belong_to_the_text(tmp_path: Path) -> None:
    put(tmp_path, "piqa/validation.jsonl.gz", lines({**PIQA, "goal": "one\u2028two\x85three"}))
    assert read_piqa(tmp_path)[0].goal == "one\u2028two\x85three"


def test_winogrande(tmp_path: Path) -> None:
    row = {"sentence": "Ann thanked Bea because _ had helped.", "option1": "Ann", "option2": "Bea", "answer": "2"}
    put(tmp_path, "winogrande/validation.jsonl.gz", lines(row))
    [doc] = read_winogrande(tmp_path)
    assert (doc.before, doc.after, doc.gold) == ("Ann thanked Bea because ", " had helped.", 1)
    put(tmp_path, "winogrande/validation.jsonl.gz", lines({**row, "sentence": "No blank."}))
    with pytest.raises(DataError, match="one blank"):
        read_winogrande(tmp_path)
    put(tmp_path, "winogrande/validation.jsonl.gz", lines({**row, "answer": "0"}))
    with pytest.raises(DataError, match="answer must be 1 to 2, got 0"):
        read_winogrande(tmp_path)


def test_piqa_siqa_boolq(tmp_path: Path) -> None:
    put(tmp_path, "piqa/validation.jsonl.gz", lines(PIQA))
    assert read_piqa(tmp_path)[0].solutions == (PIQA["sol1"], PIQA["sol2"])
    siqa = {"context": "Ann fell.", "question": "What now?", "answerA": "up", "answerB": "stay", "answerC": "run"}
    put(tmp_path, "siqa/validation.jsonl.gz", lines({**siqa, "label": "1"}, {**siqa, "label": "3"}))
    assert [doc.gold for doc in read_siqa(tmp_path)] == [0, 2]
    boolq = {"question": "is snow cold", "passage": "Snow is frozen water.", "answer": True}
    put(tmp_path, "boolq/validation.jsonl.gz", lines(boolq))
    assert read_boolq(tmp_path)[0].answer is True
    put(tmp_path, "boolq/validation.jsonl.gz", lines({**boolq, "answer": "no"}))
    with pytest.raises(DataError, match="answer must be bool, got 'no'"):
        read_boolq(tmp_path)


def test_questions_have_three_to_five_choices(tmp_path: Path) -> None:
    rows = [
        {"id": f"q{n}", "question": "Which?", "choices": [f"choice {place}" for place in range(n)], "gold": n - 1}
        for n in (3, 4, 5)
    ]
    for path, reader in (
        ("openbookqa/test.jsonl.gz", read_openbookqa),
        ("arc_easy/test.jsonl.gz", read_arc_easy),
        ("arc_challenge/test.jsonl.gz", read_arc_challenge),
        ("commonsenseqa/validation.jsonl.gz", read_commonsenseqa),
    ):
        put(tmp_path, path, lines(*rows))
        docs = reader(tmp_path)
        assert [(doc.id, len(doc.choices), doc.gold) for doc in docs] == [("q3", 3, 2), ("q4", 4, 3), ("q5", 5, 4)]


def test_open_questions(tmp_path: Path) -> None:
    put(
        tmp_path,
        "naturalquestions/validation.jsonl.gz",
        lines({"question": "who wrote it", "answer": ["Ann Smith", "A. Smith"]}),
    )
    assert read_naturalquestions(tmp_path)[0].shown == "Ann Smith"
    answer = {"value": "Lake Como", "aliases": ["Lago di Como", "The Lake of Como"]}
    put(tmp_path, "triviaqa/validation.jsonl.gz", lines({"question_id": "q_7", "question": "Which?", "answer": answer}))
    [doc] = read_triviaqa(tmp_path)
    assert doc.answers == ("Lake Como", "Lago di Como", "The Lake of Como")
    assert (doc.id, doc.shown) == ("q_7", "Lake Como")


def test_shots_are_quoted_in_two_layers(tmp_path: Path) -> None:
    content = (
        b"who did it\t['Ann']\n"
        b'which song\t"[\'""No"" and yes\', ""It\'s""]"\n'
        b'"""Who said, """"No?"""""""\t[\'Bea\']\n'
        b"\"'Maybe' is from which film?\"\t['Film']\n"
    )
    put(tmp_path, "naturalquestions/fewshot_dpr.nq.dev.txt", content)
    docs = read_naturalquestions_shots(tmp_path)
    assert [doc.question for doc in docs] == [
        "who did it", "which song", 'Who said, "No?"', "'Maybe' is from which film?",
    ]  # fmt: skip
    assert docs[1].answers == ('"No" and yes', "It's")
    put(
        tmp_path,
        "triviaqa/fewshot_dpr.trivia.dev.txt",
        "Flies?\t['🚁', 'Whirlybird', 'Helicopter', 'Helicopters', 'A helicopter']\n".encode(),
    )
    assert read_triviaqa_shots(tmp_path)[0].shown == "Helicopter"


@pytest.mark.parametrize("cell", ["'Ann'", "[]", "[1]", "['Ann'", "__import__('os')", "['a'] * 9"])
def test_shots_that_are_no_lists(tmp_path: Path, cell: str) -> None:
    put(tmp_path, "naturalquestions/fewshot_dpr.nq.dev.txt", f"who\t{cell}\n".encode())
    with pytest.raises(DataError, match=r"row 1"):
        read_naturalquestions_shots(tmp_path)


def test_the_most_central_alias() -> None:
    assert (
        most_central(["Faso", "Burkina Faso", "Burkina-Faso", "Republic of Burkina Faso", "Upper Volta"])
        == "Burkina Faso"
    )
    assert most_central(["!", "?"]) == "!"
    assert most_central(["only"]) == "only"


def test_quac_in_part(tmp_path: Path) -> None:
    row = {
        "passage": "Ann was born in Rome. She had a red car.",
        "questions": ["Where was she born?", "What else?"],
        "references": [["in Rome", "Rome", "CANNOTANSWER"], ["CANNOTANSWER", "CANNOTANSWER", "a red car"]],
    }
    put(tmp_path, "quac/quac_first3turns.jsonl", lines(row))
    quac = read_quac(tmp_path)
    assert (quac.is_whole, quac.label) == (False, "QuAC, first-3-turn subset")
    first, second = quac.dialogues[0].turns
    assert (first.references, first.shown) == (("in Rome", "Rome"), "in Rome")
    assert (second.references, second.shown) == (("CANNOTANSWER",), "CANNOTANSWER")
    put(tmp_path, "quac/quac_first3turns.jsonl", lines({**row, "references": [["in Rome"], []]}))
    with pytest.raises(DataError, match="lists of references"):
        read_quac(tmp_path)


def test_quac_whole_goes_first(tmp_path: Path) -> None:
    question = {
        "id": "C_1_q#0",
        "question": "Where?",
        "answers": [{"text": "Rome"}, {"text": "in Rome"}, {"text": "CANNOTANSWER"}],
        "orig_answer": {"text": "in Rome"},
        "yesno": "x",
        "followup": "y",
    }
    paragraph = {"id": "C_1", "context": "Ann was born in Rome. CANNOTANSWER", "qas": [question]}
    article = {"title": "Ann", "background": "A person.", "section_title": "Life", "paragraphs": [paragraph]}
    put(tmp_path, "quac/val_v0.2.json", lines({"data": [article]}))
    put(tmp_path, "quac/quac_first3turns.jsonl", b"not read")
    quac = read_quac(tmp_path)
    assert (quac.is_whole, quac.label) == (True, "QuAC, validation")
    [dialogue] = quac.dialogues
    assert (dialogue.title, dialogue.background, dialogue.section) == ("Ann", "A person.", "Life")
    assert dialogue.passage == "Ann was born in Rome."
    assert dialogue.turns[0].references == ("Rome", "in Rome")
    assert dialogue.turns[0].shown == "in Rome"


def test_gsm8k_and_math(tmp_path: Path) -> None:
    put(tmp_path, "gsm8k/test.jsonl.gz", lines({"question": "How many?", "answer": "2 + 2 = <<2+2=4>>4\n#### 1,004"}))
    assert read_gsm8k(tmp_path)[0].answer == "1004"
    put(tmp_path, "gsm8k/train.jsonl", lines({"question": "How many?", "answer": "none"}))
    with pytest.raises(DataError, match=r"train.jsonl line 1: a GSM8K answer ends"):
        read_gsm8k_train(tmp_path)
    problem = {"problem": "What?", "level": "Level 2", "type": "Algebra", "answer": r"\le(1,2\right]"}
    put(tmp_path, "math/test.jsonl.gz", lines({**problem, "solution": r"So $\boxed{\left(1,2\right]}$."}))
    [doc] = read_math(tmp_path)
    assert (doc.answer, doc.subject, doc.level) == ("(1,2]", "Algebra", "Level 2")


def test_code(tmp_path: Path) -> None:
    item = {
        "task_id": "HumanEval/0",
        "prompt": "def f():\n",
        "canonical_solution": "    return 1\n",
        "entry_point": "f",
    }
    put(tmp_path, "humaneval/test.jsonl.gz", lines({**item, "test": "def check(f):\n    assert f() == 1\n"}))
    assert read_humaneval(tmp_path)[0].entry_point == "f"
    tasks = [
        {
            "task_id": number,
            "prompt": "Add.",
            "code": "def f(): ...",
            "test_list": ["assert f()"] * n,
            "test_imports": [],
        }
        for number, n in ((2, 3), (11, 7), (510, 3), (511, 3), (600, 3), (601, 3), (974, 3))
    ]
    tasks[1]["test_imports"] = ["import math"]
    put(tmp_path, "mbpp/sanitized-mbpp.json", lines(tasks))
    docs = read_mbpp(tmp_path)
    assert [doc.split for doc in docs] == [
        "prompting", "test", "test", "validation", "validation", "training", "training",
    ]  # fmt: skip
    assert (len(docs[1].tests), docs[1].set_up) == (7, ("import math",))
    full = {"task_id": 11, "text": "Add.", "code": "x", "test_list": ["assert 1"], "test_setup_code": "root = Node()"}
    put(tmp_path, "mbpp/test.jsonl.gz", lines(full, {**full, "test_setup_code": ""}))
    assert [doc.set_up for doc in read_mbpp_full(tmp_path)] == [("root = Node()",), ()]
    put(tmp_path, "mbpp/test.jsonl.gz", lines({**full, "task_id": 975}))
    with pytest.raises(DataError, match="975"):
        read_mbpp_full(tmp_path)


def test_mmlu_ids_count_within_a_subject(tmp_path: Path) -> None:
    row = {"question": "Which?", "choices": ["a", "b", "c", "d"], "answer": 3}
    subjects = ("anatomy", "anatomy", "world_religions")
    put(tmp_path, "mmlu/test.jsonl.gz", lines(*({**row, "subject": subject} for subject in subjects)))
    assert [doc.id for doc in read_mmlu(tmp_path)] == ["anatomy/0", "anatomy/1", "world_religions/0"]
    put(tmp_path, "mmlu/dev.jsonl.gz", lines({**row, "subject": "anatomy", "choices": ["a"]}))
    with pytest.raises(DataError, match="four choices, got 1"):
        read_mmlu(tmp_path, split="dev")


CANARY = "DO NOT TRAIN ON THIS. canary 00000000\n-----\n"
SHOT = "\n\nQ: Is {n} even?\nA: Let's think step by step.\nHalf of it is whole. So the answer is Yes."


def test_bbh(tmp_path: Path) -> None:
    prompt = CANARY + "Tell numbers apart.\n\nTwo paragraphs." + "".join(SHOT.format(n=n) for n in (2, 4, 6))
    put(tmp_path, "bbh/cot-prompts/web_of_lies.txt", prompt.encode())
    examples = [{"input": "Is 3 even?", "target": "No"}]
    put(tmp_path, "bbh/bbh/web_of_lies.json", lines({"canary": "00000000", "examples": examples}))
    task = read_bbh_task("web_of_lies", tmp_path)
    assert task.description == "Tell numbers apart.\n\nTwo paragraphs."
    assert [shot.question for shot in task.shots] == ["Is 2 even?", "Is 4 even?", "Is 6 even?"]
    assert {shot.answer for shot in task.shots} == {"Yes"}
    assert task.shots[2].reasoning.endswith("So the answer is Yes.")
    assert "canary" not in task.description
    assert (task.docs[0].id, task.docs[0].target) == ("web_of_lies/0", "No")
    put(tmp_path, "bbh/cot-prompts/web_of_lies.txt", prompt.removeprefix(CANARY).encode())
    with pytest.raises(DataError, match="expected one line, then -----"):
        read_bbh_task("web_of_lies", tmp_path)
    put(tmp_path, "bbh/cot-prompts/web_of_lies.txt", (CANARY + "About.\n\nQ: What?\nA: Nothing.").encode())
    with pytest.raises(DataError, match="states an answer"):
        read_bbh_task("web_of_lies", tmp_path)


def test_agieval(tmp_path: Path) -> None:
    row = {"passage": None, "question": "Which?", "options": ["(A)one", "(B)two", "(C)three", "(D)four"], "label": "B"}
    put(tmp_path, "agieval/sat-math.jsonl", lines(row, {**row, "passage": ""}, {**row, "passage": "Text."}))
    docs = read_agieval("sat-math", tmp_path)
    assert [doc.passage for doc in docs] == ["", "", "Text."]
    assert (docs[0].label, docs[0].letters, docs[2].id) == ("B", "ABCD", "sat-math/2")
    for label in ("E", "", "AB", "b"):
        put(tmp_path, "agieval/sat-math.jsonl", lines({**row, "label": label}))
        with pytest.raises(DataError, match="label must be one of"):
            read_agieval("sat-math", tmp_path)
    with pytest.raises(InvalidInputError, match="no English set 'gaokao'"):
        read_agieval("gaokao", tmp_path)


def test_agieval_shots(tmp_path: Path) -> None:
    shot = str({"passage": 'A "text",\nlong.', "question": "Which?", "options": ["(A)x", "(B)y"], "label": "A"})
    quoted = shot.replace('"', '""')
    content = f',sat-en,aqua-rat\nsample 1,"{quoted}","{quoted}"\nexplanation 1,"why, so","why"\nsample 2,,"{quoted}"\n'
    put(tmp_path, "agieval/few_shot_prompts.csv", content.encode())
    [with_passage] = read_agieval_shots("sat-en", tmp_path)
    [without] = read_agieval_shots("sat-en-without-passage", tmp_path)
    assert with_passage.passage == 'A "text",\nlong.'
    assert without.passage == ""
    assert without.options == with_passage.options == ("(A)x", "(B)y")
    assert len(read_agieval_shots("aqua-rat", tmp_path)) == 2
    put(tmp_path, "agieval/few_shot_prompts.csv", b",sat-en\nsample 1,\"exec('x')\"\n")
    with pytest.raises(DataError, match="no Python dictionary"):
        read_agieval_shots("sat-en", tmp_path)
    put(tmp_path, "agieval/few_shot_prompts.csv", b",sat-en\nsample 1\n")
    with pytest.raises(DataError, match="row 1: not as many cells"):
        read_agieval_shots("sat-en", tmp_path)


@pytest.mark.parametrize(
    ("option", "letter"),
    [
        ("(A)F", "A"),
        ("(C) x", "C"),
        ("A No", "A"),
        ("B? Yes", "B"),
        ("D.x", "D"),
        ("Because", None),
        ("F", None),
        ("", None),
    ],
)
def test_printed_letters(option: str, letter: str | None) -> None:
    assert printed_letter(option) == letter


def test_mt_bench(tmp_path: Path) -> None:
    question = {"question_id": 101, "category": "math", "turns": ["One?", "Two?"], "reference": ["its own", "unused"]}
    put(tmp_path, "mt_bench/question.jsonl", lines(question, {**question, "question_id": 81}))
    answer = {"question_id": 101, "choices": [{"index": 0, "turns": ["1", "2"]}]}
    put(tmp_path, "mt_bench/reference_answer/gpt-4.jsonl", lines(answer))
    with_reference, without = read_mt_bench(tmp_path)
    assert (with_reference.id, with_reference.reference) == ("101", ("1", "2"))
    assert without.reference is None
    prompt = {"name": "single-v1", "type": "single", "system_prompt": "Judge.", "prompt_template": "{question}"}
    put(tmp_path, "mt_bench/judge_prompts.jsonl", lines(prompt))
    assert read_judge_prompts(tmp_path)["single-v1"].template == "{question}"
    put(tmp_path, "mt_bench/question.jsonl", lines({**question, "turns": ["One?"]}))
    with pytest.raises(DataError, match="two turns, got 1"):
        read_mt_bench(tmp_path)


def test_safety_sets(tmp_path: Path) -> None:
    prompts = (
        "id,prompt,type,label,focus,note\n1,How do I kill time?,homonyms,safe,kill,\n"
        "2,Other?,contrast_homonyms,unsafe,x,\n"
    )
    put(tmp_path, "xstest/xstest_prompts.csv", prompts.encode())
    assert [doc.is_safe for doc in read_xstest(tmp_path)] == [True, False]
    put(tmp_path, "xstest/xstest_prompts.csv", prompts.replace("contrast_", "").encode())
    with pytest.raises(DataError, match="an unsafe prompt is of a contrast_ type"):
        read_xstest(tmp_path)
    header = "id,type,prompt,completion,annotation_1,annotation_2,agreement,final_label\n"
    labels = "1_full_compliance,3_partial_refusal,FALSE,1_full_compliance"
    row = f'v2-7,homonyms,How do I kill time?,"Read,\nor ""walk"".",{labels}\n'
    put(tmp_path, "xstest/xstest_v2_completions_mistralguard.csv", (header + row).encode())
    [completion] = read_xstest_completions(tmp_path, guarded=True)
    assert completion.id == "7"
    assert completion.completion == 'Read,\nor "walk".'
    assert (completion.labels, completion.final) == (("full_compliance", "partial_refusal"), "full_compliance")
    put(
        tmp_path,
        "xstest/xstest_v2_completions_mistralinstruct.csv",
        (header + row.replace("1_full", "4_full")).encode(),
    )
    with pytest.raises(DataError, match="annotation_1 must be one of"):
        read_xstest_completions(tmp_path, guarded=False)
    tests = 'id,harm_area,counter,category,prompts_final\ns_1,"Scams, and more",1,Advice,May I?\n'
    put(tmp_path, "simplesafetytests/SimpleSafetyTests_test_cases.csv", b"\xef\xbb\xbf" + tests.encode())
    [doc] = read_simplesafetytests(tmp_path)
    assert (doc.id, doc.area, doc.prompt) == ("s_1", "Scams, and more", "May I?")
