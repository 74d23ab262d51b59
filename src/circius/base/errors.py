"""One tree of errors for everything a caller can cause.

Every message carries what was given, what is allowed and what to do. `assert` is for our own invariants only.
"""

from typing import ClassVar


class CirciusError(Exception):
    """Root of the tree. `exit_code` is what the command line exits with: 2 for bad input, 1 for bad luck."""

    exit_code: ClassVar[int] = 1


class InvalidInputError(CirciusError, ValueError):
    """A value that the caller gave is outside what is allowed."""

    exit_code: ClassVar[int] = 2


class ConfigError(InvalidInputError):
    """A model configuration contradicts itself, or asks for something that circius does not implement."""


class ParamsError(InvalidInputError):
    """A sampling parameter is out of range."""


class PromptError(InvalidInputError):
    """A prompt, a conversation or a text cannot be used as given."""


class ContextOverflowError(PromptError):
    """A prompt, with the tokens asked for, does not fit into the context."""


class TemplateError(PromptError):
    """A chat template cannot render this conversation."""


class CacheFullError(CirciusError):
    """A cache row was asked to hold more tokens than it was allocated for."""


class ModelNotFoundError(CirciusError):
    """No model is where the caller said it was."""

    exit_code: ClassVar[int] = 2


class CheckpointError(CirciusError):
    """A checkpoint is missing a part, damaged, or not what it claims to be."""


class TokenizerError(CirciusError):
    """A tokenizer file is missing, damaged, or of a kind that circius does not implement."""


class DataError(CirciusError):
    """A data set is missing, damaged, or not what it claims to be."""


class DownloadError(CirciusError):
    """A download failed, or what arrived is not what was promised."""


class StorageError(CirciusError):
    """A file could not be written: no space, no permission, or already there."""


class SandboxError(CirciusError):
    """There is no safe place on this machine to run a program that a model wrote."""
