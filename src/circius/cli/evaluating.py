"""What `circius eval` does: from names of tasks to figures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circius.base.errors import InvalidInputError
from circius.cli.loading import ModelOptions, find_model, open_llm
from circius.cli.output import Output, table
from circius.cli.progress import progress
from circius.cli.serve import name_of
from circius.cli.talking import key_from
from circius.cli.texts import check_readable

if TYPE_CHECKING:
    from circius.evals.model import Model, Tokens
    from circius.evals.questions import Exam
    from circius.evals.record import RunFolder
    from circius.evals.task import Sources, Task
    from circius.evals.tasks import Suite
    from circius.evals.tasks.settings import RunPrograms, Settings

DEFAULT_SUITE = "quick"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user wants measured, and how."""

    suites: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    text: Path | None = None
    limit: int | None = None
    seed: int = 0
    data: Path | None = None
    out: Path | None = None
    samples: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    unsafe_no_sandbox: bool = False
    examples: bool = True


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server that has the model."""

    url: str
    key_env: str | None
    concurrency: int


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A task and how many of its items."""

    task: "Task"
    limit: int | None


def list_tasks(output: Output) -> None:
    """Prints the suites and the tasks."""
    from circius.evals.tasks import NAMES, SUITES, make_task
    from circius.evals.tasks.settings import Settings

    tasks = [make_task(name, Settings()) for name in NAMES]
    if output.as_json:
        suites = {
            name: {"about": suite.about, "tasks": suite.tasks, "limit": suite.limit} for name, suite in SUITES.items()
        }
        output.emit({"suites": suites, "tasks": {task.name: task.about for task in tasks}})
        return
    output.line(table(["suite", "what"], [[name, suite.about] for name, suite in SUITES.items()]))
    output.line()
    output.line(table(["task", "protocol"], [[task.name, task.about] for task in tasks]))


def show_prompts(asked: Asked, loading: ModelOptions, served: Endpoint | None, output: Output) -> None:
    """Prints what is asked about the first item of each task, with the tokens where they are known."""
    from circius.evals.model import Tokens
    from circius.evals.questions import describe_ask
    from circius.evals.show import prompt_lines

    tokens: Tokens | None = None
    if served is None:
        from circius.text import load_tokenizer

        tokenizer = load_tokenizer(find_model(loading.model, output))
        start = tokenizer.bos_id if tokenizer.bos_id is not None else min(tokenizer.eos_ids, default=None)
        tokens = Tokens(
            encode=tokenizer.encode, start=start, adds_bos=tokenizer.adds_bos, context=loading.context or 4096
        )
    wanted = _wanted(asked, output)
    exams = _exams(wanted, _sources(asked, tokens), asked.seed)
    shown: dict[str, Any] = {}
    for exam in exams:
        question = exam.question(exam.items[0])
        lines = prompt_lines([describe_ask(ask) for ask in question.asks])
        shown[exam.task.name] = {"id": question.item.id, "asks": [describe_ask(ask) for ask in question.asks]}
        if output.as_json:
            continue
        output.line(f"== {exam.task.name}, item {question.item.id}: {exam.task.about}")
        for name, text in lines:
            output.line(f"-- {name}")
            output.line(text)
            if tokens is not None and name in ("context", "prompt"):
                bos = [tokens.start] if tokens.adds_bos and tokens.start is not None else []
                output.line(f"-- tokens of the {name}")
                output.line(" ".join(map(str, [*bos, *tokens.encode(text)])))
    if output.as_json:
        output.emit({"prompts": shown})


def evaluate(asked: Asked, loading: ModelOptions, served: Endpoint | None, output: Output, *, max_streams: int) -> None:
    """Runs the tasks, writes the report and prints the table."""
    from circius.evals.record import RunFolder
    from circius.evals.report import html_report
    from circius.evals.runner import Listeners, run
    from circius.weights.target import new_file

    wanted = _wanted(asked, output)
    # Whatever can be wrong with the data is found out before a model is loaded; only texts need its tokenizer.
    exams = _exams([one for one in wanted if not _is_of_text(one.task)], _sources(asked, None), asked.seed)
    model, described = _model(loading, served, output, max_streams=max_streams)
    exams += _exams([one for one in wanted if _is_of_text(one.task)], _sources(asked, model.tokens), asked.seed)
    folder = RunFolder(asked.out or Path("runs") / f"eval-{name_of(loading.model).replace('/', '-')}")
    with progress("evaluating", output) as on_progress:
        done = dict.fromkeys((exam.task.name for exam in exams), 0.0)
        n_items = sum(len(exam.items) for exam in exams)

        def heard(name: str, n_done: float, _: int) -> None:
            done[name] = n_done
            on_progress(round(sum(done.values())), n_items, name)

        try:
            results = run(
                model, exams, folder, described=described, listeners=Listeners(on_items=heard, on_note=output.note)
            )
        except KeyboardInterrupt:
            output.reply(f"stopped: the same command goes on from what is in {folder.path}")
            raise
    page = html_report(folder, examples=asked.examples)
    with new_file(folder.report, n_bytes=len(page.encode()), overwrite=True) as temporary:
        temporary.write_text(page, encoding="utf-8")
    _tell(results, exams, folder, output)


