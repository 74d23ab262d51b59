"""The real Mistral vocabularies, which ship in the mistral-common package, and texts to try on them."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import gguf
import mistral_common
from hypothesis import strategies as st

from circius.text import Message, Tokenizer, load_tokenizer

FOLDER = Path(mistral_common.__file__).parent / "data"
FILES = {
    "v1": FOLDER / "tokenizer.model.v1",
    "v2": FOLDER / "mistral_instruct_tokenizer_240216.model.v2",
    "v3": FOLDER / "mistral_instruct_tokenizer_240323.model.v3",
}

MARKERS = ["[INST]", "[/INST]", "<s>", "</s>", "[INST", "INST]", "[", "]", "/", "INST", "[/", "▁", " ", "\n"]
CONTROL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "end|>", "<|", "|>"]


@cache
def mistral(version: str) -> Tokenizer:
    """Mistral's own tokenizer of that version."""
    return load_tokenizer(FILES[version])


any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
"""Any text at all that UTF-8 can hold."""
hard_text = st.lists(
    st.one_of(st.sampled_from(MARKERS + CONTROL + ["🦜", "é", "\x00", "  ", "12"]), any_text), max_size=8
)
"""Texts thick with turn marks, control-token text, pieces of them, and spaces."""
hard_texts = hard_text.map("".join)


def conversations(contents: st.SearchStrategy[str], *, continues: bool = False) -> st.SearchStrategy[list[Message]]:
    """Conversations that mistral-common accepts: merged roles, system messages where they may be, a user last."""
    user = st.builds(Message, st.just("user"), contents)
    system = st.builds(Message, st.just("system"), contents)
    answer = st.builds(Message, st.just("assistant"), contents.filter(bool))
    opening = st.lists(system, max_size=2)
    asking = st.builds(
        lambda before, first, between, after: [*before, first, *between, *after],
        opening,
        user,
        opening,
        st.lists(user, max_size=2),
    ).filter(lambda run: run[-1].role == "user")
    question = st.lists(user, min_size=1, max_size=2)
    exchange = st.builds(lambda answers, asked: [*answers, *asked], st.lists(answer, min_size=1, max_size=2), question)
    whole = st.builds(
        lambda first, rest: [*first, *(message for turn in rest for message in turn)],
        asking,
        st.lists(exchange, max_size=2),
    )
    if not continues:
        return whole
    return st.builds(lambda messages, final: [*messages, final], whole, answer)


def write_gguf(path: Path, fields: Mapping[str, object]) -> Path:
    """A GGUF file with these metadata pairs and no tensors, written by the gguf package."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in fields.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, str(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path
