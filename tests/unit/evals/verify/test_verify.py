"""Verifying a checkpoint: facts that transformers tells of a tiny one, and laws that notice what is broken."""

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM

from circius.base.config import PRESETS
from circius.base.errors import DataError, PromptError
from circius.engine.llm import LLM
from circius.evals.verify import laws as all_laws
from circius.evals.verify.compare import compare
from circius.evals.verify.facts import Greedy, Text, known_checkpoints
from circius.evals.verify.laws import ground_of
from circius.evals.verify.perplexity import half_context_perplexity
from circius.evals.verify.recognise import recognise
from circius.evals.verify.result import Result
from circius.evals.verify.text_law import text_laws
from circius.evals.verify.verify import verify
from circius.evals.verify.window_law import _window_law, one_layer, window_laws
from circius.model import Transformer
from tests.models import random_model, tiny_config
from tests.unit.engine.tiny import BYTE_VOCAB, byte_llm, stopping, tiny_model

WINDOW = 5
IDS = [1, 40, 7, 33, 9, 12, 50, 3]


def peer_of(model: Transformer) -> MistralForCausalLM:
    """transformers' model with these weights."""
    config = model.config
    peer = MistralForCausalLM(
        MistralConfig(
            vocab_size=config.vocab_size, hidden_size=config.dim, intermediate_size=config.hidden_dim,
            num_hidden_layers=config.n_layers, num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads, head_dim=config.head_dim, sliding_window=config.window_size,
            max_position_embeddings=config.context_len, rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta}, attn_implementation="eager",
            bos_token_id=1, eos_token_id=None, pad_token_id=None, tie_word_embeddings=False,
        )
    )  # fmt: skip
    peer.load_state_dict(model.state_dict())
    return peer.eval()


@torch.inference_mode()
def facts_from_transformers(model: Transformer, name: str) -> dict[str, Any]:
    """What the peer says, in the form of a file of facts: the same kinds as those of real checkpoints."""
    peer = peer_of(model)

    def logits(ids: Sequence[int]) -> Tensor:
        return peer(torch.tensor([list(ids)])).logits[0]

    def greedy(ids: Sequence[int], n: int) -> tuple[list[int], list[float]]:
        new, logprobs, so_far = [], [], list(ids)
        for _ in range(n):
            found = logits(so_far)[-1].log_softmax(dim=-1)
            new.append(int(found.argmax()))
            logprobs.append(float(found.max()))
            so_far.append(new[-1])
        return new, logprobs

    own = logits(IDS)
    answer, logprobs = greedy(IDS, 12)
    long = [1, *[30, 33] * 12]
    scored = own.log_softmax(dim=-1)
    shape = {key: getattr(model.config, key) for key in ("dim", "n_layers", "window_size", "vocab_size", "rope_theta")}
    facts = [
        {"kind": "logit_means", "name": "means", "tells": True, "ids": IDS, "means": own.mean(dim=-1).tolist(),
         "tolerance": 1e-5},
        {"kind": "logits", "name": "logits", "ids": IDS, "position": 2, "tolerance": 1e-4,
         "any_of": [[9.0] * 20, own[2, :20].tolist()]},
        {"kind": "greedy", "name": "greedy", "prompt_ids": IDS, "ids": answer, "logprobs": logprobs, "tolerance": 1e-4,
         "prompt_logprobs": [float(scored[n, IDS[n + 1]]) for n in range(len(IDS) - 1)]},
        {"kind": "tail", "name": "past the window", "begins": [1], "repeats": [30, 33], "times": 12, "max_tokens": 6,
         "ids": greedy(long, 6)[0][-2:]},
        {"kind": "perplexity", "name": "perplexity", "context": 16, "value": 5.0, "tolerance": 0.1},
    ]  # fmt: skip
    return {"name": name, "shape": shape, "facts": [{"source": "transformers", **fact} for fact in facts]}


def facts_file(path: Path, *checkpoints: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"format": "circius-facts", "version": 1, "checkpoints": checkpoints}))
    return path


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model(window=WINDOW)


