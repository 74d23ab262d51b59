"""`circius arena`: which of two answers is better, without knowing whose they are."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circius.base.errors import InvalidInputError
from circius.cli import options, sampling_options
from circius.cli.loading import ModelOptions
from circius.cli.output import Output, table
from circius.cli.progress import OnProgress, progress
from circius.cli.talking import (
    ANSWERS,
    Concurrency,
    EndpointKeyEnv,
    JudgeModel,
    JudgeUrl,
    KeyEnv,
    endpoint,
    engine_chats,
    judge_of,
)

if TYPE_CHECKING:
    from circius.evals.arena.matches import Match
    from circius.evals.arena.report import Report
    from circius.evals.chats import Chats

NAME = "arena"
VOTING = "Voting"


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where answers and votes are kept; runs go on there.",
                             show_default=False)
    ],
    prompts: Annotated[
        Path, typer.Option("--prompts", metavar="F", help="A prompt a line, or JSON lines with `prompt`.",
                           show_default=False, rich_help_panel=ANSWERS)
    ],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="[LABEL=]MODEL", help="A model that answers, in this process; repeatable.",
                     show_default="those with answers in FOLDER", rich_help_panel=ANSWERS),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option("--endpoint", metavar="NAME=URL", help="A model that answers, behind a server; repeatable.",
                     show_default="none", rich_help_panel=ANSWERS),
    ] = None,
    endpoint_key_env: EndpointKeyEnv = None,
    temperature: sampling_options.Temperature = 0.7,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", min=1, help="Of an answer.", rich_help_panel=ANSWERS)
    ] = 512,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Of the answers, of the order of the matches, of the intervals.",
                          rich_help_panel=ANSWERS)
    ] = 0,
    vote: Annotated[
        bool, typer.Option("--vote", metavar=options.FLAG, help="Open a local page on which to vote; Ctrl-C ends it.",
                           rich_help_panel=VOTING)
    ] = False,
    voter: Annotated[str, typer.Option("--voter", metavar="NAME", help="Who votes.", rich_help_panel=VOTING)] = "me",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Of that page.", show_default="any free one",
                          rich_help_panel=VOTING)
    ] = 0,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    key_env: KeyEnv = None,
    concurrency: Concurrency = 8,
    threads: options.Threads = None,
    dtype: options.DTypeOption = options.DType.AUTO,
    device: options.DeviceOption = "auto",
    activations: options.ActivationsOption = options.Activations.AUTO,
    kv_bits: options.KVBitsOption = None,
    context: options.Context = None,
    window: options.Window = None,
    rope_theta: options.RopeTheta = None,
    template: options.TemplateOption = options.Template.AUTO,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Compare models by the answers that people, or a judge, prefer.

    Every two models meet at every prompt twice, once with each of them first. With --vote a person chooses on a local
    page, blind; with --judge-url and --judge-model a model does. Prints scores in the manner of chess ratings
    (Bradley-Terry) with bootstrap intervals, for each voter.
    """
    output = Output(as_json=as_json, quiet=quiet)
    judge = judge_of(judge_url, judge_model, key_env, concurrency)
    local, remote = named(model or [], "--model"), named(at or [], "--endpoint", needs_label=True)
    labels = [label for label, _ in (*local, *remote)]
    if len(set(labels)) < len(labels):
        raise InvalidInputError(f"two models have the same label: {', '.join(labels)}; give LABEL=MODEL")
    if endpoint_key_env is not None and not remote:
        raise InvalidInputError("--endpoint-key-env is for an --endpoint, and none was given")
    if port and not vote:
        raise InvalidInputError("--port is of the page on which to vote: give --vote too")
    from circius.evals.arena.answers import Sampling, answer_prompts, answers_in, read_prompts
    from circius.evals.arena.matches import matches_of

    asked = read_prompts(prompts)
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)

    def local_chats(name: str) -> "Chats":
        loading = ModelOptions(
            model=name, dtype=dtype, device=device, activations=activations, kv_bits=kv_bits, context=context,
            window=window, rope_theta=rope_theta, threads=threads, template=template,
        )  # fmt: skip
        return engine_chats(loading, output)

    def remote_chats(label: str, url: str) -> "Chats":
        return endpoint(url, label, key_env=endpoint_key_env, concurrency=concurrency)

    # All are looked up before any answers; each is let go of when it has, because it holds a loaded model by then.
    models = [(label, local_chats(where)) for label, where in local]
    models += [(label, remote_chats(label, where)) for label, where in remote]
    while models:
        label, chats = models.pop(0)
        with progress(f"{label} answers", output) as on_progress:
            answer_prompts(asked, label, chats, folder, sampling, on_done=partial(_tell, on_progress))
        del chats
    known = answers_in(folder)
    matches = matches_of(asked, {label: known[label] for label in labels or known}, seed=seed)
    if vote:
        _vote(folder, voter, matches, port, output)
    n_silent = 0
    if judge is not None:
        n_silent = _judge(folder, judge, matches, output)
    _report(folder, matches, seed, n_silent, output)


