"""The page at / in a real browser: asking, streaming, stopping, asking again, with the keyboard alone."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from circius.engine.params import SamplingParams
from tests.serving import Served, loader, serving

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="the browser tests need chromium")
NO_END = "2"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(loader(tmp_path_factory.mktemp("page"), context=4000)) as own:
        yield own


@pytest.fixture
def page(served: Served) -> "Iterator[playwright.Page]":
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 900, "height": 700}, color_scheme="light")
        own = context.new_page()
        problems: list[str] = []
        own.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        own.on("pageerror", lambda error: problems.append(str(error)))
        own.goto(served.url)
        playwright.expect(own.locator("#model")).to_have_text("tiny")
        yield own
        assert not problems
        browser.close()


def _set(page: "playwright.Page", **values: str) -> None:
    page.click("#settings-button")
    for name, value in values.items():
        page.fill(f"#{name}", value)
    page.click("#settings-button")


def _ask(page: "playwright.Page", text: str) -> None:
    page.fill("#input", text)
    page.press("#input", "Enter")


def _answered(page: "playwright.Page", n: int) -> None:
    playwright.expect(page.locator("#stop")).to_be_hidden(timeout=30_000)
    playwright.expect(page.locator(".message.assistant")).to_have_count(n)


def test_a_conversation_and_its_settings_survive_a_reload(page: "playwright.Page", served: Served) -> None:
    _set(page, temperature="0", max_tokens="12", system="Be brief.")
    _ask(page, "What is the mistral?")
    _answered(page, 1)
    said = page.inner_text(".message.assistant .body")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the mistral?"}]
    [alone] = served.state.llm.chat(messages, SamplingParams.greedy(max_tokens=12))
    assert page.evaluate("JSON.parse(localStorage['circius.conversation'])[1].content") == alone.outputs[0].text
    page.reload()
    page.wait_for_selector(".message.assistant")
    assert page.inner_text(".message.assistant .body") == said
    assert page.input_value("#max_tokens") == "12"


def test_stopping_and_regenerating(page: "playwright.Page", served: Served) -> None:
    asked, llm = "Go on for ever", served.state.llm
    long = SamplingParams(temperature=1, max_tokens=900)
    messages, seed = [{"role": "user", "content": asked}], 0
    while llm.chat(messages, replace(long, seed=seed))[0].outputs[0].finish_reason != "length":
        seed += 1  # this one draws the end token by chance
    _set(page, max_tokens="3000", temperature="1", seed=f"{seed}")
    _ask(page, asked)
    playwright.expect(page.locator(".busy .body")).to_have_text(re.compile(".{6,}", re.DOTALL))
    page.keyboard.press("Escape")
    _answered(page, 1)
    served.idle()
    _set(page, max_tokens="5")
    page.click("text=Regenerate")
    _answered(page, 1)
    page.click("#new")
    assert page.locator(".message").count() == 0


def test_nothing_in_an_answer_becomes_html(page: "playwright.Page") -> None:
    shown = page.evaluate(
        """async () => {
            const { render } = await import('/page/markdown.js');
            const box = document.createElement('div');
            document.body.append(box);
            render(['# Title', '', 'Some **bold**, *soft* and `code <b>`.', '', '- one', '- two', '  - inner', '',
              '1. first', '2. second', '', '> quoted', '', '```python', 'print("<script>alert(1)</script>")', '```', '',
              '| a | b |', '|---|---|', '| 1 | 2 |', '', '<img src=x onerror="window.bad=1">',
              '[good](https://example.org) [bad](javascript:alert(1))'].join('\\n'), box);
            return { html: box.innerHTML, bad: window.bad ?? null, images: box.querySelectorAll('img,script').length,
              links: [...box.querySelectorAll('a')].map((a) => a.href) };
        }"""
    )
    assert shown["bad"] is None
    assert shown["images"] == 0
    assert shown["links"] == ["https://example.org/"]
    for part in ("<h2>Title</h2>", "<strong>bold</strong>", "<em>soft</em>", "<code>code &lt;b&gt;</code>", "<ol>",
                 "<blockquote>", "<td>1</td>", "<ul><li>one</li>", "&lt;script&gt;"):  # fmt: skip
        assert part in shown["html"], part


def test_dark_and_light(page: "playwright.Page") -> None:
    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    before = background()
    page.click("#theme")
    assert background() != before
    page.reload()
    assert background() != before, "the choice is kept"


def test_the_keyboard_alone_reaches_everything(page: "playwright.Page") -> None:
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"new", "theme", "settings-button", "input", "send"} <= reached


def test_a_wrong_key_is_told(tmp_path: Path) -> None:
    with serving(loader(tmp_path), keys=("secret-key-1",)) as served, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        own = browser.new_page()
        own.goto(served.url)
        playwright.expect(own.locator("#status")).to_contain_text("API key")
        own.click("#settings-button")
        own.fill("#key", "secret-key-1")
        own.press("#key", "Tab")
        playwright.expect(own.locator("#model")).to_have_text("tiny")
        browser.close()
