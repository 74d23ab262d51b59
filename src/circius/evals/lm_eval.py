"""lm-evaluation-harness with our engine in it, and our tasks in its form: its bookkeeping beside ours.

Needs the extra `eval`. Every task of lm-eval runs on `EngineLM`; `lm_eval_task` makes one of its tasks out of one of
ours, with our prompts and our rules, so that the two harnesses can be compared on the very same questions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.task import ConfigurableTask

from circius.base.errors import InvalidInputError, TemplateError
from circius.evals.engine_model import EngineModel
from circius.evals.item import Choices, ChoicesAnswer, Item, Sample, Text, TextAnswer
from circius.evals.pairs import Pair
from circius.evals.questions import Exam, seed_of
from circius.evals.tasks.perplexity import rolling

MAX_TOKENS = 256
"""Of an answer whose task does not say: lm-eval's own default."""
_KNOWN = frozenset({"until", "max_gen_toks", "do_sample", "temperature", "top_p"})


class EngineLM(TemplateLM):  # type: ignore[misc]
    """lm-eval's model, answered by our engine. BOS is where the tokenizer puts it, exactly once."""

    def __init__(self, model: EngineModel, *, seed: int = 0) -> None:
        super().__init__()
        self._model, self._seed = model, seed
        self._is_templated = False
        self.tokenizer = None

    @property
    def eot_token_id(self) -> int:
        assert self._model.llm.tokenizer is not None
        found = min(self._model.llm.tokenizer.eos_ids, default=self._model.tokens.start)
        if found is None:
            raise InvalidInputError("lm-eval needs a token that texts end with, and this tokenizer has none")
        return found

    @property
    def prefix_token_id(self) -> int:
        start = self._model.tokens.start
        return self.eot_token_id if start is None else start

    @property
    def max_length(self) -> int:
        return self._model.llm.context

    @property
    def max_gen_toks(self) -> int:
        return MAX_TOKENS

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's cache of requests."""
        return str(self._model.describe()["tokenizer_sha256"])

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The name of the template, for lm-eval's record."""
        template = self._model.llm.chat_template
        return template.name if chat_template and template is not None else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as text; from then on control tokens in prompts are the template's, and mean themselves."""
        template = self._model.llm.chat_template
        if template is None:
            raise TemplateError("this model has no chat template: run lm-eval without apply_chat_template")
        self._is_templated = True
        return template.render(chat_history, continue_final=not add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        own = self._model.llm.tokenizer
        assert own is not None
        bos = own.adds_bos if add_special_tokens is None else add_special_tokens and own.bos_id is not None
        ids = own.encode(string, special=self._is_templated)
        if bos and own.bos_id is not None and ids[:1] != [own.bos_id]:
            return [own.bos_id, *ids]
        return ids

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts, each in windows of the context."""
        texts = [self.tok_encode(request.args[0], add_special_tokens=False) for request in requests]
        windows = [list(rolling(ids, start=self.prefix_token_id, most=self.max_length)) for ids in texts]
        found = iter(self._model.passages([window for own in windows for window in own]))
        return [math.fsum(next(found).logprob for _ in own) for own in windows]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The answers. The same request asked k times, lm-eval's way to have k samples, is read once and drawn k
        times."""
        asked: dict[tuple[str, str], tuple[Text, list[int]]] = {}
        for place, (prompt, given) in enumerate(request.args for request in requests):
            key = (prompt, repr(sorted(given.items(), key=lambda pair: pair[0])))
            asked.setdefault(key, (self._text(prompt, given), []))[1].append(place)
        texts = [_times(ask, len(places)) for ask, places in asked.values()]
        answers: list[str] = [""] * len(requests)
        for (_, places), answer in zip(asked.values(), self._model.texts(texts), strict=True):
            samples = answer.samples if len(answer.samples) > 1 else answer.samples * len(places)
            for place, sample in zip(places, samples, strict=True):
                answers[place] = sample.text
        return answers

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, Sequence[int], Sequence[int]]], **_: object
    ) -> list[tuple[float, bool]]:
        pairs = [Pair(tuple(context), tuple(continuation)) for _, context, continuation in requests]
        return [(own.logprob, own.is_greedy) for own in self._model.pair_likelihoods(pairs)]

    def _text(self, prompt: str, given: Mapping[str, Any]) -> Text:
        if odd := sorted(given.keys() - _KNOWN):
            raise InvalidInputError(f"generation_kwargs {odd} are not known here: use {', '.join(sorted(_KNOWN))}")
        until = given.get("until") or ()
        temperature = float(given.get("temperature") or 0.0)
        is_drawn = bool(given.get("do_sample", temperature > 0)) and temperature > 0
        return Text(
            prompt=prompt,
            stop=(until,) if isinstance(until, str) else tuple(until),
            max_tokens=int(given.get("max_gen_toks", MAX_TOKENS)),
            temperature=temperature if is_drawn else 0.0,
            top_p=float(given.get("top_p", 1.0)) if is_drawn else 1.0,
            seed=seed_of("lm-eval", prompt, self._seed),
        )