def _tell(on_progress: OnProgress, done: int, total: int) -> None:
    on_progress(done, total)


def named(given: Sequence[str], option: str, *, needs_label: bool = False) -> list[tuple[str, str]]:
    """Labels and what they stand for.

    >>> named(["demo", "mine=runs/mine"], "--model")
    [('demo', 'demo'), ('mine', 'runs/mine')]

    Raises:
        InvalidInputError: one is empty, or has no label where it needs one.
    """
    found = []
    for each in given:
        label, sign, what = each.partition("=")
        if not sign and not needs_label:
            what = label
        if not label or not what:
            raise InvalidInputError(f"{option} takes {'NAME=URL' if needs_label else '[LABEL=]MODEL'}, got {each!r}")
        found.append((label, what))
    return found


def _vote(folder: Path, voter: str, matches: Sequence["Match"], port: int, output: Output) -> None:
    from circius.evals.arena.ballot import Ballot
    from circius.evals.arena.page_server import PageServer

    with Ballot(folder, voter, matches) as ballot:
        server = PageServer(ballot, port=port)
        output.reply(f"vote at {server.url} ({ballot.n_done} of {len(matches)} done); Ctrl-C ends it")
        try:
            server.serve()
        except KeyboardInterrupt:
            output.reply("")


def _judge(folder: Path, judge: "Chats", matches: Sequence["Match"], output: Output) -> int:
    from circius.evals.arena.ballot import Ballot
    from circius.evals.arena.judge import judge_all, voter_of

    with Ballot(folder, voter_of(judge), matches) as ballot, progress("judging", output) as on_progress:
        return judge_all(ballot, judge, on_done=lambda done, n: on_progress(done, n))


def _report(folder: Path, matches: Sequence["Match"], seed: int, n_silent: int, output: Output) -> None:
    from circius.evals.arena.ballot import votes_in
    from circius.evals.arena.report import report

    if n_silent:
        output.note(f"{n_silent} judgements named no winner, and are no votes")
    ids = {match.id for match in matches}
    reports = []
    for voter, votes in votes_in(folder).items():
        here = [vote for vote in votes if vote.match in ids]
        if len(here) < len(votes):
            output.note(f"{len(votes) - len(here)} votes of {voter} are on other answers, and do not count here")
        if here:
            reports.append(report(voter, here, seed=seed))
    output.note("scores compare these models with each other, and with nothing that is not in this arena")
    if output.as_json:
        output.emit({"matches": len(matches), "voters": [fields(own) for own in reports]})
        return
    if not reports:
        output.line(f"{len(matches)} matches, no votes yet: --vote, or a judge")
    for own in reports:
        output.line(shown(own))


def shown(own: "Report") -> str:
    """One voter's scores for people."""
    rows = [
        [each.model, f"{each.score:.0f}", f"{each.low:.0f} to {each.high:.0f}", f"{each.wins}", f"{each.ties}",
         f"{each.losses}"]
        for each in own.standings
    ]  # fmt: skip
    lines = [f"{own.voter}: {own.n_votes} votes", table(["model", "score", "95 %", "won", "tied", "lost"], rows)]
    if own.first_wins is not None:
        lines.append(f"of the decided votes {own.first_wins:.0%} went to whoever stood first")
    if own.twice:
        lines.append(f"{own.agreed} of {own.twice} pairs came out the same in both orders")
    return "\n".join(lines) + "\n"


def fields(own: "Report") -> dict[str, Any]:
    """The same for machines."""
    return {
        "voter": own.voter,
        "votes": own.n_votes,
        "first_wins": own.first_wins,
        "judged_twice": own.twice,
        "agreed": own.agreed,
        "models": [
            {"model": each.model, "score": each.score, "interval": [each.low, each.high], "wins": each.wins,
             "ties": each.ties, "losses": each.losses}
            for each in own.standings
        ],
    }  # fmt: skip