@pytest.fixture(scope="module")
def described(model: Transformer) -> dict[str, Any]:
    return facts_from_transformers(model, "the tiny one")


def by_name(results: Sequence[Result]) -> dict[str, Result]:
    return {result.name: result for result in results}


def test_what_transformers_says_of_a_model_ours_says_too(
    model: Transformer, described: dict[str, Any], tmp_path: Path
) -> None:
    other = facts_from_transformers(tiny_model(window=WINDOW, seed=5), "another one")
    checkpoints = known_checkpoints(facts_file(tmp_path / "facts.json", other, described))
    verified = verify(LLM.of(model), checkpoints, perplexity=lambda context: 5.04 if context == 16 else None)
    assert verified.recognised.known is not None
    assert verified.recognised.known.name == "the tiny one"
    assert "by its shape and by what it says" in verified.recognised.words
    found = by_name(verified.results)
    assert {name: found[name].status for name in ("means", "logits", "greedy", "past the window", "perplexity")} == (
        dict.fromkeys(("means", "logits", "greedy", "past the window", "perplexity"), "pass")
    )
    assert found["greedy"].found is not None
    assert found["greedy"].found < 1e-4
    assert found["perplexity"].found == pytest.approx(0.04)
    assert verified.n_failed == 0


@pytest.mark.parametrize("broken", ["one weight", "rope_theta", "window"])
def test_a_model_that_is_a_little_off_is_noticed(
    model: Transformer, described: dict[str, Any], tmp_path: Path, broken: str
) -> None:
    config = {
        "rope_theta": replace(model.config, rope_theta=1e6),
        "window": replace(model.config, window_size=WINDOW + 1),
    }.get(broken, model.config)
    wrong = Transformer(config).eval().requires_grad_(False)
    wrong.load_state_dict(model.state_dict())
    if broken == "one weight":
        wrong.model.layers[1].mlp.down_proj.weight[3] *= 1.5  # type: ignore[union-attr,index]
    [known] = known_checkpoints(facts_file(tmp_path / "facts.json", described))
    results = by_name([compare(LLM.of(wrong), fact, lambda context: None) for fact in known.facts])
    assert results["means"].status == "fail"
    assert results["means"].found > results["means"].allowed  # type: ignore[operator]
    assert results["perplexity"].status == "skipped"
    recognised = recognise(LLM.of(wrong), [known])
    assert recognised.known is None
    verified = verify(LLM.of(wrong), [known])
    assert verified.n_failed == 0, "another model is no failure"
    if broken == "one weight":
        assert "it does not say what they say" in recognised.words
        assert by_name(verified.results)["the tiny one: means"].status == "skipped"
    else:
        assert "no known checkpoint has this shape" in recognised.words


def test_greedy_facts_tell_where_it_parts(model: Transformer, described: dict[str, Any], tmp_path: Path) -> None:
    [known] = known_checkpoints(facts_file(tmp_path / "facts.json", described))
    [fact] = [own for own in known.facts if isinstance(own, Greedy)]
    ids = list(fact.ids)
    ids[7] = (ids[7] + 1) % 61
    result = compare(LLM.of(model), replace(fact, ids=ids), lambda context: None)
    assert (result.status, result.detail.split(",")[0]) == ("fail", "7 of 12 tokens")
    logprobs = [own + 0.01 for own in fact.logprobs or ()]
    result = compare(LLM.of(model), replace(fact, logprobs=logprobs), lambda context: None)
    assert result.status == "fail"
    assert result.found == pytest.approx(0.01, abs=1e-4)
    tiny = LLM.of(model, context=10)
    assert compare(tiny, fact, lambda context: None).detail == "takes 20 tokens, and the context is 10"


