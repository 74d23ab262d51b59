"""`circius tokenizer ...`: vocabularies."""

from circius.cli import tokenizer_train

NAME = "tokenizer"
HELP = "Vocabularies: train one."
VERBS = (tokenizer_train,)
