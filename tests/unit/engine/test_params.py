"""Sampling parameters: every range is checked when they are given, with the value and the range in the message."""

import math
import subprocess
import sys
from typing import Any

import pytest

from circius.base.errors import ParamsError
from circius.engine.params import SamplingParams

NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", v) for v in (-0.1, NAN, math.inf, "1", True, None)),
        *(("top_p", v) for v in (0, -0.5, 1.0001, NAN)),
        *(("min_p", v) for v in (-0.1, 1.1, NAN)),
        *(("top_k", v) for v in (-2, 1.5, True)),
        *(("repetition_penalty", v) for v in (0, -1, NAN, math.inf)),
        *(("presence_penalty", v) for v in (-2.1, 2.1, NAN)),
        *(("frequency_penalty", v) for v in (-2.1, 2.1, NAN)),
        *(("n", v) for v in (0, -1, 1.0, True)),
        *(("max_tokens", v) for v in (0, -5, 2.5)),
        *(("min_tokens", v) for v in (-1, None)),
        *(("logprobs", v) for v in (-1, 101)),
        *(("prompt_logprobs", v) for v in (-1, 101)),
        *(("seed", v) for v in (0.5, "x")),
        *(("ignore_eos", v) for v in (1, None)),
        *(("stop", v) for v in ("", ["a", ""], [1], 3)),
        *(("stop_token_ids", v) for v in ([-1], ["2"], "12", 7)),
        *(("logit_bias", v) for v in ({-1: 1.0}, {"5": 1.0}, {5: NAN}, {5: math.inf}, [(1, 2)])),
    ],
)
def test_refuses_a_value_outside_its_range_and_names_it(name: str, value: object) -> None:
    with pytest.raises(ParamsError, match=name):
        SamplingParams(**{name: value})


def test_the_message_says_what_was_given_and_what_is_allowed() -> None:
    with pytest.raises(ParamsError, match=r"top_p must be a number, above 0 and at most 1, got 1\.5"):
        SamplingParams(top_p=1.5)
    with pytest.raises(ParamsError, match=r"max_tokens must be a whole number, 1 or more, or None, got 0"):
        SamplingParams(max_tokens=0)


@pytest.mark.parametrize(
    "given",
    [
        {"temperature": 0},
        {"top_p": 1, "top_k": -1, "min_p": 1},
        {"max_tokens": None, "seed": -3},
        {"logit_bias": {3: -math.inf, 4: 100}},
        {"presence_penalty": -2, "frequency_penalty": 2, "repetition_penalty": 0.5},
        {"n": 3, "logprobs": 0, "prompt_logprobs": 100},
    ],
)
def test_accepts_the_borders(given: dict[str, Any]) -> None:
    SamplingParams(**given)


def test_stop_is_one_text_or_several() -> None:
    assert SamplingParams(stop="END").stops == ("END",)
    assert SamplingParams(stop=["a", "b"]).stops == ("a", "b")
    assert SamplingParams().stops == ()
    assert SamplingParams(stop_token_ids=[5, 6, 5]).stop_ids == {5, 6}


def test_greedy_answers_would_all_be_the_same() -> None:
    with pytest.raises(ParamsError, match="n must be 1"):
        SamplingParams(n=2, temperature=0)


def test_min_tokens_above_max_tokens_contradict_each_other() -> None:
    with pytest.raises(ParamsError, match=r"min_tokens \(20\)"):
        SamplingParams(min_tokens=20, max_tokens=10)
    SamplingParams(min_tokens=20, max_tokens=None)


@pytest.mark.parametrize("given", [{"logit_bias": {50: 1.0}}, {"stop_token_ids": [50]}])
def test_ids_beyond_the_vocabulary_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match="0 to 49, got 50"):
        SamplingParams(**given).check_vocabulary(50)


def test_the_callers_dictionary_is_copied() -> None:
    bias = {1: 2.0}
    params = SamplingParams(logit_bias=bias)
    bias[2] = 3.0
    assert params.logit_bias == {1: 2.0}


def test_needs_no_torch() -> None:
    code = "import circius.engine.params, circius.engine.outputs, circius, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