def test_text_facts_and_the_tokenizers_ids(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path)
    [result] = llm.generate("Hi")
    whole = "Hi" + result.outputs[0].text
    assert llm.tokenizer is not None
    ids = llm.tokenizer.encode("Hi", bos=True)
    fact = Text(name="t", source="s", prompt="Hi", max_tokens=6, whole_text="")
    from circius.engine.params import SamplingParams

    [answer] = llm.generate("Hi", SamplingParams.greedy(max_tokens=6))
    whole = "Hi" + answer.outputs[0].text
    assert compare(llm, replace(fact, whole_text=whole), lambda context: None).status == "pass"
    wrong = compare(llm, replace(fact, whole_text="Hi there"), lambda context: None)
    assert (wrong.status, "the same up to character 2" in wrong.detail) == ("fail", True)
    greedy = Greedy(name="g", source="s", prompt="Hi", prompt_ids=ids, ids=answer.outputs[0].token_ids)
    assert compare(llm, greedy, lambda context: None).status == "pass"
    other = compare(llm, replace(greedy, prompt_ids=[*ids, 5]), lambda context: None)
    assert (other.status, "the tokenizer gives" in other.detail) == ("fail", True)


def test_the_facts_that_come_with_circius() -> None:
    known = {own.name: own for own in known_checkpoints()}
    base, instruct = known["Mistral-7B-v0.1"], known["Mistral-7B-Instruct-v0.1"]
    for version, names in (("v0.1", {base.name, instruct.name}), ("v0.2", {"v0.2"}), ("v0.3", {"v0.3"})):
        alike = [own.name for own in known.values() if own.has_shape_of(PRESETS[version])]
        assert all(any(name in each for name in names) for each in alike)
        assert alike
    assert [len([fact for fact in own.facts if fact.tells]) for own in (base, instruct)] == [1, 1]
    kinds = {type(fact).__name__ for fact in base.facts}
    assert kinds == {"LogitMeans", "Logits", "Greedy", "Text", "Tail", "Perplexity"}


def test_a_gguf_file_of_a_known_checkpoint_is_recognised() -> None:
    """Its numbers are stored in float32, in which 1e-5 is another number."""
    base = known_checkpoints()[0]
    in_float32 = torch.tensor(1e-5).item()
    assert in_float32 != 1e-5
    assert base.has_shape_of(replace(PRESETS["v0.1"], norm_eps=in_float32))
    assert not base.has_shape_of(replace(PRESETS["v0.1"], norm_eps=1e-6))


def test_facts_that_a_checkpoint_cannot_be_asked(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path)
    far = compare(llm, Greedy(name="g", source="s", prompt_ids=[1, 99999], ids=[5]), lambda context: None)
    assert (far.status, far.detail) == ("fail", f"names token 99999, and the vocabulary has {BYTE_VOCAB}")
    text = Text(name="t", source="s", prompt="Hi", max_tokens=2, whole_text="Hi there")
    bare = LLM.of(llm.model, context=llm.context)
    assert compare(bare, text, lambda context: None).status == "skipped"


def test_what_ctrl_c_cut_short_is_no_failure(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path)
    with stopping(llm.model), pytest.raises(KeyboardInterrupt):
        compare(llm, Greedy(name="g", source="s", prompt_ids=[1, 5], ids=[7] * 9), lambda context: None)
    with stopping(llm.model), pytest.raises(KeyboardInterrupt):
        all_laws.generated_as_scored(ground_of(llm))


