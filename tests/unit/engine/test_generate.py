"""The loop: what is forwarded and when, where answers end, what callbacks see, what comes back."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circius.base.errors import CirciusError, ContextOverflowError, ParamsError, PromptError
from circius.engine.llm import LLM
from circius.engine.outputs import CompletionOutput
from circius.engine.params import SamplingParams
from circius.engine.speculate import Speculator
from tests.unit.engine.tiny import answer_ids, byte_llm, tiny_model

PROMPT = [5, 6, 7, 8, 9, 10, 11]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return byte_llm(tmp_path_factory.mktemp("bytes"))


@contextmanager
def _forwards(model: nn.Module) -> Iterator[list[tuple[list[int], int]]]:
    """The lengths of the rows and the number of rows of logits of every forward."""
    seen: list[tuple[list[int], int]] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        seen.append((list(args[1]), len(output)))

    hook = model.register_forward_hook(note, with_kwargs=True)
    yield seen
    hook.remove()


def _only(llm: LLM, prompt: str | Sequence[int], params: SamplingParams, **more: Any) -> CompletionOutput:
    return llm.generate(prompt, params, **more)[0].outputs[0]


def test_greedy_equals_the_whole_text_forwarded_again_for_each_token(llm: LLM) -> None:
    ids = list(PROMPT)
    for _ in range(12):
        logits = llm.model(torch.tensor(ids), [len(ids)], logits="last")
        ids.append(int(logits.argmax()))
    assert answer_ids(llm, PROMPT, SamplingParams.greedy(max_tokens=12)) == ids[len(PROMPT) :]


def test_max_tokens_is_exact_and_the_last_token_is_not_forwarded(llm: LLM) -> None:
    with _forwards(llm.model) as seen:
        output = _only(llm, PROMPT, SamplingParams.greedy(max_tokens=5))
    assert len(output.token_ids) == 5
    assert output.finish_reason == "length"
    assert [lengths for lengths, _ in seen] == [[7], [1], [1], [1], [1]]


def test_prefill_makes_logits_of_the_last_token_only(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path, chunk_size=3)
    with _forwards(llm.model) as seen:
        llm.generate(PROMPT, SamplingParams.greedy(max_tokens=1))
    assert seen == [([3], 0), ([3], 0), ([1], 1)]


def test_ragged_prompts_share_chunks_without_padding(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path, chunk_size=4)
    with _forwards(llm.model) as seen:
        llm.generate([PROMPT[:2], PROMPT[:5], PROMPT[:1]], SamplingParams.greedy(max_tokens=1))
    assert [lengths for lengths, _ in seen] == [[2, 2], [3, 1]]


def test_the_prompt_of_n_answers_is_filled_in_once(llm: LLM) -> None:
    with _forwards(llm.model) as seen:
        outputs = llm.generate(PROMPT, SamplingParams(n=3, seed=0, max_tokens=2))[0].outputs
    assert [lengths for lengths, _ in seen] == [[7], [1, 1, 1]]
    assert [output.index for output in outputs] == [0, 1, 2]
    assert len({tuple(output.token_ids) for output in outputs}) == 3


def test_more_answers_than_rows_are_the_same_answers(tmp_path: Path) -> None:
    params = SamplingParams(n=5, seed=3, max_tokens=4, prompt_logprobs=1)
    wide, narrow = (byte_llm(tmp_path, max_rows=rows).generate([PROMPT, [4]], params) for rows in (16, 2))
    assert [[o.token_ids for o in out.outputs] for out in wide] == [
        [o.token_ids for o in out.outputs] for out in narrow
    ]
    assert narrow[1].prompt_logprobs == [None]
    assert len(narrow[0].prompt_logprobs or []) == len(PROMPT)
    assert narrow[0].timings.completion_tokens == 20


def test_a_row_that_ends_leaves_the_batch_at_once(llm: LLM) -> None:
    greedy = answer_ids(llm, PROMPT, SamplingParams.greedy(max_tokens=6))
    params = [SamplingParams.greedy(max_tokens=6), SamplingParams.greedy(max_tokens=6, stop_token_ids=[greedy[1]])]
    with _forwards(llm.model) as seen:
        both = llm.generate([PROMPT, PROMPT], params)
    n_stopped = greedy.index(greedy[1]) + 1
    assert both[1].outputs[0].token_ids == greedy[:n_stopped]
    assert both[0].outputs[0].token_ids == greedy
    assert [len(lengths) for lengths, _ in seen[1:]] == [2] * (n_stopped - 1) + [1] * (6 - n_stopped)


def test_the_own_end_token_ends_an_answer_and_shows_nothing(llm: LLM) -> None:
    assert llm.tokenizer is not None
    (eos,) = llm.tokenizer.eos_ids
    params = SamplingParams.greedy(max_tokens=9, min_tokens=3, logit_bias={eos: 1000.0})
    output = _only(llm, PROMPT, params)
    assert len(output.token_ids) == 4
    assert output.token_ids[-1] == eos
    assert (output.finish_reason, output.stop_reason) == ("stop", None)
    assert output.text == llm.tokenizer.decode(output.token_ids[:-1])
    ignoring = SamplingParams.greedy(max_tokens=9, logit_bias={eos: 1000.0}, ignore_eos=True)
    assert _only(llm, PROMPT, ignoring).token_ids == [eos] * 9


def test_a_stop_token_is_named_and_its_text_shown_only_if_asked(llm: LLM) -> None:
    letter = 3 + ord("x")
    params = {"max_tokens": 9, "min_tokens": 2, "logit_bias": {letter: 1000.0}, "stop_token_ids": [letter]}
    output = _only(llm, PROMPT, SamplingParams.greedy(**params))
    assert (output.finish_reason, output.stop_reason) == ("stop", letter)
    shown = _only(llm, PROMPT, SamplingParams.greedy(**params, include_stop_str_in_output=True))
    assert shown.text == output.text + "x"


def _writing(text: str) -> dict[str, Any]:
    """Parameters under which the byte model can only write the letters of `text`, all equally likely to follow."""
    return {"logit_bias": {3 + byte: 1000.0 for byte in text.encode()}}


def test_a_stop_text_is_found_across_tokens_and_cut_off(llm: LLM) -> None:
    free = _only(llm, PROMPT, SamplingParams(seed=1, max_tokens=40, **_writing("abc"))).text
    stop = free[20:23]
    begin = free.index(stop)
    cut = _only(llm, PROMPT, SamplingParams(seed=1, max_tokens=40, stop=[stop, "zz"], **_writing("abc")))
    assert cut.text == free[:begin]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", stop)
    assert len(cut.token_ids) == begin + 3
    params = SamplingParams(seed=1, max_tokens=40, stop=stop, include_stop_str_in_output=True, **_writing("abc"))
    assert _only(llm, PROMPT, params).text == free[: begin + 3]


def test_stop_texts_are_not_looked_for_before_min_tokens(llm: LLM) -> None:
    params = SamplingParams.greedy(max_tokens=10, min_tokens=4, stop="a", **_writing("a"))
    output = _only(llm, PROMPT, params)
    assert (output.text, len(output.token_ids), output.stop_reason) == ("aaaa", 5, "a")


def test_what_was_held_back_appears_at_the_end(llm: LLM) -> None:
    output = _only(llm, PROMPT, SamplingParams.greedy(max_tokens=4, stop="aaaaaa", **_writing("a")))
    assert (output.text, output.finish_reason) == ("aaaa", "length")


def test_pieces_join_to_the_text_and_tokens_to_the_tokens(llm: LLM) -> None:
    seen: dict[tuple[int, int], tuple[str, list[int]]] = {}

    def note(index: int, n_index: int, text: str, ids: Sequence[int]) -> None:
        before = seen.get((index, n_index), ("", []))
        seen[index, n_index] = (before[0] + text, [*before[1], *ids])

    params = SamplingParams(n=2, seed=4, max_tokens=30, stop=["\x01", "ab"])
    for index, out in enumerate(llm.generate(["Grüße", "x", [3, 4]], params, on_token=note)):
        for output in out.outputs:
            assert seen[index, output.index] == (output.text, output.token_ids)


def test_false_from_the_callback_aborts_that_answer_only(llm: LLM) -> None:
    calls: list[int] = []

    def stop_first(index: int, n_index: int, text: str, ids: Sequence[int]) -> bool:
        calls.append(index)
        return not (index == 0 and calls.count(0) == 3)

    first, second = llm.generate([PROMPT, PROMPT[:3]], SamplingParams.greedy(max_tokens=6), on_token=stop_first)
    assert (first.outputs[0].finish_reason, len(first.outputs[0].token_ids), first.finished) == ("abort", 3, False)
    assert (second.outputs[0].finish_reason, len(second.outputs[0].token_ids), second.finished) == ("length", 6, True)


def test_ctrl_c_gives_back_what_there_is(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path, max_rows=2)
    n_calls = 0

    def interrupt(*_: object) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 5:
            raise KeyboardInterrupt

    outs = llm.generate([PROMPT] * 3, SamplingParams.greedy(max_tokens=6), on_token=interrupt)
    assert [out.outputs[0].finish_reason for out in outs] == ["abort"] * 3
    assert [len(out.outputs[0].token_ids) for out in outs] == [3, 2, 0]
    assert outs[2].timings.time_to_first_token_s is None


def test_a_cancel_flag_stops_between_steps_and_in_prefill(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path, chunk_size=2)
    for n_checks in range(8):
        checks = iter([False] * n_checks)
        with _forwards(llm.model) as seen:
            out = llm.generate(PROMPT, SamplingParams.greedy(max_tokens=9), is_cancelled=lambda c=checks: next(c, True))
        assert out[0].outputs[0].finish_reason == "abort"
        assert len(seen) == n_checks, "one look before each of 4 chunks, then one before each token"


def test_logprobs_are_those_of_the_model_before_everything_else(llm: LLM) -> None:
    params = SamplingParams(seed=2, temperature=3.0, top_p=0.9, repetition_penalty=1.5, max_tokens=6, logprobs=3)
    output = _only(llm, PROMPT, params)
    assert output.logprobs is not None
    ids = torch.tensor(PROMPT + output.token_ids)
    expected = llm.model(ids, [len(ids)])[len(PROMPT) - 1 : -1].log_softmax(-1)
    for token, entry, row in zip(output.token_ids, output.logprobs, expected, strict=True):
        assert entry[token].logprob == pytest.approx(row[token].item(), abs=1e-5)
        assert entry[token].rank == int((row > row[token]).sum()) + 1
        top = row.topk(3).indices.tolist()
        assert [entry[t].rank for t in top] == [1, 2, 3]
        assert len(entry) == (3 if token in top else 4)
    total = sum(entry[token].logprob for token, entry in zip(output.token_ids, output.logprobs, strict=True))
    assert output.cumulative_logprob == pytest.approx(total)


def test_logprobs_name_their_tokens(llm: LLM) -> None:
    entry = (_only(llm, PROMPT, SamplingParams.greedy(max_tokens=1, logprobs=0, **_writing("q"))).logprobs or [])[0]
    assert [logprob.decoded_token for logprob in entry.values()] == ["q"]


def test_without_logprobs_nothing_is_reported(llm: LLM) -> None:
    out = llm.generate(PROMPT, SamplingParams.greedy())[0]
    assert (out.outputs[0].logprobs, out.outputs[0].cumulative_logprob, out.prompt_logprobs) == (None, None, None)


@pytest.mark.parametrize("chunk_size", [1, 3, 512])
def test_prompt_logprobs(tmp_path: Path, chunk_size: int) -> None:
    llm = byte_llm(tmp_path, chunk_size=chunk_size)
    plain, described = llm.generate(
        [PROMPT, PROMPT], [SamplingParams.greedy(), SamplingParams.greedy(prompt_logprobs=2)]
    )
    assert described.outputs[0].token_ids == plain.outputs[0].token_ids
    assert described.prompt_logprobs is not None
    assert described.prompt_logprobs[0] is None
    expected = llm.model(torch.tensor(PROMPT), [len(PROMPT)]).log_softmax(-1)
    for row, token, entry in zip(expected, PROMPT[1:], described.prompt_logprobs[1:], strict=False):
        assert entry is not None
        assert entry[token].logprob == pytest.approx(row[token].item(), abs=1e-5)
        assert set(row.topk(2).indices.tolist()) <= set(entry)


def test_the_context_is_checked_before_anything_is_computed(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path, context=10)
    with _forwards(llm.model) as seen:
        with pytest.raises(ContextOverflowError, match=r"7 tokens and max_tokens is 4: together 11.*context of 10"):
            llm.generate([[3], PROMPT], SamplingParams(max_tokens=4))
        with pytest.raises(ContextOverflowError, match="10 tokens and the context is 10"):
            llm.generate([3] * 10, SamplingParams(max_tokens=None))
    assert seen == []
    assert len(answer_ids(llm, PROMPT, SamplingParams(max_tokens=None, ignore_eos=True))) == 3
    assert len(answer_ids(llm, PROMPT, SamplingParams(max_tokens=3, ignore_eos=True))) == 3


@pytest.mark.parametrize(
    ("prompt", "params", "error", "match"),
    [
        ([], {}, None, None),
        ([[]], {}, PromptError, "empty"),
        ([259], {}, PromptError, "tokens 0 to 258"),
        ([-1], {}, PromptError, "tokens 0 to 258"),
        ([1.5], {}, PromptError, "a text or a list of token ids"),
        (None, {}, PromptError, "NoneType"),
        (b"x", {}, PromptError, "bytes"),
        ({"text": "x"}, {}, PromptError, "prompt_token_ids"),
        ("x", {"logit_bias": {300: 1.0}}, ParamsError, "logit_bias"),
        ("x", {"stop_token_ids": [300]}, ParamsError, "stop_token_ids"),
    ],
)
def test_bad_prompts(
    llm: LLM, prompt: Any, params: dict[str, Any], error: type[Exception] | None, match: str | None
) -> None:
    if error is None:
        assert llm.generate(prompt, SamplingParams(**params)) == []
        return
    with pytest.raises(error, match=match):
        llm.generate(prompt, SamplingParams(**params))


def test_prompts_come_in_every_form(llm: LLM) -> None:
    greedy = SamplingParams.greedy(max_tokens=3)
    ids = [1, 3 + ord("H"), 3 + ord("i")]
    forms: list[Any] = ["Hi", ["Hi"], ids, [ids], {"prompt_token_ids": ids}, [{"prompt": "Hi"}]]
    outs = [llm.generate(form, greedy) for form in forms]
    assert [out[0].prompt_token_ids for out in outs] == [ids] * len(forms)
    assert [len(out) for out in outs] == [1] * len(forms)
    assert len({tuple(out[0].outputs[0].token_ids) for out in outs}) == 1


def test_as_many_parameters_as_prompts(llm: LLM) -> None:
    with pytest.raises(PromptError, match="1 SamplingParams for 2 prompts"):
        llm.generate(["a", "b"], [SamplingParams()])


def test_without_a_tokenizer_ids_go_in_and_out() -> None:
    llm = LLM.of(tiny_model())
    output = llm.generate(PROMPT, SamplingParams.greedy(max_tokens=3, logprobs=1))[0].outputs[0]
    assert (output.text, len(output.token_ids)) == ("", 3)
    with pytest.raises(PromptError, match="without a tokenizer"):
        llm.generate("text")
    with pytest.raises(ParamsError, match="need a tokenizer"):
        llm.generate(PROMPT, SamplingParams(stop="x"))


@pytest.mark.parametrize("params", [SamplingParams.greedy(), SamplingParams(top_p=0.9, logprobs=1)])
def test_a_model_that_is_not_finite_is_an_error_not_an_answer(params: SamplingParams) -> None:
    model = tiny_model()
    model.model.norm.weight.data.fill_(math.nan)
    with pytest.raises(CirciusError, match="not finite"):
        LLM.of(model).generate(PROMPT, params)


def test_forbidding_every_token_is_an_error() -> None:
    bias = dict.fromkeys(range(61), -math.inf)
    with pytest.raises(CirciusError, match="forbids all"):
        LLM.of(tiny_model()).generate(PROMPT, SamplingParams(logit_bias=bias))


def test_timings_add_up(llm: LLM) -> None:
    timings = llm.generate(PROMPT, SamplingParams.greedy(max_tokens=5))[0].timings
    assert (timings.prompt_tokens, timings.completion_tokens, timings.cached_tokens) == (7, 5, 0)
    assert timings.prefill_s > 0
    assert timings.decode_s > 0
    assert timings.time_to_first_token_s is not None
    assert timings.time_to_first_token_s >= timings.prefill_s
    assert timings.decode_tokens_per_s == pytest.approx(4 / timings.decode_s)


@pytest.mark.parametrize("given", [{"max_rows": 0}, {"chunk_size": 0}, {"max_rows": 1.5}])
def test_batch_limits_are_checked(given: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=next(iter(given))):
        LLM.of(tiny_model(), **given)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_every_way_of_sampling_gives_the_same_tokens(llm: LLM) -> None:
    params = [
        SamplingParams.greedy(max_tokens=20, logprobs=2, prompt_logprobs=1),
        SamplingParams(seed=1, n=3, top_p=0.9, top_k=40, min_p=0.01, max_tokens=20, min_tokens=3),
        SamplingParams(seed=2, repetition_penalty=1.2, presence_penalty=0.5, logit_bias={9: -math.inf}, max_tokens=20),
    ]
    here, there = (
        LLM.of(copy.deepcopy(llm.model).to(device), tokenizer=llm.tokenizer, context=400).generate([PROMPT] * 3, params)
        for device in ("cpu", "cuda")
    )
    assert [[o.token_ids for o in out.outputs] for out in here] == [[o.token_ids for o in out.outputs] for out in there]


def test_reading_the_prompts_is_told_chunk_by_chunk(tmp_path: Path) -> None:
    small_chunks = byte_llm(tmp_path, chunk_size=8)
    told: list[tuple[int, int]] = []
    params = SamplingParams.greedy(max_tokens=2)
    small_chunks.generate([PROMPT, PROMPT * 2], params, on_prefill=lambda done, total: told.append((done, total)))
    assert told == [(0, 21), (8, 21), (16, 21), (21, 21)]
    told.clear()
    small_chunks.chat([{"role": "user", "content": "hi"}], params, on_prefill=lambda *now: told.append(now))
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] == len("[INST] hi [/INST]") + 1


def _with_drafts(folder: Path, monkeypatch: pytest.MonkeyPatch, speculate: int) -> LLM:
    """A model whose drafts do not depend on the clock: every step seems to take the same time."""
    timed = Speculator.timed
    monkeypatch.setattr(Speculator, "timed", lambda self, n_rows, n_tokens, _: timed(self, n_rows, n_tokens, 1.0))
    return byte_llm(folder, speculate=speculate)


def test_right_drafts_save_forwards_and_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = _with_drafts(tmp_path, monkeypatch, 4)
    with _forwards(llm.model) as seen:
        out = llm.generate(PROMPT, SamplingParams.greedy(max_tokens=20, **_writing("a")))[0]
    assert out.outputs[0].text == "a" * 20
    # One token from the pre-fill, one from a plain step to be measured, then the guesses and one more a step.
    assert [lengths for lengths, _ in seen] == [[7], [1], [3], [5], [5], [5]]
    assert (out.timings.drafted_tokens, out.timings.accepted_tokens) == (14, 14)


def test_wrong_drafts_are_counted_and_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = _with_drafts(tmp_path, monkeypatch, 4)
    prompt = [*b"abcabcabcabcabc"]
    out = llm.generate([prompt], SamplingParams(seed=1, max_tokens=30, **_writing("abc")))[0]
    assert 0 <= out.timings.accepted_tokens < out.timings.drafted_tokens
    expected = byte_llm(tmp_path).generate([prompt], SamplingParams(seed=1, max_tokens=30, **_writing("abc")))[0]
    assert out.outputs == expected.outputs


def test_what_is_drafted_behind_the_end_is_not_counted_as_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = _with_drafts(tmp_path, monkeypatch, 8)
    out = llm.generate(PROMPT, SamplingParams.greedy(max_tokens=50, stop="aaa", **_writing("a")))[0]
    assert (out.outputs[0].text, len(out.outputs[0].token_ids)) == ("", 3)
    assert (out.timings.drafted_tokens, out.timings.accepted_tokens) == (2, 1)


@pytest.mark.parametrize("speculate", [-1, 1.5, True, "8"])
def test_speculate_is_a_number_of_tokens(speculate: Any) -> None:
    with pytest.raises(ParamsError, match="speculate must be"):
        LLM.of(tiny_model(), speculate=speculate)


def test_speculation_with_weights_that_are_not_packed_comes_with_a_note() -> None:
    assert LLM.of(tiny_model()).notes == ()
    assert "last bits" in LLM.of(tiny_model(), speculate=4).notes[0]


def test_a_bar_counts_the_answers(llm: LLM, capfd: pytest.CaptureFixture[str]) -> None:
    llm.generate([PROMPT] * 5, SamplingParams.greedy(max_tokens=2), progress=True)
    assert "5/5" in capfd.readouterr().err
    llm.generate([PROMPT] * 5, SamplingParams.greedy(max_tokens=2))
    assert capfd.readouterr().err == ""
