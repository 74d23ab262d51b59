"""The arena: fair matches, votes that survive, scores that explain them, and a page that gives nothing away."""

import json
import math
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from circius.base.errors import CirciusError, InvalidInputError, StorageError
from circius.evals.arena.answers import Prompt, Sampling, answer_prompts, answers_in, read_prompts
from circius.evals.arena.ballot import Ballot, votes_in
from circius.evals.arena.bradley_terry import PRIOR_MATCHES, fitted, standings
from circius.evals.arena.judge import judge_all, verdict_in, voter_of
from circius.evals.arena.matches import Match, Vote, Winner, matches_of
from circius.evals.arena.page_server import PageServer
from circius.evals.arena.report import report
from circius.evals.chats import EndpointChats, Outcome, Said, Turn
from circius.evals.json_client import JsonClient
from tests.unit.evals.stub_judge import stub

PROMPTS = [Prompt(f"p{n}", f"Prompt {n}") for n in range(6)]
MODELS = ("anna", "bert", "carl")


def said(models: Sequence[str] = MODELS) -> dict[str, dict[str, str]]:
    return {model: {prompt.id: f"{model[0]} says {prompt.text}" for prompt in PROMPTS} for model in models}


def vote(first: str, second: str, winner: Winner, prompt: str = "p") -> Vote:
    return Vote(match="", prompt=prompt, first=first, second=second, winner=winner)


class Model:
    """Says a thing to every prompt, but cannot answer one."""

    at_once = 1

    def __init__(self, name: str, *, refuses: str = "") -> None:
        self.name, self.refuses = name, refuses
        self.asked: list[str] = []

    def describe(self) -> Mapping[str, Any]:
        return {"name": self.name}

    def say(self, turns: Sequence[Turn]) -> Iterator[tuple[int, Outcome]]:
        for place, turn in enumerate(turns):
            text = turn.messages[-1]["content"]
            self.asked.append(text)
            yield place, CirciusError("no") if text == self.refuses else Said(f"{self.name}: {text}", "stop")


def test_every_pair_meets_twice_with_each_of_them_first() -> None:
    matches = matches_of(PROMPTS, said())
    assert len(matches) == len({match.id for match in matches}) == 6 * 3 * 2
    met = [(match.prompt.id, match.first, match.second) for match in matches]
    assert len(set(met)) == len(met)
    assert {(prompt, second, first) for prompt, first, second in met} == set(met)
    half = len(met) // 2
    assert len({(prompt, frozenset(pair)) for prompt, *pair in met[:half]}) == half, "each pair once before any twice"
    assert matches == matches_of(PROMPTS, said()) != matches_of(PROMPTS, said(), seed=1)
    assert {match.id for match in matches} == {match.id for match in matches_of(PROMPTS, said(), seed=1)}
    for match in matches:
        assert match.answers == (
            f"{match.first[0]} says {match.prompt.text}",
            f"{match.second[0]} says {match.prompt.text}",
        )


def test_new_answers_are_new_matches() -> None:
    changed = said()
    changed["anna"]["p0"] = "something else"
    old, new = ({match.id for match in matches_of(PROMPTS, own)} for own in (said(), changed))
    assert len(old - new) == len(new - old) == 4


def test_what_makes_no_arena() -> None:
    with pytest.raises(InvalidInputError, match="needs two models or more, got 1: anna"):
        matches_of(PROMPTS, said(["anna"]))
    with pytest.raises(InvalidInputError, match="bert has no answer to 1 prompts, such as 'Prompt 5'"):
        matches_of(PROMPTS, {**said(), "bert": {p.id: "" for p in PROMPTS[:5]}})