def lm_eval_task(exam: Exam, *, place: int = 0) -> Any:
    """One of our tasks as lm-eval's `ConfigurableTask`, for `simple_evaluate(tasks=[...])`.

    Choices are scored by lm-eval's own `acc`, `acc_norm` and `acc_bytes`, texts by our judge. Tasks that ask several
    things about an item become one task for each of them (`place`).

    Raises:
        InvalidInputError: the question at that place is of a kind that lm-eval does not have.
    """
    questions = [exam.question(item) for item in exam.items]
    first = questions[0].asks[place]
    name = f"circius_{exam.task.name}" + (f"_{place}" if len(questions[0].asks) > 1 else "")
    asks = [(question.item, question.asks[place]) for question in questions]
    if isinstance(first, Choices):
        config = _choices_config(name, exam, asks, place)
    elif isinstance(first, Text):
        config = _text_config(name, exam, asks)
    else:
        raise InvalidInputError(f"{exam.task.name} asks for the likelihood of tokens, which lm-eval does not")
    config["metadata"] = {"version": exam.task.version}
    return ConfigurableTask(config=config)


def _choices_config(name: str, exam: Exam, asks: Sequence[tuple[Item, Any]], place: int) -> dict[str, Any]:
    """Our continuations begin with a space each, which is lm-eval's delimiter: lengths are then counted alike."""
    rows: list[dict[str, Any]] = []
    for item, ask in asks:
        if not all(own.startswith(" ") for own in ask.continuations):
            raise InvalidInputError(f"{exam.task.name} {item.id}: a continuation does not begin with a space")
        rows.append(
            {
                "contexts": list(ask.contexts),
                "continuations": [own[1:] for own in ask.continuations],
                "gold": _gold(exam, item, place),
            }
        )
    has_one_context = all(len(set(row["contexts"])) == 1 for row in rows)
    return {
        "task": name,
        "custom_dataset": _dataset(rows),
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": (lambda doc: doc["contexts"][0]) if has_one_context else (lambda doc: doc["gold"]),
        "doc_to_choice": lambda doc: doc["continuations" if has_one_context else "contexts"],
        "doc_to_target": (lambda doc: doc["gold"]) if has_one_context else (lambda doc: doc["continuations"][0]),
        "target_delimiter": " ",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in ("acc", *(("acc_norm", "acc_bytes") if has_one_context else ()))
        ],
    }


def _gold(exam: Exam, item: Item, place: int) -> int:
    """The place of the right choice, which only the task's judge knows: it is asked with each choice the likeliest."""
    asks = exam.question(item).asks
    for right in range(len(asks[place].continuations)):  # type: ignore[union-attr]
        answers = [
            ChoicesAnswer(
                logprobs=tuple(-1.0 if n == right else -1000.0 for n in range(len(ask.continuations))),
                is_greedy=(False,) * len(ask.continuations),
                unconditional=None if ask.unconditional is None else (-1.0,) * len(ask.continuations),
            )
            if isinstance(ask, Choices)
            else TextAnswer(samples=(Sample(text=""),))
            for ask in asks
        ]
        values = exam.task.judge(item, answers).values
        metric = next(name for name in values if name.endswith("raw"))
        if values[metric]:
            return right
    raise InvalidInputError(f"{exam.task.name} {item.id} has no right choice")


def _text_config(name: str, exam: Exam, asks: Sequence[tuple[Item, Any]]) -> dict[str, Any]:
    _, first = asks[0]
    items = {item.id: item for item, _ in asks}
    if len(exam.question(exam.items[0]).asks) > 1:
        raise InvalidInputError(f"{exam.task.name} is judged by several answers: ask for --samples 0")
    kwargs: dict[str, Any] = {"until": list(first.stop), "max_gen_toks": first.max_tokens, "do_sample": False}
    if not first.is_greedy:
        kwargs |= {"do_sample": True, "temperature": first.temperature, "top_p": first.top_p}

    def process(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
        texts = results[0] if isinstance(results[0], list) else results
        answer = TextAnswer(samples=tuple(Sample(text=text) for text in texts))
        return dict(exam.task.judge(items[doc["id"]], [answer]).values)

    metrics = list(process({"id": asks[0][0].id}, [[""] * first.n]))
    return {
        "task": name,
        "custom_dataset": _dataset([{"id": item.id, "prompt": ask.prompt} for item, ask in asks]),
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": lambda doc: doc["prompt"],
        "doc_to_target": lambda doc: "",
        "generation_kwargs": kwargs,
        "repeats": first.n,
        "process_results": process,
        "metric_list": [{"metric": own, "aggregation": "mean", "higher_is_better": True} for own in metrics],
    }


def _dataset(rows: Sequence[Mapping[str, Any]]) -> Callable[..., Any]:
    """What lm-eval calls for its documents."""

    def made(**_: object) -> Any:
        from datasets import Dataset

        return {"test": Dataset.from_list(list(rows))}

    return made


def _times(ask: Text, n: int) -> Text:
    return replace(ask, n=n) if n > 1 and not ask.is_greedy else ask