def _tell(results: dict[str, Any], exams: Sequence["Exam"], folder: "RunFolder", output: Output) -> None:
    from circius.evals.show import run_rows, task_notes

    own = {**results, "tasks": {exam.task.name: results["tasks"][exam.task.name] for exam in exams}}
    for sentence in task_notes(own):
        output.note(sentence)
    if output.as_json:
        output.emit({**own, "out": str(folder.path), "report": str(folder.report)})
        return
    output.line(table(*run_rows(own)))
    output.dim(f"{folder.report}")


def _wanted(asked: Asked, output: Output) -> list[_Wanted]:
    """The tasks in the order in which they were asked for, each once.

    Raises:
        InvalidInputError: an unknown name, or settings out of range.
    """
    from circius.evals.tasks import OF_A_TEXT, find_suite, make_task
    from circius.evals.tasks.settings import Settings

    settings = Settings(samples=asked.samples, temperature=asked.temperature, top_p=asked.top_p)
    names = list(asked.suites)
    if not names and not asked.tasks and asked.text is None:
        names = [DEFAULT_SUITE]
    chosen: dict[str, tuple[int | None, Settings]] = {}
    for name in names:
        suite = find_suite(name)
        for task in suite.tasks:
            chosen.setdefault(task, (asked.limit or suite.limit, _of_suite(settings, suite)))
    for task in asked.tasks:
        chosen[task] = (asked.limit, settings)
    if asked.text is not None:
        check_readable(asked.text)
    if asked.text is not None and not chosen.keys() & set(OF_A_TEXT):
        chosen |= dict.fromkeys(("perplexity", "bits_per_byte"), (asked.limit, settings))
    for task in chosen.keys() & set(OF_A_TEXT):
        if asked.text is None:
            raise InvalidInputError(f"{task} needs a text: give one with --text FILE")
    tasks = [(make_task(name, own), limit, own) for name, (limit, own) in chosen.items()]
    if any(task.runs_code for task, _, _ in tasks):
        run_programs = _programs(asked, output)
        tasks = [
            (make_task(task.name, replace(own, run_programs=run_programs)), limit, own) for task, limit, own in tasks
        ]
    return [_Wanted(task=task, limit=limit) for task, limit, _ in tasks]


def _of_suite(settings: "Settings", suite: "Suite") -> "Settings":
    return replace(settings, samples=suite.samples) if settings.samples is None else settings


def _programs(asked: Asked, output: Output) -> "RunPrograms":
    """What runs the model's programs; a sandbox that does not work here is found out now."""
    from circius.evals.sandbox import Sandbox

    sandbox = Sandbox(unsafe=asked.unsafe_no_sandbox)
    if sandbox.jail.kind == "none":
        output.note("no sandbox works here: the model's programs run unconfined, as this user")
    return lambda programs: [(verdict.passed, verdict.why) for verdict in sandbox.run_all(programs)]


def _is_of_text(task: "Task") -> bool:
    from circius.evals.tasks import OF_A_TEXT

    return task.name in OF_A_TEXT


def _exams(wanted: Sequence[_Wanted], sources: "Sources", seed: int) -> list["Exam"]:
    from circius.evals.questions import Exam

    return [Exam.of(one.task, sources, limit=one.limit, seed=seed) for one in wanted]


def _sources(asked: Asked, tokens: "Tokens | None") -> "Sources":
    from circius.evals.task import Sources

    return Sources(home=asked.data, text=asked.text, tokens=tokens)


def _model(
    loading: ModelOptions, served: Endpoint | None, output: Output, *, max_streams: int
) -> tuple["Model", dict[str, Any]]:
    """The model, and what tells it from others."""
    if served is not None:
        from circius.evals.endpoint_model import EndpointModel
        from circius.evals.json_client import JsonClient

        client = JsonClient(served.url, key=key_from(served.key_env, "--key-env"))
        there = EndpointModel(client, loading.model, concurrency=served.concurrency)
        return there, dict(there.describe())
    llm = open_llm(loading, output)
    from circius.evals.engine_model import EngineModel

    own = EngineModel(llm, max_streams=max_streams, name=loading.model, path=find_model(loading.model, output))
    with progress("reading its digest", output, unit="bytes") as on_progress:
        return own, own.describe(lambda done, total: on_progress(done, total))