def test_prompts_from_a_file(tmp_path: Path) -> None:
    plain, lines = tmp_path / "p.txt", tmp_path / "p.jsonl"
    plain.write_text("One\n\n  Two  \n")
    lines.write_text('{"prompt": "One"}\n{"prompt": "Two", "more": 1}\n')
    assert [prompt.text for prompt in read_prompts(plain)] == ["One", "Two"]
    assert read_prompts(plain) == read_prompts(lines)
    for text, message in (("", "has no prompts"), ("One\nTwo\nOne", r":3: this prompt stands there twice")):
        plain.write_text(text)
        with pytest.raises(InvalidInputError, match=message):
            read_prompts(plain)
    for text, message in (("[]", "has no prompt"), ('{"prompt": 5}', "must be a text"), ("x", "is not JSON")):
        lines.write_text(text)
        with pytest.raises(InvalidInputError, match=message):
            read_prompts(lines)


def test_answers_are_made_once_and_told_by_how_they_were_made(tmp_path: Path) -> None:
    with pytest.raises(CirciusError, match="anna could not answer 1 prompts, the first because: no"):
        answer_prompts(PROMPTS, "anna", Model("a", refuses="Prompt 3"), tmp_path, Sampling())
    again = Model("a")
    found = answer_prompts(PROMPTS, "anna", again, tmp_path, Sampling())
    assert again.asked == ["Prompt 3"]
    assert found["p3"] == "a: Prompt 3"
    answer_prompts(PROMPTS, "a / strange = label", Model("b"), tmp_path, Sampling())
    assert {label: len(own) for label, own in answers_in(tmp_path).items()} == {"anna": 6, "a / strange = label": 6}
    with pytest.raises(InvalidInputError, match="its circius_arena_answers is"):
        answer_prompts(PROMPTS, "anna", Model("another"), tmp_path, Sampling())
    with pytest.raises(InvalidInputError, match="its circius_arena_answers is"):
        answer_prompts(PROMPTS, "anna", Model("a"), tmp_path, Sampling(temperature=0))


def test_a_ballot_goes_on_and_can_be_undone(tmp_path: Path) -> None:
    matches = matches_of(PROMPTS, said())
    with Ballot(tmp_path, "me", matches) as ballot:
        first = ballot.next_match()
        assert first == matches[0]
        ballot.cast(first.id, "second")
        second = ballot.next_match()
        assert second == matches[1]
        ballot.cast(second.id, "neither")
        assert ballot.take_back() == second
        assert ballot.next_match() == second
        with pytest.raises(InvalidInputError, match="has a vote already"):
            ballot.cast(first.id, "tie")
        with pytest.raises(InvalidInputError, match="must be one of first, second, tie, neither, got 'best'"):
            ballot.cast(second.id, "best")
        with pytest.raises(InvalidInputError, match="there is no match 'x'"):
            ballot.cast("x", "tie")
        with pytest.raises(StorageError, match="another run is writing"), Ballot(tmp_path, "me", matches):
            pass
        with Ballot(tmp_path, "somebody else", matches) as other:
            assert other.n_done == 0
            assert other.take_back() is None
    with Ballot(tmp_path, "me", matches) as ballot:
        assert (ballot.n_done, ballot.next_match()) == (1, second)
        ballot.cast(second.id, "tie")
    with Ballot(tmp_path, "me", matches[5:]) as later:
        assert (later.votes, later.n_others) == ([], 2)
    assert [vote.winner for vote in votes_in(tmp_path)["me"]] == ["second", "tie"]
    assert votes_in(tmp_path)["somebody else"] == []


def test_scores_are_the_maximum_of_the_likelihood() -> None:
    """At the top nothing rises: the slope of the log-likelihood, votes and prior, is 0 in every score."""
    generator = random.Random(3)
    strength = {"a": 1.5, "b": 0.3, "c": 0.0, "d": -1.0}
    votes = []
    for _ in range(300):
        first, second = generator.sample(sorted(strength), 2)
        wins = generator.random() < 1 / (1 + math.exp(strength[second] - strength[first]))
        votes.append(vote(first, second, generator.choice(["first" if wins else "second"] * 4 + ["tie"])))
    found = fitted(votes, sorted(strength))
    logit = {model: score * math.log(10) / 400 for model, score in found.items()}
    for model in strength:
        slope = 0.0
        for other in strength:
            chance = 1 / (1 + math.exp(logit[other] - logit[model]))
            shares = [v.first_share for v in votes if (v.first, v.second) == (model, other)]
            shares += [1 - v.first_share for v in votes if (v.second, v.first) == (model, other)]
            slope += sum(shares) - chance * len(shares) + (PRIOR_MATCHES * (0.5 - chance) if other != model else 0)
        assert slope == pytest.approx(0, abs=1e-5)
    assert sum(found.values()) / 4 == pytest.approx(1000)
    assert sorted(found, key=lambda model: -found[model]) == ["a", "b", "c", "d"]


