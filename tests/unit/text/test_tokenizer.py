"""Tokenizers: known ids, exact bytes, control tokens, and refusals."""

import pytest

from circius.base.errors import PromptError, TokenizerError
from circius.text import check_vocab
from tests.vocabularies import mistral

V1 = {
    "Hello": [22557],
    "\n": [28705, 13],
    "": [],
    "  ": [2287],
    "[INST]": [733, 16289, 28793],
    "</s>": [1867, 28713, 28767],
    "🦜": [28705, 243, 162, 169, 159],
    "▁": [28705, 229, 153, 132],
}


@pytest.mark.parametrize(("text", "ids"), V1.items())
def test_known_ids(text: str, ids: list[int]) -> None:
    assert mistral("v1").encode(text) == ids
    for version in ("v2", "v3"):
        assert mistral(version).encode(text) == [token + 768 for token in ids]


def test_bos_and_control_tokens() -> None:
    tokenizer = mistral("v3")
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.adds_bos) == (1, {2}, True)
    assert tokenizer.encode("Hi", bos=True) == [1, 16127]
    assert tokenizer.encode("<s>[INST] Hi[/INST]", special=True) == [1, 3, 1027 + 28446, 16127, 4]
    assert tokenizer.decode([1, 3, 16127, 4]) == "Hi"
    assert tokenizer.decode([1, 3, 16127, 4], skip_special=False) == "<s>[INST] Hi[/INST]"
    assert [tokenizer.is_special(token) for token in (0, 1, 2, 3, 771, 16127)] == [True, True, True, True, False, False]


def test_bytes_of_pieces() -> None:
    tokenizer = mistral("v1")
    assert tokenizer.piece(13) == "<0x0A>"
    assert tokenizer.token_bytes(13) == b"\n"
    assert tokenizer.piece(736) == "▁there"
    assert tokenizer.token_bytes(736) == b" there"
    assert tokenizer.token_bytes(1) == b""


def test_ids_beyond_the_vocabulary_decode_to_nothing() -> None:
    tokenizer = mistral("v1")
    assert tokenizer.decode([22557, 40000, 736]) == "Hello there"
    assert tokenizer.decode([22557, 40000], skip_special=False) == "Hello<unused:40000>"
    with pytest.raises(PromptError, match="-1 is negative"):
        tokenizer.decode([-1])


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(PromptError, match=r"character 2 of the text is U\+DCFF"):
        mistral("v1").encode("ab\udcff")


def test_check_vocab() -> None:
    check_vocab(mistral("v1"), 32000)
    check_vocab(mistral("v1"), 32128)
    with pytest.raises(TokenizerError, match="has 32768 tokens, but the model's vocabulary has 32000"):
        check_vocab(mistral("v3"), 32000)
