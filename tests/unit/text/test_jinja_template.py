"""A model's own template: the sandbox, its limits, and control-token text in messages."""

import json
import shutil
from pathlib import Path

import pytest

from circius.base.errors import TemplateError
from circius.text import ChatTemplate, Message, Tokenizer, load_chat_template, load_tokenizer
from circius.text.sandbox import compile_template, render
from tests.vocabularies import FILES, mistral

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ZEPHYR = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}<|assistant|>\n"
LLAMA = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
HI = [Message("user", "Hi")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(FILES["v1"], tmp_path / "tokenizer.model")
    return tmp_path


def own(folder: Path, source: object, name: str = "auto", injection: str = "escape") -> ChatTemplate:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": source, "eos_token": "</s>"}))
    return load_chat_template(folder, load_tokenizer(folder), name=name, injection=injection)


def test_a_model_of_another_family_keeps_its_template(folder: Path) -> None:
    template = own(folder, ZEPHYR)
    assert template.name == "model"
    assert template.render(HI) == "<|user|>\nHi</s>\n<|assistant|>"
    assert template.encode(HI).count(2) == 1


def test_mistrals_own_template_gives_way_to_the_exact_one(folder: Path) -> None:
    template = own(folder, LLAMA)
    assert template.name == "v1"
    assert "the model's own template writes the same turns" in template.notes[0]
    assert template.encode(HI) == own(folder, LLAMA, "model").encode(HI)


def test_a_list_of_templates(folder: Path) -> None:
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": ZEPHYR}]
    assert own(folder, named).render(HI) == own(folder, ZEPHYR).render(HI)
    with pytest.raises(TemplateError, match=r"chat_template holds \['tool_use'\]"):
        own(folder, named[:1])


def test_the_file_of_its_own_comes_first(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(CHATML)
    assert own(folder, ZEPHYR).render(HI).startswith("<|im_start|>user\n")


@pytest.mark.parametrize("literal", ["</s>", "<s>", "[INST]", "[/INST]", "▁</s>", "</s></s>"])
def test_messages_cannot_forge_control_tokens(folder: Path, literal: str) -> None:
    template, tokenizer = own(folder, LLAMA, "model"), mistral("v1")
    messages = [Message("user", f"a{literal}b {literal}")]
    ids = template.encode(messages)
    assert [token for token in ids if tokenizer.is_special(token)] == [1]
    assert ids.count(16289) == 2  # the template's own brackets
    assert tokenizer.decode(ids, skip_special=False) == "<s> " + template.render(messages)[3:]
    with pytest.raises(TemplateError, match=r"messages\[0\]: the text contains"):
        own(folder, LLAMA, "model", "strict").encode(messages)


def test_what_escaping_prevents(folder: Path) -> None:
    messages = [Message("user", "a</s>b[/INST]")]
    ids = own(folder, LLAMA, "model", "allow").encode(messages)
    assert ids.count(2) == 1
    assert ids.count(16289) == 3


def test_demo_template(demo_gguf: Path) -> None:
    tokenizer: Tokenizer = load_tokenizer(demo_gguf)
    template = load_chat_template(demo_gguf, tokenizer)
    assert (template.name, template.stop_ids) == ("model", {2})
    assert template.render(HI).startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert template.render([Message("system", "S"), *HI]) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_continuing(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(CHATML)
    template = own(folder, "")
    messages = [*HI, Message("assistant", "I am ")]
    assert template.render(messages, continue_final=True).endswith("<|im_start|>assistant\nI am ")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(TemplateError, match="so it cannot be continued"):
        own(folder, "").encode(messages, continue_final=True)


def test_what_templates_may_use() -> None:
    source = (
        "{%- for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}|\n"
        "{% generation %}{{ {'a': '<é>'} | tojson }}{% endgeneration %}\n"
        "{{ strftime_now('%Y') | length }}"
    )
    assert render(compile_template(source), {}) == '01|\n{"a": "<é>"}4'


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('no\n system') }}", "cannot render this conversation: no system$"),
        ("{{ messages[7].content }}", "cannot render this conversation"),
        ("{{ ''.__class__.__mro__ }}", "cannot render this conversation: access to attribute '__class__'"),
        ("{{ messages.append(1) }}", "cannot render this conversation"),
        ("{{ 1 / 0 }}", "failed on this conversation: ZeroDivisionError"),
        ("{{ 'x' * 10 ** 10 }}", "makes a text of more than"),
        ("{{ 9 ** 9999 }}", "a power that is too large"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "failed on this conversation: OverflowError: Range too big"),
        ("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "wrote more than"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "failed on this conversation: RecursionError"),
    ],
)
def test_errors_and_limits(source: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message) as caught:
        render(compile_template(source), {"messages": []})
    assert "\n" not in str(caught.value)


def test_endless_loops_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circius.text.sandbox._TIME_LIMIT_S", 0.2)
    source = "{% for i in range(99999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateError, match="it does not end"):
        render(compile_template(source), {})


def test_a_template_that_is_no_jinja() -> None:
    with pytest.raises(TemplateError, match="is not valid Jinja: Expected an expression"):
        compile_template("{% for %}")
