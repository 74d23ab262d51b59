"""The arena's page in a real browser: voting with the keyboard alone, undoing, dark and light, nothing given away."""

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from circius.evals.arena.answers import Prompt
from circius.evals.arena.ballot import Ballot
from circius.evals.arena.matches import Match, matches_of
from circius.evals.arena.page_server import PageServer
from tests.e2e.processes import COMMAND, TIMEOUT_S, environment

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="the browser tests need chromium")

PROMPTS = [Prompt("p1", "Why is the mistral cold?"), Prompt("p2", "Write a list of winds.\nBe brief.")]
LONG = "It comes down the valley of the Rhône from the Massif Central and the Alps.\n\n" * 30
ANSWERS = {
    "anna-7b": {"p1": LONG, "p2": "<img src=x onerror='window.bad = 1'> <b>Mistral</b>\n- Bora\n- Föhn"},
    "bert-13b": {"p1": "Because it is winter.", "p2": ""},
}


@pytest.fixture
def ballot(tmp_path: Path) -> Iterator[tuple[Ballot, str]]:
    with Ballot(tmp_path, "me", matches_of(PROMPTS, ANSWERS)) as own:
        server = PageServer(own)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        yield own, server.url
        server.stop()
        thread.join()


@pytest.fixture
def page(ballot: tuple[Ballot, str]) -> "Iterator[playwright.Page]":
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        own = browser.new_context(viewport={"width": 1000, "height": 700}, color_scheme="light").new_page()
        problems: list[str] = []
        own.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        own.on("pageerror", lambda error: problems.append(str(error)))
        own.goto(ballot[1])
        playwright.expect(own.locator("#progress")).to_have_text("0 of 4")
        yield own
        assert not [problem for problem in problems if "net::ERR_FAILED" not in problem]  # one test wants that
        browser.close()


def _shown(page: "playwright.Page", match: Match) -> None:
    playwright.expect(page.locator("#prompt")).to_have_text(match.prompt.text)
    for part, answer in zip(("first", "second"), match.answers, strict=True):
        assert page.locator(f"#{part}").text_content() == answer


@needs_browser
def test_voting_with_the_keyboard_alone(page: "playwright.Page", ballot: tuple[Ballot, str]) -> None:
    own, _ = ballot
    matches = own.matches
    for n, key in enumerate("1234"):
        _shown(page, matches[n])
        html = page.content()
        assert "anna" not in html
        assert "bert" not in html
        page.keyboard.press(key)
        playwright.expect(page.locator("#progress")).to_have_text(f"{n + 1} of 4")
    playwright.expect(page.locator("#done")).to_be_visible()
    playwright.expect(page.locator("#votes")).to_be_hidden()
    assert [vote.winner for vote in own.votes] == ["first", "tie", "neither", "second"]
    page.keyboard.press("u")
    playwright.expect(page.locator("#progress")).to_have_text("3 of 4")
    _shown(page, matches[3])
    page.reload()
    _shown(page, matches[3])
    page.click("text=First is better")
    playwright.expect(page.locator("#progress")).to_have_text("4 of 4")
    assert own.votes[-1].winner == "first"
    assert page.evaluate("window.bad ?? null") is None


@needs_browser
def test_everything_can_be_reached_by_tab(page: "playwright.Page") -> None:
    reached = set()
    for _ in range(10):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.winner"))
    assert {"theme", "prompt", "first", "second", "tie", "neither", "undo"} >= reached - {""} - {None}
    assert {"theme", "prompt", "first", "second", "tie", "neither"} <= reached


@needs_browser
def test_on_a_narrow_screen_nothing_covers_anything(page: "playwright.Page") -> None:
    page.set_viewport_size({"width": 420, "height": 760})
    boxes = [page.locator(place).bounding_box() for place in ("#prompt", "#first", "#second")]
    assert all(boxes)
    for above, below in pairwise(boxes):
        assert above["y"] + above["height"] <= below["y"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


@needs_browser
def test_dark_and_light(page: "playwright.Page") -> None:
    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    before = background()
    page.click("#theme")
    assert background() != before
    page.reload()
    assert background() != before, "the choice is kept"


@needs_browser
def test_a_program_that_has_ended_is_told(page: "playwright.Page", ballot: tuple[Ballot, str]) -> None:
    page.route("**/vote", lambda route: route.abort())
    page.keyboard.press("1")
    playwright.expect(page.locator("#status")).to_contain_text("does not answer")
    assert ballot[0].votes == []


def test_a_person_votes_until_ctrl_c(tiny: Path, tmp_path: Path) -> None:
    """The command itself: it says where, keeps the vote, and prints the scores when it is stopped."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("One\n")
    words = ["arena", tmp_path / "arena", f"--prompts={prompts}", f"--model=a={tiny}", f"--model=b={tiny}",
             "--max-tokens=3", "--template=v1", "--threads=1", "--vote"]  # fmt: skip
    process = subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
    )
    try:
        assert process.stderr is not None
        [url] = next(found for line in process.stderr if (found := re.findall(r"http://127\.0\.0\.1:\d+/", line)))
        with httpx.Client(base_url=url) as client:
            token = client.get("/").text.split('<meta name="token" content="')[1].split('"')[0]
            headers = {"X-Arena-Token": token}
            match = client.get("/state", headers=headers).json()["match"]["id"]
            assert client.post("/vote", json={"match": match, "winner": "first"}, headers=headers).status_code == 200
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 0
    assert out.startswith("me: 1 votes\nmodel  score")