def test_two_models_by_hand() -> None:
    """Three of four: with half a tie more the odds are 3.25 to 1.25."""
    votes = [vote("a", "b", "first"), vote("b", "a", "second"), vote("a", "b", "first"), vote("b", "a", "first")]
    found = fitted(votes, ["a", "b"])
    assert found["a"] - found["b"] == pytest.approx(400 * math.log10(3.25 / 1.25))
    assert fitted([vote("a", "b", "tie")], ["a", "b", "c"]) == pytest.approx({"a": 1000, "b": 1000, "c": 1000})


def test_more_prompts_make_surer_scores() -> None:
    def widths(n: int) -> list[float]:
        votes = [vote("a", "b", "second" if k % 4 == 0 else "first", prompt=f"p{k}") for k in range(n)]
        found = standings(votes, n_draws=200)
        assert [own.model for own in found] == ["a", "b"]
        assert all(own.low < own.score < own.high for own in found)
        assert found == standings(votes, n_draws=200), "the same seed gives the same interval"
        return [own.high - own.low for own in found]

    assert max(widths(200)) < min(widths(20))
    copies = [vote("a", "b", "second" if k % 4 == 0 else "first", prompt=f"p{k % 20}") for k in range(200)]
    assert standings(copies, n_draws=200)[0].high - standings(copies, n_draws=200)[0].low > max(widths(200)), (
        "ten votes on a prompt are not ten prompts"
    )
    assert standings([]) == []


def test_a_report_tells_how_much_the_order_weighed() -> None:
    votes = [
        vote("a", "b", "first", "p1"), vote("b", "a", "second", "p1"),
        vote("a", "b", "first", "p2"), vote("b", "a", "first", "p2"),
        vote("a", "b", "tie", "p3"), vote("b", "a", "neither", "p3"), vote("a", "b", "second", "p4"),
    ]  # fmt: skip
    own = report("me", votes)
    assert (own.n_votes, own.twice, own.agreed) == (7, 3, 2)
    assert own.first_wins == pytest.approx(3 / 5)
    assert [(each.model, each.wins, each.ties, each.losses) for each in own.standings] == [
        ("a", 3, 2, 2),
        ("b", 2, 2, 3),
    ]


def test_a_judge_votes_over_http_in_both_orders(tmp_path: Path) -> None:
    """This one likes answers of anna's, says nothing about prompt 2, and is away at first."""
    n_busy = 1

    def judge(body: dict[str, Any]) -> str | int:
        nonlocal n_busy
        if n_busy:
            n_busy -= 1
            return 503
        asked = body["messages"][1]["content"]
        if "<request>\nPrompt 2\n" in asked:
            return "Who could tell?"
        return "Clear. [[A]]" if "<answer A>\na says" in asked else "Clear. [[B]]"

    matches = matches_of(PROMPTS, said(["anna", "bert"]))
    with stub(judge) as own:
        chats = EndpointChats(JsonClient(own.url, sleep=lambda seconds: None), "j", concurrency=2)
        with Ballot(tmp_path, voter_of(chats), matches) as ballot:
            assert judge_all(ballot, chats) == 2
            assert ballot.n_done == 10
            own.bodies.clear()
            assert judge_all(ballot, chats) == 2
            assert len(own.bodies) == 2, "only what has no vote yet"
    [(voter, votes)] = votes_in(tmp_path).items()
    assert voter.startswith("judge j at http://127.0.0.1:")
    best, other = report(voter, votes).standings
    assert (best.model, best.wins, best.losses, other.losses) == ("anna", 10, 0, 10)
    assert report(voter, votes).agreed == 5
    assert report(voter, votes).first_wins == pytest.approx(0.5)


