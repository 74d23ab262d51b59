"""What the model says while it learns, by the engine that will serve it: greedily, and once by chance."""

import torch

from circius.base.config import ModelConfig
from circius.base.errors import PromptError
from circius.engine.llm import LLM
from circius.engine.outputs import RequestOutput
from circius.engine.params import SamplingParams
from circius.model import Transformer
from circius.text import ChatTemplate, Tokenizer
from circius.train.config import SampleConfig
from circius.train.product import evaluating, is_spread, plain_copy
from circius.train.world import World

_SEED = 0


class Prompts:
    """Calling it gives what the model says now: for each prompt and way of choosing tokens, prompt, how and text.

    Every process calls it if the weights are spread; only the first one gets answers.

    template: None for texts to go on with.

    Raises:
        PromptError, ContextOverflowError, TemplateError: a prompt cannot be used.
    """

    def __init__(
        self,
        model: Transformer,
        shape: ModelConfig,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        config: SampleConfig,
        world: World,
    ) -> None:
        self._model, self._shape, self._world, self._config = model, shape, world, config
        self._tokenizer, self._template = tokenizer, template
        self._ways = {
            "greedy": SamplingParams(temperature=0, max_tokens=config.max_tokens),
            f"temperature {config.temperature:g}": SamplingParams(
                temperature=config.temperature, seed=_SEED, max_tokens=config.max_tokens
            ),
        }
        with torch.device("meta"):
            checker = self._llm(Transformer(shape))
        for prompt in config.prompts:
            if not prompt.strip() and template is not None:
                raise PromptError("samples.prompts: a user says something; a prompt is empty")
            for params in self._ways.values():
                if template is None:
                    checker.asker.completion(prompt, params)
                else:
                    checker.asker.chat([{"role": "user", "content": prompt}], params)

    def __call__(self) -> list[dict[str, str]]:
        if not is_spread(self._model) and not self._world.is_first:
            return []
        model = plain_copy(self._model, self._shape, self._world, self._world.device)
        if model is None:
            return []
        llm = self._llm(model)
        with evaluating(model):
            return [
                {"prompt": prompt, "how": how, "text": answer.outputs[0].text}
                for how, params in self._ways.items()
                for prompt, answer in zip(self._config.prompts, self._answers(llm, params), strict=True)
            ]

    def _answers(self, llm: LLM, params: SamplingParams) -> list[RequestOutput]:
        if self._template is None:
            return llm.generate(list(self._config.prompts), params)
        return llm.chat([[{"role": "user", "content": prompt}] for prompt in self._config.prompts], params)

    def _llm(self, model: Transformer) -> LLM:
        return LLM.of(model, tokenizer=self._tokenizer, chat_template=self._template)
