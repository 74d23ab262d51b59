"""The line below an answer."""

import pytest

from circius.cli.answer import Memory, statistics
from circius.engine.outputs import CompletionOutput, RequestOutput, Timings


def _line(**timings: int) -> str:
    output = CompletionOutput(index=0, text="", token_ids=[1], finish_reason="stop")
    counted = {"prompt_tokens": 3, "completion_tokens": 101, **timings}
    return statistics(
        RequestOutput(
            prompt=None,
            prompt_token_ids=[1, 2, 3],
            prompt_logprobs=None,
            outputs=[output],
            finished=True,
            timings=Timings(prefill_s=1.0, decode_s=10.0, time_to_first_token_s=1.0, **counted),
        ),
        Memory(cache_bytes=2048, peak_bytes=None),
    )


def test_the_share_of_accepted_drafts_stands_in_the_line() -> None:
    assert "10.0 tok/s · " in _line()
    assert "61% of 240 drafted tokens accepted" in _line(drafted_tokens=240, accepted_tokens=146)


@pytest.mark.parametrize("drafted", [{}, {"drafted_tokens": 0}])
def test_where_nothing_was_drafted_nothing_is_said(drafted: dict[str, int]) -> None:
    assert "drafted" not in _line(**drafted)
