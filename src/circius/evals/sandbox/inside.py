"""What runs inside the jail, before and after the program: it gets no import of ours, only Python's own modules.

Its text is given to `python -c`. On stdin come one line of settings, 32 bytes of nonce and the program. It sets the
limits, runs the program as `__main__`, and writes the nonce to where stdout was: that is how the outside knows that the
program went past its last line. An exit code could not tell: `sys.exit(0)` has a good one too.

So the program must not get at the nonce or at what writes it. It is in no file, argument, variable of the environment
or open descriptor. When the program starts, the nonce exists only inside a C object (a `map`) on the interpreter's own
stack, below every frame that Python code can see. What could still reach it ends the run: object lists of the garbage
collector, tracing, ctypes, hand-made code objects, other programs (which might look into this process's memory).

All this keeps honest scores honest; a program that a determined person wrote could still forge its own success, because
it may redefine what its tests compare. The walls around the process do not depend on any of it.
"""

import builtins
import os
import resource
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from operator import call
from typing import Any

NONCE_BYTES = 32
FORBIDDEN_EXIT = 120

_FORBIDDEN_EVENTS = frozenset(
    {
        "gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys.settrace", "sys.setprofile",
        "sys._current_frames", "sys._current_exceptions", "code.__new__", "subprocess.Popen", "os.system", "os.exec",
        "os.posix_spawn", "os.spawn", "pty.spawn", "os.startfile", "cpython.run_interactivehook",
    }
)  # fmt: skip
_FORBIDDEN_MODULES = frozenset(
    {
        "ctypes", "_ctypes", "_testcapi", "_testinternalcapi", "_testclinic", "_xxsubinterpreters", "_interpreters",
        "_xxinterpchannels", "_interpchannels", "_posixsubprocess",
    }
)  # fmt: skip


def prepare() -> tuple[Callable[[], Any], ...]:
    """The three steps: run the program, write the nonce, leave at once, whatever threads or handlers it left behind."""
    with os.fdopen(0, "rb", closefd=False) as given:
        settings = dict(word.split("=", 1) for word in given.readline().decode().rstrip("\n").split("\t"))
        nonce, source = given.read(NONCE_BYTES), given.read()
    report = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    os.chdir(settings["folder"])
    _limit(settings)
    sys.argv[:] = ["program.py"]
    code = compile(source, "program.py", "exec", dont_inherit=True)
    module = type(sys)("__main__")
    vars(module)["__builtins__"] = builtins
    sys.modules["__main__"] = module
    sys.excepthook = partial(_last_words, sys.excepthook, os._exit)
    sys.addaudithook(partial(_audit, os._exit, os.write))
    return partial(exec, code, vars(module)), partial(os.write, report, nonce), partial(os._exit, 0)


def _limit(settings: dict[str, str]) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: int(settings["processor_s"]),
        resource.RLIMIT_FSIZE: int(settings["file_bytes"]),
        resource.RLIMIT_NOFILE: int(settings["open_files"]),
        resource.RLIMIT_AS: int(settings["memory_bytes"]),
    }
    if settings["limits_processes"] == "True":
        limits[resource.RLIMIT_NPROC] = int(settings["processes"])
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # At the soft limit of processor time a signal comes, which can be ignored; at the hard one the end.
        top = most + 1 if kind == resource.RLIMIT_CPU and (hard == resource.RLIM_INFINITY or most < hard) else most
        try:
            resource.setrlimit(kind, (most, top))
        except (ValueError, OSError):
            if kind != resource.RLIMIT_AS or sys.platform == "linux":  # macOS has no limit of address space
                raise


def _last_words(show: Callable[..., Any], leave: Callable[[int], Any], *exception: Any) -> None:
    """Shows the exception that ended the program, and leaves without waiting for threads that it may have left."""
    show(*exception)
    leave(1)


def _audit(leave: Callable[[int], Any], say: Callable[[int, bytes], Any], event: str, given: tuple[Any, ...]) -> None:
    if event == "import":
        if type(given[0]) is str and given[0] not in _FORBIDDEN_MODULES:
            return
    elif event not in _FORBIDDEN_EVENTS and not event.startswith("ctypes."):
        return
    named = given[0] if event == "import" and type(given[0]) is str else event
    say(2, b"\nNotAllowed: " + named.encode("ascii", "replace") + b"\n")
    leave(FORBIDDEN_EXIT)


if __name__ == "__main__":
    # All in one expression of C functions: no frame of Python holds the steps that are still to come.
    deque(map(call, prepare()), maxlen=0)