def one_fact(**own: Any) -> dict[str, Any]:
    return {"checkpoints": [{"name": "n", "shape": {}, "facts": [{"name": "f", "source": "s", **own}]}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "holds no facts"),
        ({"checkpoints": {}}, "has no list of checkpoints"),
        ({"checkpoints": [{"shape": {}, "facts": []}]}, "checkpoint 0 has no name"),
        ({"checkpoints": [{"name": "n", "shape": {"size": 7}, "facts": []}]}, "shape must have fields"),
        ({"checkpoints": [{"name": "n", "shape": {}}]}, "has no list of facts"),
        ({"checkpoints": [{"name": "n", "shape": {}, "facts": [{"kind": "poem"}]}]}, "fact 0: kind must be one of"),
        (
            {"checkpoints": [{"name": "n", "shape": {}, "facts": [{"kind": "tail", "name": "t", "source": "s"}]}]},
            "begins is missing",
        ),
        (
            {"checkpoints": [{"name": "n", "shape": {}, "facts": [{"kind": "tail", "colour": 1}]}]},
            "'colour' is not known for the kind tail",
        ),
        (one_fact(kind="greedy", prompt_ids="abc", ids=[1]), "prompt_ids must be a list .* of a whole number each"),
        (one_fact(kind="greedy", prompt_ids=[1], ids=[]), "ids must be a list that is not empty"),
        (one_fact(kind="greedy", prompt_ids=[1], ids=[1], logprobs=[0.1, 0.2]), "1 ids have 2 logprobs"),
        (one_fact(kind="greedy", prompt_ids=[1, 2], ids=[1], prompt_logprobs=[0.1, 0.2]), "2 prompt_logprobs"),
        (one_fact(kind="logits", ids=[1], position=1, any_of=[[1.0]], tolerance=1), "position must be 0 to 0"),
        (one_fact(kind="logits", ids=[1], position=0, any_of=[[1.0], [1, 2]], tolerance=1), "as long as each other"),
        (one_fact(kind="logit_means", ids=[1], means=[1, 2], tolerance=1), "1 ids have 2 means"),
        (one_fact(kind="logit_means", ids=[1], means=[1], tolerance=True), "tolerance must be a number, got True"),
    ],
)
def test_a_file_that_holds_no_facts(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps({"format": "circius-facts", "version": 1, "checkpoints": [], **change}))
    with pytest.raises(DataError, match=message):
        known_checkpoints(path)
    with pytest.raises(DataError, match="cannot read"):
        known_checkpoints(tmp_path / "none.json")


