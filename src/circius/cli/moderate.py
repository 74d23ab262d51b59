"""`circius moderate`: what a model thinks of a text, and how well that and the guard prompt work."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circius.base.errors import InvalidInputError
from circius.cli import options
from circius.cli.loading import ModelOptions, open_llm
from circius.cli.output import Output, table
from circius.cli.texts import read_prompt

if TYPE_CHECKING:
    from circius.moderate.policy import Policy
    from circius.moderate.reflect import Verdict

NAME = "moderate"
JUDGING, MEASURING = "Judging", "Measuring"
LITTLE_COVERAGE = 0.5


class Categories(StrEnum):
    """Which list of categories."""

    SHORT = "short"
    LONG = "long"


class TextKind(StrEnum):
    """What a text is."""

    PROMPT = "prompt"
    ANSWER = "answer"


def command(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=options.MODEL_HELP, show_default=False)] = None,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The text; `-` or nothing reads a pipe.", show_default=False)
    ] = None,
    file: options.TextFile = None,
    kind: Annotated[
        TextKind, typer.Option("--kind", help="Whether the text was sent to an assistant or comes from one.",
                               rich_help_panel=JUDGING)
    ] = TextKind.PROMPT,
    categories: Annotated[
        Categories | None,
        typer.Option("--categories", help="The paper's three, or the longer list.",
                     show_default="long, or the policy's; both when measuring", rich_help_panel=JUDGING),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", metavar="F", help="A policy (JSON): says what is to happen to the text.",
                     show_default="none", rich_help_panel=JUDGING),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", metavar=options.FLAG,
                     help="Ask XSTest's and SimpleSafetyTests' prompts, with the guard prompt and without.",
                     rich_help_panel=MEASURING),
    ] = False,
    check_rules: Annotated[
        bool,
        typer.Option("--check-rules", metavar=options.FLAG,
                     help="No model: hold the rules that tell refusals against people's labels (XSTest's).",
                     rich_help_panel=MEASURING),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", help="The folder with these sets.",
                     show_default="where `circius data eval` puts them", rich_help_panel=MEASURING),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="F", help="Where the answers are kept (JSON lines); a run goes on where it was.",
                     show_default="guardrails.jsonl", rich_help_panel=MEASURING),
    ] = None,
    n_unsafe: Annotated[
        int | None, typer.Option("--unsafe", metavar="N", min=1, help="Unsafe prompts, of 300.", show_default="175",
                                 rich_help_panel=MEASURING)
    ] = None,
    n_safe: Annotated[
        int | None, typer.Option("--safe", metavar="N", min=1, help="Safe prompts, of 250.", show_default="all",
                                 rich_help_panel=MEASURING)
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Which prompts are drawn.", show_default="231006825",
                                 rich_help_panel=MEASURING)
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", metavar="N", min=16, help="Of an answer, when measuring.",
                                 show_default="256", rich_help_panel=MEASURING)
    ] = None,
    threads: options.Threads = None,
    dtype: options.DTypeOption = options.DType.AUTO,
    device: options.DeviceOption = "auto",
    activations: options.ActivationsOption = options.Activations.AUTO,
    kv_bits: options.KVBitsOption = None,
    deterministic: options.Deterministic = False,
    context: options.Context = None,
    window: options.Window = None,
    rope_theta: options.RopeTheta = None,
    adapter: options.Adapter = None,
    template: options.TemplateOption = options.Template.AUTO,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Sort a text into categories by the model's own judgement, or measure guardrails.

    The model is asked for the category of the text; the scores are its probabilities for each category, from the first
    token that it would answer. --measure asks public prompts with the guard prompt and without, and prints refusals,
    refusals of harmless prompts and the curve of moderation beside the paper's figures.
    """
    output = Output(as_json=as_json, quiet=quiet)
    _check_modes(
        measure=measure,
        check_rules=check_rules,
        judging=[text, file, policy, None if kind is TextKind.PROMPT else kind],
        measuring=[out, n_unsafe, n_safe, seed, max_tokens],
        data=data,
    )
    from circius.evals.data.store import eval_home

    if check_rules:
        if model is not None or categories is not None:
            raise InvalidInputError(
                "--check-rules asks no model and has no categories: leave out MODEL and --categories"
            )
        from circius.cli.moderate_measure import show_rules

        show_rules(data or eval_home(), output)
        return
    if model is None:
        raise InvalidInputError("name a model: circius moderate MODEL TEXT")
    loading = ModelOptions(
        model=model,
        dtype=dtype,
        device=device,
        activations=activations,
        kv_bits=kv_bits,
        deterministic=deterministic,
        context=context,
        window=window,
        rope_theta=rope_theta,
        threads=threads,
        template=template,
        adapter=adapter,
    )
    if measure:
        from circius.cli.moderate_measure import Wanted, show_measured

        wanted = Wanted(
            folder=data or eval_home(),
            journal=out or Path("guardrails.jsonl"),
            categories=[categories.value] if categories else ["short", "long"],
            n_unsafe=n_unsafe,
            n_safe=n_safe,
            seed=seed,
            max_tokens=max_tokens or 256,
        )
        show_measured(loading, wanted, output)
        return
    _judge(loading, read_prompt(text, file), kind, categories, policy, output)


def _check_modes(
    *, measure: bool, check_rules: bool, judging: Sequence[object], measuring: Sequence[object], data: Path | None
) -> None:
    if measure and check_rules:
        raise InvalidInputError("--measure and --check-rules are two things to do: give one of them")
    if (measure or check_rules) and any(each is not None for each in judging):
        raise InvalidInputError(
            "--measure and --check-rules have texts of their own: leave out TEXT, --file, --policy and --kind answer"
        )
    if not measure and any(each is not None for each in measuring):
        raise InvalidInputError("--out, --unsafe, --safe, --seed and --max-tokens belong to --measure")
    if data is not None and not (measure or check_rules):
        raise InvalidInputError("--data belongs to --measure and --check-rules")


def _judge(
    loading: ModelOptions,
    text: str,
    kind: TextKind,
    categories: Categories | None,
    policy_file: Path | None,
    output: Output,
) -> None:
    from circius.moderate.policy import read_policy

    policy = read_policy(policy_file) if policy_file else None
    named = categories.value if categories else policy.categories if policy else "long"
    if policy is not None and policy.categories != named:
        raise InvalidInputError(
            f"{policy_file} is for the {policy.categories} categories: leave out --categories {named}"
        )
    llm = open_llm(loading, output)
    [verdict] = llm.moderate(text, categories=named, kind=kind.value)
    if verdict.coverage < LITTLE_COVERAGE:
        output.note(
            f"only {verdict.coverage:.1%} of the model's probability lay on the names of categories: it hardly took "
            "the question in, and the scores say little"
        )
    if output.as_json:
        output.emit({**described(verdict, policy), "kind": kind.value, "categories": named, "model": loading.model})
        return
    ranked = sorted(verdict.scores.items(), key=lambda item: -item[1])
    output.line(table(["category", "score"], [[key, f"{score:.4f}"] for key, score in ranked]))
    if policy is not None:
        output.line(f"\naction  {policy.decide(verdict)}")


def described(verdict: "Verdict", policy: "Policy | None") -> dict[str, Any]:
    """A verdict for machines."""
    fields: dict[str, Any] = {
        "category": verdict.category,
        "unsafe": verdict.unsafe,
        "category_scores": dict(verdict.scores),
        "coverage": verdict.coverage,
        "pieces": verdict.n_pieces,
    }
    return fields if policy is None else {**fields, "action": policy.decide(verdict)}
