"""`circius mt-bench`: answers to 80 questions of two turns, rated by a judge."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circius.base.errors import InvalidInputError
from circius.cli import options
from circius.cli.loading import ModelOptions, refuse_loading
from circius.cli.output import Output, table
from circius.cli.progress import progress
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
    from circius.evals.chats import Chats
    from circius.evals.mt_bench.score import Mean, Scores

NAME = "mt-bench"
NOT_GPT_4 = (
    "ratings by any judge but the GPT-4 of 2023 do not compare with the paper's: compare models by one judge, in one go"
)


def command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help=f"{options.MODEL_HELP[:-1]}, or a name at --endpoint.",
                            show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Where answers and judgements are kept; runs go on there.",
                           show_default=False)
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", help="The folder with the data sets.",
                     show_default="where `circius data eval mt_bench` puts them"),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="Iterations; the paper's Table 4 has 10.",
                          rich_help_panel=ANSWERS)
    ] = 3,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Only N questions, spread over the categories.",
                                 show_default="all 80", rich_help_panel=ANSWERS)
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", min=1, help="Of an answer.", rich_help_panel=ANSWERS)
    ] = 1024,
    at: Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="MODEL is behind this OpenAI-compatible server.",
                                 show_default="none: in this process", rich_help_panel=ANSWERS)
    ] = None,
    endpoint_key_env: EndpointKeyEnv = None,
    system: options.System = None,
    guard: options.Guard = False,
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
    adapter: options.Adapter = None,
    template: options.TemplateOption = options.Template.AUTO,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Rate a chat model with MT-Bench: 80 questions of two turns, each answer judged from 1 to 10.

    Answers come at FastChat's temperatures, some seeds; the judge is any model behind OpenAI's protocol and sees
    FastChat's prompts. Without a judge the answers are made and kept, and a later run judges them. Prints mean and
    deviation over the seeds, by turn and by category.
    """
    output = Output(as_json=as_json, quiet=quiet)
    judge = judge_of(judge_url, judge_model, key_env, concurrency)
    from circius.evals.data.sets.mt_bench import read_judge_prompts, read_mt_bench
    from circius.evals.mt_bench.answer import check_questions
    from circius.evals.mt_bench.judge import check_judging
    from circius.evals.mt_bench.run import Settings, answer_questions, judge_answers, spread
    from circius.evals.mt_bench.score import scores_of

    docs = spread(read_mt_bench(data), limit)
    prompts = read_judge_prompts(data)
    check_questions(docs)
    check_judging(docs, prompts)
    loading = ModelOptions(
        model=model, dtype=dtype, device=device, activations=activations, kv_bits=kv_bits, context=context,
        window=window, rope_theta=rope_theta, threads=threads, template=template, adapter=adapter,
    )  # fmt: skip
    talking = _Talking(at=at, key_env=endpoint_key_env, concurrency=concurrency, system=system, guard=guard)
    chats = _chats(loading, talking, output)
    settings = Settings(seeds=range(seeds), max_tokens=max_tokens)
    with progress("answering", output) as on_progress:
        answers = answer_questions(docs, chats, out, settings, on_done=lambda done, n: on_progress(done, n))
    n_cut = sum(any(own.is_cut) for own in answers)
    if n_cut:
        output.note(f"{n_cut} of {len(answers)} answers were cut off at {max_tokens} tokens")
    if limit is not None:
        output.note(f"only {len(docs)} questions: the score is not MT-Bench's")
    if judge is None:
        output.note("no judge was named, so the answers are kept and not rated; name one, with the same --out")
        if as_json:
            output.emit({"model": model, "answers": len(answers), "out": str(out)})
        else:
            output.line(f"{len(answers)} answers in {out}")
        return
    with progress("judging", output) as on_progress:
        ratings = judge_answers(docs, answers, judge, prompts, out, on_done=lambda done, n: on_progress(done, n))
    scores = scores_of(ratings)
    output.note(NOT_GPT_4)
    if scores.n_failed:
        output.note(f"{scores.n_failed} of {scores.n} judgements had no rating from 1 to 10, and count nowhere")
    if as_json:
        output.emit({"model": model, "judge": judge_model, **fields(scores), "out": str(out)})
    else:
        output.line(shown(scores))


@dataclass(frozen=True, kw_only=True)
class _Talking:
    at: str | None
    key_env: str | None
    concurrency: int
    system: str | None
    guard: bool


def _chats(loading: ModelOptions, talking: _Talking, output: Output) -> "Chats":
    if talking.at is None:
        if talking.key_env is not None:
            raise InvalidInputError("--endpoint-key-env is for an --endpoint, and none was given")
        return engine_chats(loading, output, system=talking.system, guard=talking.guard)
    if talking.guard:
        raise InvalidInputError("--guard is for a model in this process: give an endpoint its words with --system")
    refuse_loading(loading)
    return endpoint(
        talking.at, loading.model, key_env=talking.key_env, concurrency=talking.concurrency, system=talking.system
    )


def shown(scores: "Scores") -> str:
    """The scores as a table, the paper's below."""
    from circius.evals.mt_bench.score import PUBLISHED

    rows = [["overall", _mean(scores.overall)]]
    rows += [[f"turn {turn}", _mean(own)] for turn, own in scores.by_turn.items()]
    rows += [[name, _mean(own)] for name, own in scores.by_category.items()]
    paper = table(["the paper, judged by GPT-4", ""], [[name, score] for name, score in PUBLISHED.items()])
    return f"{table(['', 'rating'], rows)}\n\n{paper}"


def fields(scores: "Scores") -> dict[str, Any]:
    """The scores for machines."""
    return {
        "overall": _described(scores.overall),
        "by_turn": {str(turn): _described(own) for turn, own in scores.by_turn.items()},
        "by_category": {name: _described(own) for name, own in scores.by_category.items()},
        "judgements": scores.n,
        "judgements_without_rating": scores.n_failed,
    }


def _mean(mean: "Mean | None") -> str:
    return "no rating" if mean is None else str(mean)


def _described(mean: "Mean | None") -> dict[str, Any] | None:
    if mean is None:
        return None
    return {"mean": mean.value, "deviation": mean.deviation, "seeds": mean.n_seeds, "ratings": mean.n_ratings}
