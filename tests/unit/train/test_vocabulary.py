"""A vocabulary of one's own: its ids, its sameness, and what it is made of."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from circius.base.errors import InvalidInputError, StorageError
from circius.text import gguf_fields, load_chat_template, load_tokenizer
from circius.text.mistral_jinja import CONTROLS, ChatStyle
from circius.text.spm_model import PieceType, parse_spm
from circius.train.vocabulary import Sample, VocabularyPlan, cut, train_vocabulary
from circius.train.write_vocabulary import write_vocabulary
from tests.invented import SIZE, STYLES, lines, loaded, plan, write_all
from tests.vocabularies import any_text, hard_texts, mistral, write_gguf


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[ChatStyle, Path]:
    return write_all(tmp_path_factory.mktemp("vocabularies"))


@pytest.mark.parametrize("style", STYLES)
def test_ids(folders: dict[ChatStyle, Path], style: ChatStyle) -> None:
    model = parse_spm((folders[style] / "tokenizer.model").read_bytes())
    controls = CONTROLS[style]
    assert model.pieces[: 3 + len(controls)] == ("<unk>", "<s>", "</s>", *controls)
    assert model.types[1 : 3 + len(controls)] == (PieceType.CONTROL,) * (2 + len(controls))
    first = 3 + len(controls)
    assert model.pieces[first : first + 256] == tuple(f"<0x{byte:02X}>" for byte in range(256))
    assert len(model.pieces) == SIZE
    assert (model.is_bpe, model.byte_fallback, model.charsmap, model.remove_extra_whitespaces) == (
        True,
        True,
        b"",
        False,
    )
    assert not [
        piece for piece in model.pieces[first + 256 :] if len(piece.strip("▁")) > 1 and any(map(str.isdigit, piece))
    ]
    tokenizer = load_tokenizer(folders[style])
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.adds_bos, tokenizer.vocab_size) == (1, {2}, True, SIZE)
    ascii_ids = [tokenizer.id_of(chr(code)) for code in range(0x21, 0x7F)]
    assert None not in ascii_ids


def test_v3_has_the_ids_of_mistrals_own() -> None:
    assert [mistral("v3").special_ids[text] for text in CONTROLS["v3"]] == list(range(3, 11))


def test_the_same_text_gives_the_same_vocabulary(folders: dict[ChatStyle, Path]) -> None:
    assert train_vocabulary(lines(), plan()) == (folders["none"] / "tokenizer.model").read_bytes()
    other = train_vocabulary(lines()[:200], plan())
    assert other != (folders["none"] / "tokenizer.model").read_bytes()


def test_it_is_better_than_bytes(folders: dict[ChatStyle, Path]) -> None:
    tokenizer = load_tokenizer(folders["none"])
    text = "\n".join(lines()[:20])
    assert len(tokenizer.encode(text)) < 0.6 * len(text.encode())


@settings(deadline=None)
@given(text=any_text | hard_texts)
def test_any_text_comes_back(folders: dict[ChatStyle, Path], text: str) -> None:
    for folder in folders.values():
        assert loaded(folder).decode(loaded(folder).encode(text)) == text


def test_it_goes_into_a_gguf_and_keeps_its_template(folders: dict[ChatStyle, Path], tmp_path: Path) -> None:
    embedded = write_gguf(tmp_path / "model.gguf", gguf_fields(folders["v3"]))
    tokenizer = load_tokenizer(embedded)
    assert tokenizer.encode(lines()[0]) == loaded(folders["v3"]).encode(lines()[0])
    assert load_chat_template(embedded, tokenizer).name == "v3"


def test_without_chat_there_is_no_template(folders: dict[ChatStyle, Path]) -> None:
    config = json.loads((folders["none"] / "tokenizer_config.json").read_text())
    assert "chat_template" not in config
    assert sorted(file.name for file in folders["none"].iterdir()) == [
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    ]  # fmt: skip


def test_what_is_in_the_way_stays(folders: dict[ChatStyle, Path]) -> None:
    model = (folders["none"] / "tokenizer.model").read_bytes()
    with pytest.raises(StorageError, match="exists already"):
        write_vocabulary(model, folders["none"])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"vocab_size": 354}, "vocab_size must be more than 354"),
        ({"vocab_size": 362, "controls": CONTROLS["v3"]}, "vocab_size must be more than 362"),
        ({"vocab_size": 500, "coverage": 0.0}, "coverage must be above 0 and at most 1, got 0.0"),
        ({"vocab_size": 500, "sample_bytes": 0}, "sample_bytes must be 1 or more, got 0"),
    ],
)
def test_plans_that_are_none(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        VocabularyPlan(**options)


def test_texts_that_do_not_suffice() -> None:
    with pytest.raises(InvalidInputError, match="a vocabulary of 5000: the text is too little for so many pieces"):
        train_vocabulary(lines()[:5], plan(vocab_size=5000))
    many = "".join(map(chr, range(0x4E00, 0x4F00)))
    with pytest.raises(InvalidInputError, match="a vocabulary of 400: the text has more characters than that"):
        train_vocabulary([many], plan(vocab_size=400, coverage=1.0))


def test_rare_characters_are_spelt_in_bytes(folders: dict[ChatStyle, Path]) -> None:
    tokenizer = train_vocabulary([*lines(), "一"], plan())
    assert "一" not in parse_spm(tokenizer).pieces
    assert "—" in parse_spm(tokenizer).pieces


def test_long_lines_are_cut_before_words_and_nothing_is_lost() -> None:
    line = " ".join(f"wörd{n}" for n in range(3000))
    parts = list(cut(line))
    assert all(len(part.encode()) <= 4096 for part in parts)
    assert " ".join(parts) == line
    assert "".join(cut("é" * 5000)) == "é" * 5000
    assert list(cut("short")) == ["short"]


def test_a_sample_is_an_even_part_and_always_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(lines()))
    whole = Sample.of([tmp_path / "a.txt"], 1 << 30)
    assert (whole.share, list(whole.sentences())) == (1.0, list(lines()))
    part = Sample.of([tmp_path / "a.txt"], whole.n_bytes // 4)
    taken = list(part.sentences())
    assert part.share == pytest.approx(0.25, abs=1e-4)
    assert 0.15 < len(taken) / len(lines()) < 0.35
    assert taken == list(part.sentences())
    assert {lines().index(line) // 100 for line in taken} == {0, 1, 2}  # from everywhere
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(InvalidInputError, match="no text in them"):
        Sample.of([tmp_path / "empty.txt"], 100)
