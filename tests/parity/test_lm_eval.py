"""Against lm-eval with transformers behind it, on the very same questions; and lm-eval with our engine in it."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from circius.base.config import ModelConfig
from circius.base.errors import InvalidInputError
from circius.engine.llm import LLM
from circius.evals.data.catalogue import choose
from circius.evals.data.sets.bbh import read_bbh
from circius.evals.data.store import eval_home, holds
from circius.evals.engine_model import EngineModel
from circius.evals.item import Choices, ChoicesAnswer, Text, TextAnswer
from circius.evals.model import answer_all
from circius.evals.questions import Exam
from circius.evals.scoring.code import cut
from circius.evals.task import Sources, Task
from circius.evals.tasks import make_task
from circius.evals.tasks.settings import Settings
from circius.text import load_tokenizer, write_byte_tokenizer
from circius.weights.init import init_checkpoint
from tests.unit.evals.small_data import small_store

lm_eval = pytest.importorskip("lm_eval")
pytestmark = pytest.mark.filterwarnings("ignore")

TINY = ModelConfig(
    dim=64, n_layers=2, head_dim=16, hidden_dim=128, n_heads=4, n_kv_heads=2, vocab_size=512, context_len=4096,
    window_size=48, rope_theta=1e4, tied_output=False,
)  # fmt: skip
MOST_APART = 1e-3
"""Of a log-likelihood in float32, relative."""

LIKELIHOODS = ("hellaswag", "winogrande", "piqa", "siqa", "openbookqa", "arc_easy", "arc_challenge", "boolq")
TEXTS = ("triviaqa", "naturalquestions")


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    init_checkpoint(TINY, folder, dtype=torch.float32)
    write_byte_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(home=small_store(tmp_path_factory.mktemp("eval")))


def _peer(folder: Path, tokenizer: Any = None, **given: Any) -> Any:
    from lm_eval.models.huggingface import HFLM

    more = {} if tokenizer is None else {"tokenizer": tokenizer}
    return HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=4, **more, **given)


def _with_bos(folder: Path) -> Any:
    """The folder's tokenizer in transformers' form, with BOS in front: what our tokenizer does by itself."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _theirs(peer: Any, exam: Exam) -> list[Any]:
    """What lm-eval kept of each item: for choices (log-likelihood, is greedy), for texts the text."""
    from circius.evals.lm_eval import lm_eval_task

    (samples,) = _evaluated(peer, lm_eval_task(exam))["samples"].values()
    return [sample["resps"] for sample in sorted(samples, key=lambda sample: int(sample["doc_id"]))]


