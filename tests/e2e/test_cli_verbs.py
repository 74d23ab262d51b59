"""Every verb on a tiny model: what it prints for people, and its object for machines."""

from pathlib import Path

import pytest

from tests.e2e.processes import TINY, circius, one_object, succeed

ONE = "--threads=1"


def test_info_of_a_preset() -> None:
    fields = one_object("info", "v0.1")
    assert fields["parameters"] == 7_241_732_096
    assert (fields["dim"], fields["n_layers"], fields["window_size"]) == (4096, 32, 4096)
    assert fields["cache_bytes_at_context"] == 512 * 2**20
    assert one_object("info", "v0.1", "--window=none")["window_size"] is None
    assert "7,241,732,096" in succeed("info", "v0.3").replace("7,248,023,552", "7,241,732,096")


def test_info_of_a_checkpoint(tiny: Path) -> None:
    fields = one_object("info", tiny)
    shape = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 512, "window_size": 32}
    assert {name: fields[name] for name in shape} == shape
    assert (fields["format"], fields["dtype"], fields["context_len"]) == ("hf", "float32", 256)
    assert fields["weight_bytes"] == 4 * fields["parameters"]


def test_a_stream_takes_the_same_memory_for_a_text_three_times_as_long(tiny: Path, tmp_path: Path) -> None:
    """Both are read in pieces, and are many thousand windows long."""
    peaks = []
    for n_times in (8_000, 24_000):
        file = tmp_path / f"{n_times}.txt"
        file.write_text("".join(f"The wind of day {day}, called mistral.\n" for day in range(n_times)))
        fields = one_object("score", tiny, "--file", file, "--stream", ONE)
        assert fields["tokens"] == fields["bytes"] > 35 * n_times
        peaks.append(fields["peak_memory_bytes"])
    assert peaks[1] - peaks[0] < 8 * 2**20


def test_generate_streams_the_text_of_its_object(tiny: Path) -> None:
    arguments = ["generate", tiny, ONE, "--max-tokens=8"]
    fields = one_object(*arguments, "hello", "--logprobs=3", "--prompt-logprobs=1")
    assert fields["prompt_token_ids"] == [1, *(3 + byte for byte in b"hello")]
    assert len(fields["token_ids"]) == 8
    assert fields["finish_reason"] == "length"
    assert fields["usage"] == {"prompt_tokens": 6, "completion_tokens": 8, "total_tokens": 14}
    assert fields["timings"]["time_to_first_token_s"] > 0
    assert fields["timings"]["cache_bytes"] == 13 * 2 * 2 * 2 * 16 * 4
    for place, token in zip(fields["logprobs"], fields["token_ids"], strict=True):
        assert place["token_id"] == token
        assert (place["rank"], place["top"][0]["token_id"], len(place["top"])) == (1, token, 3)
    assert [place and place["token_id"] for place in fields["prompt_logprobs"]] == [
        None,
        *fields["prompt_token_ids"][1:],
    ]

    streamed = circius(*arguments, stdin=b"hello\n")
    assert streamed.stdout == fields["text"] + "\n"
    assert "8 tokens" in streamed.stderr
    assert "cut at --max-tokens" in streamed.stderr
    assert "\x1b" not in streamed.stdout + streamed.stderr


def test_generate_several_samples(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("hello")
    arguments = ["generate", tiny, ONE, "--file", file, "-n", "2", "--temperature=1", "--seed=5", "--max-tokens=6"]
    fields = one_object(*arguments, "--chat", "--template=v1")
    assert fields["outputs"][0]["text"] == fields["text"]
    assert len({tuple(answer["token_ids"]) for answer in fields["outputs"]}) == 2
    assert fields["prompt_token_ids"] != [1, *(3 + byte for byte in b"hello")]


def test_score_in_segments_and_as_a_stream(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("The wind now called mistral. " * 40)
    stream = one_object("score", tiny, "--file", file, "--stream", ONE)
    whole = one_object("score", tiny, "--file", file, "--context=4000", ONE)
    n_bytes = file.stat().st_size
    assert stream["tokens"] == whole["tokens"] == stream["bytes"] == n_bytes
    assert stream["mean_nll"] == pytest.approx(whole["mean_nll"], abs=1e-5)
    assert 200 < stream["perplexity"] < 1200
    assert stream["bits_per_byte"] == pytest.approx(stream["mean_nll"] / 0.6931471805599453)

    shown = circius("score", tiny, "--file", file, "--stride=100", ONE)
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"tokens         {n_bytes}\n")
    assert "segments" in shown.stderr


def test_convert_keeps_answers_and_tokenizer(tiny: Path, tmp_path: Path) -> None:
    gguf, folder = tmp_path / "tiny.gguf", tmp_path / "consolidated"
    written = one_object("convert", tiny, gguf, "--to=gguf")
    assert (written["path"], written["layout"], written["stored_as"]) == (str(gguf), "gguf", "float32")
    assert succeed("convert", gguf, folder, "--to=consolidated", "-q") == f"{folder}\n"
    asked = ["hello", ONE, "--max-tokens=8"]
    answers = [one_object("generate", model, *asked)["token_ids"] for model in (tiny, gguf, folder)]
    assert answers[0] == answers[1] == answers[2]


def test_init_is_the_same_for_the_same_seed(tiny: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    assert one_object("init", again, *TINY)["layout"] == "hf"
    succeed("init", other, *TINY, "--seed=1", "--quiet")
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tiny, again, other)]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_tokenize_and_back(tiny: Path) -> None:
    fields = one_object("tokenize", tiny, "hé")
    assert fields["ids"] == [1, 3 + 0x68, 3 + 0xC3, 3 + 0xA9]
    assert fields["pieces"] == ["<s>", "<0x68>", "<0xC3>", "<0xA9>"]
    assert fields["count"] == 4
    assert succeed("tokenize", tiny, "--decode", str(fields["ids"])) == "hé\n"
    table = succeed("tokenize", tiny, stdin=b"h\n")
    assert [line.split() for line in table.splitlines()] == [["id", "piece"], ["1", "<s>"], ["107", "<0x68>"]]
    assert one_object("tokenize", tiny / "tokenizer.model", "hé") == fields
    chat = one_object("tokenize", tiny, "hi", "--chat", "--template=v1", "--system=Be brief.")
    assert bytes(token - 3 for token in chat["ids"][1:]).decode() == "[INST] Be brief.\n\nhi [/INST]"


def test_pull_lists_its_aliases() -> None:
    aliases = one_object("pull", "--list")["aliases"]
    assert aliases[0]["name"] == "demo"
    assert "Apache-2.0" in aliases[0]["about"]


def test_the_demo_model_knows_the_capital_of_france(demo_gguf: Path) -> None:
    """A model that ships a chat template takes the prompt as a message, unless it is told not to."""
    shown = circius("generate", demo_gguf, "What is the capital of France?", ONE)
    assert shown.returncode == 0
    assert "Paris" in shown.stdout
    assert "--raw continues it" in shown.stderr
    raw = one_object("generate", demo_gguf, "The capital of France is", "--raw", "--max-tokens=2", ONE)
    assert raw["text"] == " Paris."


def test_a_story_without_any_download(tmp_path: Path) -> None:
    done = circius("generate", "story", "Once upon a time", "--max-tokens=20", "--quiet", home=tmp_path / "empty")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 5
    assert not (tmp_path / "empty").exists()
