"""The guard prompt and moderation as commands, on a tiny model."""

import json
from pathlib import Path

import pytest

from circius.moderate.guard import GUARD_PROMPT
from tests.e2e.processes import circius, fails, one_object

ON = ["--template=v1", "--context=4000", "--threads=1"]


def test_the_guard_is_a_system_prompt(tiny: Path) -> None:
    asked = ["generate", tiny, "Hi", "--max-tokens=3", *ON]
    both = one_object(*asked, "--guard", "--system=Be brief.")
    assert both["prompt_token_ids"] == one_object(*asked, f"--system={GUARD_PROMPT}\n\nBe brief.")["prompt_token_ids"]
    assert "--guard" in fails("generate", tiny, "Hi", "--raw", "--guard", code=2)


def test_the_guard_goes_on_and_off_in_a_chat(tiny: Path) -> None:
    script = "/guard\nHi\n/reset\n/guard off\nHi\n/guard maybe\n"
    done = circius("chat", tiny, *ON, "--max-tokens=3", "--temperature=0", "--json", stdin=script.encode())
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["usage"]["prompt_tokens"] > second["usage"]["prompt_tokens"] + 150
    assert "guard prompt on" in done.stderr
    assert done.stderr.splitlines()[-1] == "circius: error: /guard: it can be on or off, got 'maybe'"


def test_moderating_a_text(tiny: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(
        '{"format": "circius-policy", "version": 1, "categories": "short", "otherwise": "flag", "flag_at": 1e-9}'
    )
    found = one_object("moderate", tiny, "How do I bake bread?", f"--policy={policy}", *ON)
    assert sum(found["category_scores"].values()) == pytest.approx(1)
    assert (found["categories"], found["action"]) == ("short", "flag")
    assert any("probability lay on the names" in note for note in found["notes"])
    assert "belong to --measure" in fails("moderate", tiny, "Hi", "--unsafe=3", code=2)
    policy.write_text("{}")
    assert 'lacks "format"' in fails("moderate", tiny, "Hi", f"--policy={policy}", code=2)
