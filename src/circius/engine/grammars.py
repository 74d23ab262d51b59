"""Forms of answers over a tokenizer's own bytes, by llguidance: which tokens may stand next."""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from circius.base.errors import CirciusError, ParamsError, PromptError
from circius.engine.structured import Constraint, StructuredOutputs
from circius.text import Tokenizer

_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As Python's json writes. Where any white space is allowed, small models write nothing else until they are cut off."""
_KEPT = 64
"""Forms whose check is remembered: clients ask for the same one again and again."""


class Grammars:
    """The forms that answers of one model can be given.

    A token stands for its bytes; control tokens stand for nothing, and are allowed only where an answer may end.
    """

    def __init__(self, tokenizer: Tokenizer, *, vocab_size: int, end_ids: frozenset[int]) -> None:
        try:
            import llguidance
        except ModuleNotFoundError as error:
            raise CirciusError(
                f"structured outputs need {error.name}: install circius with its extra, "
                "pip install -e '.[serve]' in its folder"
            ) from error
        if not end_ids:
            raise ParamsError("structured_outputs need an end token, and this tokenizer names none")
        self._library: Any = llguidance
        self._vocabulary = _Vocabulary(tokenizer, min(end_ids))
        self._tokenizer = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(self._vocabulary),
            n_vocab=vocab_size,
            eos_token=sorted(end_ids),
        )
        self.problem = lru_cache(maxsize=_KEPT)(self._problem)
        """What is wrong with a grammar, if anything is."""
        self._compiled = lru_cache(maxsize=_KEPT)(self._compile)

    def constraint(self, wanted: StructuredOutputs) -> Callable[[], Constraint]:
        """What makes a constraint for each answer.

        Raises:
            ParamsError: the form cannot be honoured; it says what of it.
        """
        return self.matcher(self._grammar(wanted), "structured_outputs")

    def matcher(self, grammar: str, name: str) -> Callable[[], "Matcher"]:
        """What makes a constraint by a grammar for each answer. name: what the caller calls it, for the error.

        Raises:
            ParamsError: the grammar cannot be honoured; it says what of it.
        """
        problem = self.problem(grammar)
        if problem is not None:
            raise ParamsError(f"{name} cannot be honoured: {problem}")
        first = self._compiled(grammar)  # which takes long for large grammars; a copy does not
        return lambda: Matcher(first.deep_copy(), self._vocabulary)

    def _grammar(self, wanted: StructuredOutputs) -> str:
        matcher = self._library.LLMatcher
        try:
            if wanted.regex is not None:
                return str(matcher.grammar_from_regex(wanted.regex))
            if wanted.choice is not None:
                texts = " | ".join(json.dumps(text, ensure_ascii=False) for text in wanted.choice)
                return str(matcher.grammar_from_lark(f"start: {texts}"))
            if wanted.grammar is not None:
                return str(matcher.grammar_from_lark(wanted.grammar))
            return str(matcher.grammar_from_json_schema(json.dumps(wanted.schema), overrides=_SPACING))
        except ValueError as error:
            raise ParamsError(f"structured_outputs: {_first_line(str(error))}") from error

    def _compile(self, grammar: str) -> Any:
        return self._library.LLMatcher(self._tokenizer, grammar, log_level=0)

    def _problem(self, grammar: str) -> str | None:
        is_error, messages = self._library.LLMatcher.validate_grammar_with_warnings(grammar, self._tokenizer)
        # A warning tells of something that would not be heeded, which is an error here.
        return _first_line(" ".join(messages)) if is_error or messages else None


def json_grammar(schema: Mapping[str, Any] | bool) -> str:
    """The grammar of JSON by a schema, in one way of spacing."""
    return f"start: {json_rule(schema)}"


def json_rule(schema: Mapping[str, Any] | bool) -> str:
    """The same as the right side of a rule."""
    body = {**schema, "x-guidance": _SPACING} if isinstance(schema, Mapping) else schema
    return f"%json {json.dumps(body)}"


def _first_line(message: str) -> str:
    return next((line.strip() for line in message.splitlines() if line.strip()), "not a form that can be parsed")


class Matcher:
    """A constraint by llguidance."""

    def __init__(self, matcher: Any, vocabulary: "_Vocabulary") -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    def allowed(self) -> bytes:
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise CirciusError(f"structured output: {_first_line(self._matcher.get_error())}")
        return bytes(mask)

    def accept(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise CirciusError(f"structured output: {_first_line(self._matcher.get_error())}")

    def accept_bytes(self, content: bytes) -> bool:
        """Whether the form can begin with these bytes; if so, goes on behind them."""
        ids = self._vocabulary.spell(content)
        return ids is not None and self._matcher.try_consume_tokens(ids) == len(ids)


class _Vocabulary:
    """A tokenizer in the shape that llguidance asks for."""

    def __init__(self, tokenizer: Tokenizer, eos_id: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = eos_id, tokenizer.bos_id
        ids = range(tokenizer.vocab_size)
        self.special_token_ids = [token for token in ids if tokenizer.is_special(token)]
        special = set(self.special_token_ids)
        self.tokens = [
            tokenizer.piece(token).encode() if token in special else tokenizer.token_bytes(token) for token in ids
        ]

        numbered = reversed(list(enumerate(self.tokens)))
        self._ids = {own: token for token, own in numbered if own and token not in special}
        self._longest = max(map(len, self._ids))

    def __call__(self, text: str) -> list[int]:
        """Tokens for a text that a form forces. It is not the beginning of anything, so no space may come in front."""
        if not isinstance(text, str):
            raise TypeError("texts only")  # llguidance asks by trying
        wanted = text.encode()
        try:
            ids = self._tokenizer.encode(text, bos=False)
        except PromptError:
            ids = []
        if b"".join(self.tokens[token] for token in ids) == wanted:
            return ids
        return self._longest_first(wanted)

    def spell(self, content: bytes) -> list[int] | None:
        """Tokens for some bytes, if there are any."""
        ids = self._longest_first(content)
        return ids if b"".join(self.tokens[token] for token in ids) == content else None

    def _longest_first(self, text: bytes) -> list[int]:
        """The longest token at each place; a vocabulary with all bytes always has one."""
        ids: list[int] = []
        at = 0
        while at < len(text):
            ends = range(min(len(text), at + self._longest), at, -1)
            end = next((end for end in ends if text[at:end] in self._ids), None)
            if end is None:
                return ids  # llguidance forces what there is, and asks for the rest byte by byte
            ids.append(self._ids[text[at:end]])
            at = end
        return ids
