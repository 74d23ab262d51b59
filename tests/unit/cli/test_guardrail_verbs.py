"""Measuring guardrails, verifying, MT-Bench and the arena by their verbs, in this process, a judge on loopback."""

import json
from pathlib import Path
from typing import Any

import pytest

from circius.base.errors import InvalidInputError
from circius.cli.main import app
from circius.cli.moderate_measure import _answers
from circius.evals.data.catalogue import find_part
from circius.evals.data.store import write
from tests.unit.engine.tiny import byte_llm, stopping
from tests.unit.evals.stub_judge import stub
from tests.unit.moderate.test_measure import write_sets

Capsys = pytest.CaptureFixture[str]
ON = ["--template=v1", "--context=4000", "--threads=1"]
SHAPE = ["--layers=2", "--dim=64", "--heads=4", "--kv-heads=2", "--head-dim=16", "--hidden-dim=128", "--vocab=512"]


def call(*words: str | Path) -> object:
    """The exit code of a verb, or None."""
    return app([str(word) for word in words], prog_name="circius", standalone_mode=False)


def here(capsys: Capsys, *words: str | Path) -> dict[str, Any]:
    """The object that a verb prints with --json."""
    assert not call(*words, "--json")
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    call("init", folder, *SHAPE, "--window=32", "--context=256", "--dtype=float32", "--quiet")
    return folder


def test_measuring_guardrails_goes_on_where_it_was(tiny: Path, tmp_path: Path, capsys: Capsys) -> None:
    data, out = write_sets(tmp_path / "data"), tmp_path / "run.jsonl"
    asked = ["moderate", tiny, "--measure", f"--data={data}", f"--out={out}", "--unsafe=4", "--max-tokens=16",
             "--categories=short", *ON]  # fmt: skip
    found = here(capsys, *asked)
    assert found["without_guard"]["unsafe_refused"]["n"] == 4
    assert found["with_guard"]["safe_refused"]["n"] == 6
    assert found["moderation"]["short"]["paper"] == {"precision": 0.994, "recall": 0.956}
    kept = out.read_bytes()
    again = here(capsys, *asked)
    assert out.read_bytes() == kept, "nothing is asked twice"
    assert again["moderation"] == found["moderation"]


def test_verifying(tiny: Path, tmp_path: Path, capsys: Capsys) -> None:
    found = here(capsys, "verify", tiny, "--threads=1")
    assert found["failed"] == 0
    assert {check["name"]: check["status"] for check in found["checks"]}["window of 32"] == "pass"
    facts = tmp_path / "facts.json"
    wrong = {"kind": "greedy", "name": "g", "source": "s", "prompt_ids": [1, 5], "ids": [7] * 30}
    telling = {
        "kind": "logit_means",
        "name": "m",
        "source": "s",
        "ids": [1],
        "means": [0.0],
        "tolerance": 1e9,
        "tells": True,
    }
    known = {"name": "tiny", "shape": {"dim": 64}, "facts": [telling, wrong]}
    facts.write_text(json.dumps({"format": "circius-facts", "version": 1, "checkpoints": [known]}))
    assert call("verify", tiny, f"--facts={facts}", "--threads=1") == 1
    shown = capsys.readouterr().out
    assert "checkpoint: tiny, by its shape and by what it says" in shown
    assert "1 of 13 checks failed" in shown
    assert any(line.startswith("fail     g") for line in shown.splitlines())


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def test_mt_bench_with_a_judge(tiny: Path, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions and prompts of our own, taken over into a folder in place of the published ones."""
    two = "{question_1} {answer_1} {question_2} {answer_2}"
    named = {"single-v1": "{question} {answer}", "single-v1-multi-turn": two, "single-math-v1": "{ref_answer_1}",
             "single-math-v1-multi-turn": "{ref_answer_2}"}  # fmt: skip
    prompts = [{"name": n, "type": "single", "system_prompt": "Judge.", "prompt_template": t} for n, t in named.items()]
    files = {
        "question.jsonl": lines(
            {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]},
            {"question_id": 111, "category": "math", "turns": ["1 + 1?", "2 + 2?"]},
        ),
        "reference_answer/gpt-4.jsonl": lines({"question_id": 111, "choices": [{"turns": ["2", "4"]}]}),
        "judge_prompts.jsonl": lines(*prompts),
    }
    for name, content in files.items():
        write(find_part(f"mt_bench/{name}"), content, tmp_path / "data", accept_changed=True)
    asked = ["mt-bench", tiny, f"--out={tmp_path / 'out'}", f"--data={tmp_path / 'data'}", "--seeds=2",
             "--max-tokens=8", *ON]  # fmt: skip
    assert here(capsys, *asked)["answers"] == 4
    monkeypatch.setenv("STUB_KEY", "secret")
    with stub(lambda body: "Rating: [[4]]" if body["messages"][1]["content"] == "2" else "[[8]]") as judge:
        named_judge = [f"--judge-url={judge.url}", "--judge-model=stub", "--key-env=STUB_KEY"]
        found = here(capsys, *asked, *named_judge)
        assert set(judge.keys) == {"Bearer secret"}
    assert found["by_category"]["math"]["mean"] == pytest.approx(6)
    assert found["overall"] == {"mean": pytest.approx(7), "deviation": pytest.approx(0), "seeds": 2, "ratings": 8}
    assert any("do not compare with the paper" in note for note in found["notes"])
    with pytest.raises(InvalidInputError, match="needs both"):
        call(*asked, "--judge-model=stub")


def test_an_arena_with_a_judge(tiny: Path, tmp_path: Path, capsys: Capsys) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("One\nTwo\n")
    asked = ["arena", tmp_path / "arena", f"--prompts={prompts}", f"--model=a={tiny}", f"--model=b={tiny}",
             "--max-tokens=4", "--seed=3", *ON]  # fmt: skip
    assert not call(*asked)
    assert "4 matches, no votes yet" in capsys.readouterr().out
    with stub(lambda body: "[[A]]") as judge:
        found = here(capsys, *asked, f"--judge-url={judge.url}", "--judge-model=stub")
    [voter] = found["voters"]
    assert (voter["votes"], voter["first_wins"], voter["judged_twice"], voter["agreed"]) == (4, 1.0, 2, 0)
    assert [model["score"] for model in voter["models"]] == [pytest.approx(1000)] * 2


def test_answers_that_ctrl_c_cut_short_are_not_kept(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path)
    with stopping(llm.model), pytest.raises(KeyboardInterrupt):
        _answers(llm, ["One", "Two"], False, max_tokens=16)
    assert len(_answers(llm, ["One", "Two"], False, max_tokens=2)) == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["moderate", "--check-rules", "--categories=short"], "leave out MODEL and --categories"),
        (["moderate", "demo", "--check-rules"], "leave out MODEL and --categories"),
        (["moderate", "demo", "--measure", "--kind=answer"], "--kind answer"),
        (["arena", "OUT", "--prompts=P", "--model=demo", "--endpoint-key-env=X"], "none was given"),
        (["arena", "OUT", "--prompts=P", "--model=demo", "--port=8000"], "give --vote too"),
        (
            ["arena", "OUT", "--prompts=P", "--endpoint=a=http://h", "--endpoint-key-env=NO_SUCH"],
            "--endpoint-key-env NO",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(words: list[str], complaint: str, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("One\n")
    places = {"OUT": str(tmp_path / "out"), "--prompts=P": f"--prompts={prompts}"}
    with pytest.raises(InvalidInputError, match=complaint):
        call(*(places.get(word, word) for word in words))