@pytest.mark.parametrize("window", [None, 1, WINDOW, (3, None), (7, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_healthy_models_pass_every_law(window: Any, dtype: torch.dtype) -> None:
    llm = LLM.of(random_model(tiny_config(window=window)).to(dtype).requires_grad_(False))
    verified = verify(llm, [])
    assert [result for result in verified.results if result.status == "fail"] == []
    names = by_name(verified.results)
    windows = [window] * 2 if not isinstance(window, tuple) else window
    for own in set(windows):
        assert (f"window of {own}" if own else "no window") in names
    assert names["chunks change nothing"].found is not None


def failing(llm: LLM) -> set[str]:
    return {result.name for result in verify(llm, []).results if result.status == "fail"}


def test_a_number_that_is_none_is_noticed(model: Transformer) -> None:
    wrong = copy.deepcopy(model)
    wrong.model.layers[1].post_attention_layernorm.weight[4] = math.nan  # type: ignore[union-attr,index]
    found = by_name(verify(LLM.of(wrong), []).results)
    assert found["weights are finite"].status == found["logits are finite"].status == "fail"
    assert "layers.1.post_attention_layernorm" in found["weights are finite"].detail
    assert found["cache as without"].status == "fail"


@pytest.mark.parametrize(
    ("fault", "noticed"),
    [
        ("cache", {"cache as without", "generated as scored"}),
        ("chunks", {"chunks change nothing", "cache as without", "generated as scored"}),
        ("neighbours", {"packed as apart"}),
        ("chance", {"twice the same"}),
    ],
)
def test_each_law_notices_its_fault(
    model: Transformer, monkeypatch: pytest.MonkeyPatch, fault: str, noticed: set[str]
) -> None:
    """The faults are the ones that other people's code has had: keys of neighbours seen, a cache off by a little."""
    true_forward = Transformer.forward
    calls = iter(range(10**9))

    def forward(self: Transformer, tokens: Tensor, lengths: Sequence[int], **given: Any) -> Tensor:
        if fault == "neighbours" and given.get("cache") is None:
            return true_forward(self, tokens, [sum(lengths)], **given)
        logits = true_forward(self, tokens, lengths, **given)
        if fault == "cache" and given.get("cache") is not None:
            return logits + torch.linspace(0, 0.1, logits.shape[-1])
        if fault == "chunks" and given.get("cache") is not None and len(tokens) < 20:
            return logits + torch.linspace(0, 0.1, logits.shape[-1])
        if fault == "chance" and given.get("cache") is None:
            return logits + 1e-6 * next(calls)
        return logits

    monkeypatch.setattr(Transformer, "forward", forward)
    assert failing(LLM.of(model)) & {name for name, _ in all_laws.laws()} == noticed


def test_a_window_one_wider_or_narrower_is_a_leak(model: Transformer) -> None:
    ground = ground_of(LLM.of(model))
    assert [result.status for result in window_laws(ground)] == ["pass"]
    wider, narrower = _window_law(ground, 0, WINDOW - 1), _window_law(ground, 0, WINDOW + 1)
    assert wider.status == "fail", "a key is seen that W - 1 would not have"
    assert narrower.status == "fail", "a key is missing that W + 1 would have"


def test_one_layer_is_the_model_of_that_layer() -> None:
    whole = tiny_model(window=WINDOW, n_layers=1)
    tokens = torch.tensor(IDS)
    with torch.inference_mode():
        assert torch.equal(one_layer(whole, 0)(tokens, [len(IDS)]), whole(tokens, [len(IDS)]))
    two = tiny_model(window=WINDOW)
    assert one_layer(two, 1).model.layers[0] is two.model.layers[1]


def test_texts_that_do_not_come_back_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = byte_llm(tmp_path)
    results = by_name(list(text_laws(llm)))
    assert {result.status for result in results.values()} == {"pass"}
    assert llm.tokenizer is not None
    true_decode = type(llm.tokenizer).decode
    monkeypatch.setattr(
        type(llm.tokenizer), "decode", lambda self, ids, **given: true_decode(self, ids, **given).strip()
    )
    broken = by_name(list(text_laws(llm)))["text comes back"]
    assert (broken.status, "'  two spaces'" in broken.detail) == ("fail", True)
    assert [result.status for result in text_laws(LLM.of(llm.model))] == ["skipped"]


def test_a_template_that_forgets_what_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = byte_llm(tmp_path)
    template = type(llm.chat_template)
    monkeypatch.setattr(template, "render", lambda self, messages: "")
    assert by_name(list(text_laws(llm)))["template v1"].status == "fail"


@torch.inference_mode()
def second_halves(llm: LLM, text: str, context: int) -> Iterator[float]:
    """The protocol once more, each token with a forward of its own."""
    assert llm.tokenizer is not None
    ids = llm.tokenizer.encode(text, bos=True)
    for begin in range(0, len(ids) - context + 1, context):
        piece = [llm.tokenizer.bos_id, *ids[begin + 1 : begin + context]]
        for place in range(context // 2 + 1, context):
            tokens = torch.tensor(piece[:place])
            yield float(llm.model(tokens, [place])[-1].log_softmax(dim=-1)[piece[place]])


@pytest.mark.parametrize("chunk_size", [3, 8, 512])
def test_perplexity_by_llama_cpps_protocol(tmp_path: Path, chunk_size: int) -> None:
    llm = byte_llm(tmp_path, window=WINDOW, chunk_size=chunk_size)
    text = "The mistral blows from the north-west, cold and dry."
    expected = list(second_halves(llm, text, 16))
    found = half_context_perplexity(llm, text, context=16)
    assert (found.n_tokens, found.n_pieces, found.n_all) == (len(expected), 3, 3)
    assert found.n_tokens == 3 * 7
    assert found.perplexity == pytest.approx(math.exp(-sum(expected) / len(expected)), rel=1e-5)
    part = half_context_perplexity(llm, text, context=16, n_pieces=1)
    assert (part.n_pieces, part.n_all) == (1, 3)
    with pytest.raises(PromptError, match="one piece has 512"):
        half_context_perplexity(llm, text)
    assert llm.config.vocab_size == BYTE_VOCAB