def _evaluated(model: Any, task: Any) -> Any:
    """lm-eval's results, without the thousands of tasks that it would look through first."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)
    return lm_eval.simple_evaluate(model=model, tasks=[task], task_manager=manager, bootstrap_iters=0)


def _check(model: EngineModel, peer: Any, exam: Exam) -> None:
    """Every likelihood within a thousandth, every choice and every text the same."""
    asks = [exam.question(item).asks[0] for item in exam.items]
    for ask, own, theirs in zip(asks, answer_all(model, asks), _theirs(peer, exam), strict=True):
        if isinstance(own, TextAnswer):
            assert isinstance(ask, Text)
            # Tokens are compared by the peer's decoder: libraries show bytes that are no text in different ways.
            assert cut(peer.tok_decode(list(own.samples[0].ids)), ask.stop) == theirs[0][0], exam.task.name
            continue
        assert isinstance(own, ChoicesAnswer)
        logprobs = [float(answer[0][0]) for answer in theirs]
        assert own.logprobs == pytest.approx(logprobs, rel=MOST_APART), exam.task.name
        assert own.logprobs.index(max(own.logprobs)) == logprobs.index(max(logprobs))
        assert own.is_greedy == tuple(str(answer[0][1]) == "True" for answer in theirs)


@pytest.mark.parametrize("name", ["hellaswag", "winogrande", "boolq", "mmlu", "naturalquestions"])
def test_a_tiny_model_gives_what_lm_eval_and_transformers_give(name: str, tiny: Path, small: Sources) -> None:
    peer = _peer(tiny, _with_bos(tiny), add_bos_token=True)
    exam = Exam.of(make_task(name, Settings(samples=0)), small)
    _check(EngineModel(LLM(tiny, dtype="float32")), peer, exam)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LIKELIHOODS, *TEXTS])
def test_the_demo_model_gives_what_lm_eval_and_transformers_give(
    name: str, demo_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """200 items of each set, if the sets are there (`circius data eval`)."""
    task = _task_with_data(name)
    folder = _dequantised(demo_gguf, tmp_path_factory.getbasetemp() / "demo")
    _check(EngineModel(LLM(folder, dtype="float32")), _peer(folder), Exam.of(task, Sources(), limit=200))


def _task_with_data(name: str) -> Task:
    task = make_task(name, Settings(samples=0))
    if not any(holds(part.path) for entry in choose(task.data) for part in entry.parts):
        pytest.skip(f"no data in {eval_home()}: circius data eval {name}")
    return task


@pytest.mark.slow
def test_every_prompt_of_hellaswag_and_winogrande_is_lm_evals() -> None:
    from lm_eval.tasks.hellaswag.utils import preprocess
    from lm_eval.tasks.winogrande.preprocess_winogrande import doc_to_choice, doc_to_target

    exam = Exam.of(_task_with_data("hellaswag"), Sources())
    for item in exam.items:
        ask, doc = exam.question(item).asks[0], item.doc
        assert isinstance(ask, Choices)
        assert ask.contexts[0] == preprocess(f"{doc.activity}: {doc.context_a} {doc.context_b.capitalize()}")
        assert ask.continuations == tuple(f" {preprocess(ending)}" for ending in doc.endings)
    exam = Exam.of(_task_with_data("winogrande"), Sources())
    for item in exam.items:
        ask, doc = exam.question(item).asks[0], item.doc
        assert isinstance(ask, Choices)
        theirs = {
            "sentence": f"{doc.before}_{doc.after}",
            **dict(zip(("option1", "option2"), doc.options, strict=True)),
        }
        assert list(ask.contexts) == doc_to_choice(theirs)
        assert ask.continuations[0] == f" {doc_to_target(theirs)}"


@pytest.mark.slow
def test_the_examples_of_bbh_are_lm_evals() -> None:
    """With and without their reasoning."""
    import yaml
    from lm_eval.tasks import bbh

    _task_with_data("bbh")
    folder = Path(bbh.__path__[0])
    for task in read_bbh():
        direct = yaml.safe_load((folder / "fewshot" / f"{task.name}.yaml").read_text())
        cot = yaml.safe_load((folder / "cot_fewshot" / f"{task.name}.yaml").read_text())
        assert task.description.strip() == direct["description"].strip()
        bare = [(shot["input"].strip(), shot["target"].strip()) for shot in direct["fewshot_config"]["samples"]]
        assert [(shot.question.strip(), shot.answer.strip()) for shot in task.shots] == bare
        reasoned = [shot["target"].strip() for shot in cot["fewshot_config"]["samples"]]
        own = [shot.reasoning.removeprefix("Let's think step by step.").strip() for shot in task.shots]
        assert own == reasoned


def _dequantised(gguf: Path, folder: Path) -> Path:
    """The demo model as a checkpoint that transformers reads, written once."""
    from circius.cli.main import run

    if not folder.is_dir():
        assert run(["convert", str(gguf), str(folder), "--to=hf", "--dtype=float32", "--quiet"]) == 0
    return folder


def test_lm_eval_runs_on_our_engine(tiny: Path, small: Sources) -> None:
    """Its metrics are ours, by its own arithmetic."""
    from circius.evals.lm_eval import EngineLM, lm_eval_task

    model = EngineModel(LLM(tiny, dtype="float32"))
    for name, metrics in (
        ("hellaswag", {"raw": "acc", "per_character": "acc_norm", "per_byte": "acc_bytes"}),
        ("winogrande", {"raw": "acc"}),
        ("triviaqa", {"exact_match": "exact_match", "f1": "f1"}),
    ):
        exam = Exam.of(make_task(name, Settings(samples=0)), small)
        (theirs,) = _evaluated(EngineLM(model), lm_eval_task(exam))["results"].values()
        judged = [exam.task.judge(item, answer_all(model, exam.question(item).asks)) for item in exam.items]
        for ours, their in metrics.items():
            mean = sum(one.values[ours] for one in judged) / len(judged)
            assert theirs[f"{their},none"] == pytest.approx(mean)


def test_the_adapter_scores_whole_texts_as_lm_eval_does(tiny: Path) -> None:
    from lm_eval.api.instance import Instance

    from circius.evals.lm_eval import EngineLM

    requests = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0)
        for text in ("The sea is deep.", "x" * 300)
    ]
    # Whole texts begin with one BOS, so the peer must not add a second one.
    peer = _peer(tiny, _with_bos(tiny), add_bos_token=False, max_length=100)
    ours = EngineLM(EngineModel(LLM(tiny, dtype="float32", context=100)))
    assert ours.loglikelihood_rolling(requests) == pytest.approx(peer.loglikelihood_rolling(requests), rel=MOST_APART)


def test_a_request_asked_several_times_gets_different_samples(tiny: Path) -> None:
    """lm-eval repeats the same request; each repetition is a sample, and all come from one reading of the prompt."""
    from lm_eval.api.instance import Instance

    from circius.evals.lm_eval import EngineLM

    def asked(prompt: str, **given: Any) -> Any:
        return Instance(request_type="generate_until", doc={}, arguments=(prompt, given), idx=0)

    drawn = {"until": ["\n"], "max_gen_toks": 6, "do_sample": True, "temperature": 1.0}
    greedy = {"until": [], "max_gen_toks": 6, "do_sample": False}
    one = asked("Sea", **drawn)
    model = EngineLM(EngineModel(LLM(tiny, dtype="float32")))
    answers = model.generate_until([one, asked("Sea", **greedy), one, one, asked("Sea", **greedy)])
    assert len({answers[0], answers[2], answers[3]}) == 3
    assert answers[1] == answers[4]
    assert model.generate_until([one, one, one]) == [answers[0], answers[2], answers[3]]
    with pytest.raises(InvalidInputError, match="num_beams"):
        model.generate_until([asked("Sea", num_beams=4)])


def test_the_adapter_puts_bos_in_front_once(tiny: Path) -> None:
    from circius.evals.lm_eval import EngineLM

    model = EngineLM(EngineModel(LLM(tiny, dtype="float32")))
    plain = load_tokenizer(tiny).encode("Sea")
    assert model.tok_encode("Sea") == [1, *plain]
    assert model.tok_encode("Sea", add_special_tokens=False) == plain
    assert (model.prefix_token_id, model.eot_token_id, model.max_length) == (1, 2, 4096)
