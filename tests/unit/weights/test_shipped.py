"""The models inside the package: small enough, whole, said what they are, and trained."""

from pathlib import Path

import pytest

from circius import LLM, SamplingParams
from circius.base.errors import ModelNotFoundError
from circius.weights import open_checkpoint
from circius.weights.hub import pull, resolve
from circius.weights.shipped import SHIPPED, shipped_path

MOST_BYTES = 20_000_000
UNSEEN = (
    'The old man put the lantern on the table and looked at the children. "You must not go into the forest at night," '
    'he said, "for there is a wolf that waits beside the river." But the little girl was not afraid.'
)


def test_all_together_are_small() -> None:
    files = [file for name in SHIPPED for file in shipped_path(name).iterdir()]
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES


@pytest.mark.parametrize("name", SHIPPED)
class TestShipped:
    def test_is_found_by_its_name_and_not_downloaded(self, name: str) -> None:
        assert pull(name) == resolve(name) == shipped_path(name)
        with pytest.raises(ModelNotFoundError, match="no revisions"):
            pull(name, revision="main")

    def test_is_a_mistral_whose_window_is_shorter_than_its_context(self, name: str) -> None:
        config = open_checkpoint(shipped_path(name)).config
        assert config.n_kv_heads < config.n_heads
        assert config.window_size is not None
        assert config.window_size < config.context_len

    def test_has_a_card(self, name: str) -> None:
        card = (shipped_path(name) / "README.md").read_text()
        assert all(word in card for word in ("Licence", "Trained on", "bits per byte", "Limits"))

    def test_has_learnt_english(self, name: str) -> None:
        """2.0 bits a byte is what xz gets out of a whole book; random weights have 3.5."""
        assert LLM(name).score(UNSEEN).bits_per_byte < 2.0

    def test_a_folder_of_its_name_counts_only_as_a_checkpoint(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / name / "checkpoints").mkdir(parents=True)  # as a training run leaves one
        monkeypatch.chdir(tmp_path)
        assert resolve(name) == shipped_path(name)


def test_story_goes_on_and_story_chat_answers() -> None:
    story, chat = LLM("story"), LLM("story-chat")
    assert story.chat_template is None or not story.chat_template.is_shipped
    assert chat.chat_template is not None
    assert chat.chat_template.is_shipped
    params = SamplingParams(temperature=0, max_tokens=24)
    [told] = story.generate(["Once upon a time"], params)
    [answer] = chat.chat([{"role": "user", "content": "Hello! How are you?"}], params)
    for text in (told.outputs[0].text, answer.outputs[0].text):
        assert sum(letter.isascii() and (letter.isalpha() or letter in " ',.!?\"") for letter in text) > 0.9 * len(text)
        assert len(text) > 10