def test_a_judge_that_is_away_costs_no_votes(tmp_path: Path) -> None:
    matches = matches_of(PROMPTS[:1], said(["anna", "bert"]))
    with stub(lambda body: 500) as own, Ballot(tmp_path, "j", matches) as ballot:
        chats = EndpointChats(JsonClient(own.url, n_tries=1, sleep=lambda seconds: None), "j")
        with pytest.raises(CirciusError, match="answered 500"):
            judge_all(ballot, chats)
        assert ballot.votes == []


def test_verdicts() -> None:
    assert verdict_in("Neither [[A]] nor [[B]]: [[C]]") == "tie"
    assert verdict_in("[A]") is None


@contextmanager
def page(folder: Path, matches: Sequence[Match]) -> Iterator[tuple[PageServer, Ballot]]:
    with Ballot(folder, "me", matches) as ballot:
        server = PageServer(ballot)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        try:
            yield server, ballot
        finally:
            server.stop()
            thread.join()


def token_of(html: str) -> str:
    return html.split('<meta name="token" content="')[1].split('"')[0]


def test_the_page_gives_no_names_away_and_keeps_votes(tmp_path: Path) -> None:
    matches = matches_of(PROMPTS, said())
    with page(tmp_path, matches) as (server, ballot), httpx.Client(base_url=server.url) as client:
        html = client.get("/")
        assert html.headers["content-security-policy"].startswith("default-src 'self'")
        headers = {"X-Arena-Token": token_of(html.text)}
        state = client.get("/state", headers=headers).json()
        assert state["match"] == {
            "id": matches[0].id, "prompt": matches[0].prompt.text,
            "first": matches[0].answers[0], "second": matches[0].answers[1],
        }  # fmt: skip
        assert not any(model in json.dumps(state) for model in MODELS)
        state = client.post("/vote", json={"match": matches[0].id, "winner": "first"}, headers=headers).json()
        assert (state["done"], state["match"]["id"]) == (1, matches[1].id)
        assert client.post("/undo", json={}, headers=headers).json()["match"]["id"] == matches[0].id
        assert ballot.votes == []
        for body, message in (
            ({"match": "x", "winner": "first"}, "there is no match"),
            ({"match": matches[0].id, "winner": "me"}, "the winner must be"),
            ([], "no JSON object"),
        ):
            refused = client.post("/vote", json=body, headers=headers)
            assert (refused.status_code, message in refused.json()["error"]) == (400, True)
        assert client.get("/nothing").status_code == 404


def test_other_pages_in_the_browser_can_do_nothing(tmp_path: Path) -> None:
    matches = matches_of(PROMPTS, said())
    vote = {"match": matches[0].id, "winner": "first"}
    with page(tmp_path, matches) as (server, ballot), httpx.Client(base_url=server.url) as client:
        token = token_of(client.get("/").text)
        assert client.get("/state").status_code == 403
        assert client.post("/vote", json=vote).status_code == 403
        assert client.post("/vote", json=vote, headers={"X-Arena-Token": token + "x"}).status_code == 403
        elsewhere = {"Host": "evil.example:80", "X-Arena-Token": token}
        assert client.get("/", headers=elsewhere).status_code == 403
        assert client.post("/vote", json=vote, headers=elsewhere).status_code == 403
        long = client.post("/vote", content=b" " * 5000, headers={"X-Arena-Token": token})
        assert (long.status_code, long.json()["error"]) == (400, "a vote has a body of at most 4096 bytes")
        assert ballot.votes == []


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with page(tmp_path, matches_of(PROMPTS, said())) as (server, ballot):
        port = int(server.url.rsplit(":", 1)[1].strip("/"))
        with pytest.raises(CirciusError, match=f"cannot listen on 127.0.0.1 port {port}"):
            PageServer(ballot, port=port)
