"""An invented language, to train small vocabularies on."""

import random
from functools import cache
from pathlib import Path
from typing import Any

from circius.text import Tokenizer, load_tokenizer
from circius.text.mistral_jinja import CONTROLS, ChatStyle
from circius.train.vocabulary import VocabularyPlan, train_vocabulary
from circius.train.write_vocabulary import write_vocabulary

SIZE = 480
STYLES: list[ChatStyle] = ["none", "v1", "v3"]


@cache
def lines() -> tuple[str, ...]:
    """Enough words of an invented language."""
    chance = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstv" for b in "aeiou"]
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 3))) for _ in range(400)]
    return tuple(" ".join(chance.choices(words, k=12)).capitalize() + f", {n} — 100 %." for n in range(300))


def plan(style: ChatStyle = "none", **options: Any) -> VocabularyPlan:
    return VocabularyPlan(**{"vocab_size": SIZE, "controls": CONTROLS[style], **options})


def write_all(root: Path) -> dict[ChatStyle, Path]:
    """A vocabulary of the invented language with each of the chat templates, as folders."""
    for style in STYLES:
        write_vocabulary(train_vocabulary(lines(), plan(style)), root / style, chat=style)
    return {style: root / style for style in STYLES}


@cache
def loaded(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)
