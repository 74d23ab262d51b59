"""The scheduler by itself, by the thousand: a machine that computes nothing, and draws any token."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.base.config import Window
from circius.base.errors import InvalidInputError
from circius.engine.pool import PagePool
from circius.engine.prefix import PAGE, first_page_seen, root_key
from circius.engine.scheduler import Scheduler, SchedulerLimits, Work
from circius.engine.stream import Stream, most_pages

pytestmark = pytest.mark.quick
ROOT = root_key(b"")


def scheduler(
    n_pages: int = 64, *, window: Window = None, streams: int = 4, chunk: int = 100, mixed: int = 30
) -> Scheduler:
    limits = SchedulerLimits(max_streams=streams, chunk_size=chunk, mixed_chunk_size=mixed)
    return Scheduler(PagePool(n_pages), window, limits)


def stream(n_tokens: int, seed: int = 0) -> Stream:
    random = Random(seed)
    return Stream([random.randrange(1000) for _ in range(n_tokens)], root=ROOT)


def step(own: Scheduler, drafts: Sequence[int] = ()) -> list[Work]:
    """One step; every stream that has been read to its end gets the token 7."""
    works = own.plan(lambda streams: [drafts for _ in streams])
    for work in works:
        ends = work.reaches_end
        if ends:
            work.stream.tokens += [*work.draft, 7]
        own.advance(work, len(work.draft))
        assert ends == (work.stream.n_new == 1)
    own.check()
    return works


def test_a_prompt_alone_is_read_in_large_chunks_and_beside_others_in_small_ones() -> None:
    own = scheduler()
    first, second = stream(150, 1), stream(150, 2)
    own.submit(first)
    assert [work.n_tokens for work in step(own)] == [100]
    own.submit(second)
    assert [work.n_tokens for work in step(own)] == [50, 50], "what the first leaves free is the second's"
    for expected in (30, 30, 30, 10):
        works = step(own)
        assert [work.n_tokens for work in works] == [1, expected], "who is being decoded goes on in every step"
    assert [work.n_tokens for work in step(own)] == [1, 1]


def test_first_come_first_served() -> None:
    own = scheduler(streams=2)
    streams = [stream(20, seed) for seed in range(4)]
    for each in streams:
        own.submit(each)
    step(own)
    assert own.running == streams[:2]
    own.remove(streams[0])
    step(own)
    assert own.running == [streams[1], streams[2]]


def test_the_last_to_come_gives_way_and_returns_before_those_who_came_later() -> None:
    own = scheduler(4, streams=4)
    streams = [stream(PAGE, seed) for seed in range(4)]
    for each in streams[:2]:
        own.submit(each)
    step(own)
    for each in streams[2:]:
        own.submit(each)
    while own.n_preemptions == 0:
        step(own)
    assert own.running == [streams[0]]
    assert list(own.waiting)[:3] == streams[1:]
    assert streams[1].n_cached == 0
    assert own.n_preemptions == 1
    own.remove(streams[0])
    step(own)
    assert own.running[0] is streams[1]


def test_what_others_have_read_is_not_read_again() -> None:
    own = scheduler()
    first = stream(200, 1)
    own.submit(first)
    while not step(own)[0].reaches_end:
        pass
    twin, cousin = stream(200, 1), Stream([*first.tokens[:130], *([5] * 70)], root=ROOT)
    stranger = Stream(first.tokens[:200], root=root_key(b"another tenant"))
    for each in (twin, cousin, stranger):
        own.submit(each)
    own.limits = SchedulerLimits(max_streams=4, chunk_size=999, mixed_chunk_size=999)
    step(own)
    assert (twin.n_found, cousin.n_found, stranger.n_found) == (192, 128, 0)


def test_a_prompt_is_found_again_after_the_window_has_left_it() -> None:
    own = scheduler(64, window=100, chunk=64)
    first = stream(1000, 1)
    own.submit(first)
    while first.n_new > 1:
        step(own)
    assert len(first.pages) <= most_pages(1001, 100, 64) < 1000 // PAGE
    own.remove(first)
    again = stream(1000, 1)
    own.submit(again)
    step(own)
    assert again.n_found == 960
    assert first_page_seen(960, 100) <= 960 // PAGE - 1


def test_drafts_go_without_where_there_is_no_page() -> None:
    own = scheduler(1)
    one = stream(60)
    own.submit(one)
    step(own)
    step(own)
    works = own.plan(lambda streams: [[1, 2, 3, 4] for _ in streams])
    assert [list(work.draft) for work in works] == [[]]


def test_drafts_are_asked_for_only_where_all_are_decoded() -> None:
    own = scheduler()
    own.submit(stream(10, 1))
    step(own)
    own.submit(stream(10, 2))
    asked: list[int] = []
    own.plan(lambda streams: [asked.append(len(streams)) or () for _ in streams])
    assert not asked


def test_what_can_never_fit_is_refused() -> None:
    own = scheduler(4)
    own.check_fits(4 * PAGE)
    with pytest.raises(InvalidInputError, match="need 320 places in the cache, and it has 256"):
        own.check_fits(4 * PAGE + 1)
    scheduler(4, window=64, chunk=64).check_fits(10**9)


@pytest.mark.parametrize("name", ["max_streams", "chunk_size", "mixed_chunk_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_limits_are_checked(name: str, value: object) -> None:
    given_: dict[str, object] = {"max_streams": 1, "chunk_size": 1, "mixed_chunk_size": 1, name: value}
    with pytest.raises(InvalidInputError, match=name):
        SchedulerLimits(**given_)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=300)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 90)), min_size=1, max_size=12),
    arrivals=st.lists(st.integers(0, 60), min_size=12, max_size=12),
    n_pages=st.integers(7, 20),
    window=st.sampled_from([None, 1, 63, 64, 65, 100]),
    streams=st.integers(1, 6),
    chunk=st.integers(1, 120),
    mixed=st.integers(1, 120),
    draft=st.lists(st.integers(0, 9), max_size=5),
    shared=st.integers(0, 300),
    data=st.data(),
)
def test_all_end_whatever_comes_and_no_budget_is_exceeded(
    lengths: list[tuple[int, int]], arrivals: list[int], n_pages: int, window: Window, streams: int, chunk: int,
    mixed: int, draft: list[int], shared: int, data: st.DataObject,
) -> None:  # fmt: skip
    own = scheduler(n_pages, window=window, streams=streams, chunk=chunk, mixed=mixed)
    left: dict[Stream, int] = {}
    for index, (n_prompt, n_answer) in enumerate(lengths):
        prompt = [*([1] * min(shared, n_prompt)), *([index] * max(0, n_prompt - shared))]
        left[Stream(prompt, root=ROOT)] = n_answer
    coming = sorted(zip(arrivals, left, strict=False), key=lambda pair: pair[0])
    oldest: list[Stream] = []
    most = max(chunk, mixed)
    for time in range(40_000):
        while coming and coming[0][0] <= time:
            newcomer = coming.pop(0)[1]
            if most_pages(len(newcomer.tokens) + left[newcomer], window, most) > n_pages:
                del left[newcomer]
                continue
            own.submit(newcomer)
            oldest.append(newcomer)
        if not left:
            break
        n_decoded = sum(each.n_new == 1 for each in own.running)
        works = own.plan(lambda streams_: [draft for _ in streams_])
        if not works:
            assert not own.running
            assert not own.waiting
            continue
        assert len(works) <= streams
        if own.running:
            assert own.running[0] is oldest[0], "the first to come always advances"
            assert any(work.stream is oldest[0] for work in works)
        read = sum(work.n_tokens for work in works if not (work.n_tokens == 1 and work.stream.n_new == 1))
        assert read <= (mixed if n_decoded and len(works) > 1 and works[0].stream.n_new == 1 else most)
        for work in works:
            work_pages = len(work.stream.pages)
            drafted = -(-len(work.draft) // PAGE) + 1
            assert work_pages <= most_pages(10**6, window, most) + drafted if window else True
            if work.reaches_end:
                n_accepted = data.draw(st.integers(0, len(work.draft))) if work.draft else 0
                work.stream.tokens += [*work.draft[:n_accepted], 7]
                own.advance(work, n_accepted)
                left[work.stream] -= 1 + n_accepted
                if left[work.stream] <= 0:
                    own.remove(work.stream)
                    oldest.remove(work.stream)
                    del left[work.stream]
            else:
                own.advance(work)
        own.check()
    assert not left, "somebody waits for ever"
    assert own.pool.n_free == n_pages
