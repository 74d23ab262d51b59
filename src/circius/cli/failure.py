"""What the command line says and exits with when something goes wrong: one line, never a traceback."""

import errno
import os
import sys
import traceback

import typer

from circius.base.errors import CirciusError

EXIT_INTERRUPTED = 130
"""128 + SIGINT: what shells report for a command stopped with Ctrl-C."""


def report(error: BaseException, *, show_traceback: bool = False) -> int:
    """The exit code for `error`, after printing its line to stderr: 2 for bad input, 1 for bad luck, 130 for Ctrl-C.

    A pipe whose reader has left is no error worth a word: exit code 1, in silence.
    """
    if show_traceback:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        _detach_output()
        return 1
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        _detach_output()
    say(f"circius: error: {one_line(explain(error))}")
    return exit_code(error)


def exit_code(error: BaseException) -> int:
    """2 when the caller can mend it by typing something else, 1 otherwise."""
    if isinstance(error, CirciusError | typer.TyperException):
        return error.exit_code
    return 1


def explain(error: BaseException) -> str:
    """The sentence for `error`: its own message for ours and Typer's, a translated one for what else can happen."""
    if isinstance(error, typer.TyperException):
        return _usage_message(error)
    if isinstance(error, CirciusError):
        return str(error)
    if _is_out_of_memory(error):
        return "out of memory: choose a smaller model, a smaller --dtype, or a smaller --context"
    if isinstance(error, OSError):
        return f"{error.filename or 'the output could not be written'}: {error.strerror or error}"
    return (
        f"unexpected {type(error).__name__}: {error} "
        "(a defect in circius: `circius --traceback VERB ...` shows where; please report it)"
    )


def one_line(message: str) -> str:
    """The message with every run of white space made one space, so that it is one line whatever it quotes.

    >>> one_line("two\\nlines")
    'two lines'
    """
    return " ".join(message.split())


def say(line: str) -> None:
    """Writes a line to stderr; a stderr that nobody reads is no reason to fail."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        return


def _usage_message(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    hint = f" (see `{context.command_path} --help`)" if context is not None else ""
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    return f"{message}{hint}"


def _is_out_of_memory(error: BaseException) -> bool:
    # torch's own class is matched by name, so that reporting an error does not import torch.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
    )


def _detach_output() -> None:
    """Points stdout at nothing, so that the interpreter's last flush cannot fail a second time."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
