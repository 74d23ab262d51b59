"""Which jail works on this machine, found out by trying to break out of it."""

import socket
import sys
from functools import cache

from circius.base.errors import SandboxError
from circius.evals.sandbox.jail import Jail, Kind, tools_missing
from circius.evals.sandbox.limits import Limits
from circius.evals.sandbox.running import Verdict, run_jailed

# What must hold in a jail before anything else runs in it; the last line is only reached if all of it does.
_PROBE = """
import os, socket
PORT = %d
assert os.listdir(".") == [], os.listdir(".")
open("written", "w").write("x")
for place in ("/", "/usr", "/home", "/root", "/etc"):
    try:
        open(place + "/circius-probe", "w")
    except OSError:
        continue
    os.unlink(place + "/circius-probe")
    raise AssertionError("can write to " + place)
for address in (("127.0.0.1", PORT), ("192.0.2.1", 80)):
    try:
        socket.create_connection(address, timeout=2)
    except TimeoutError:
        raise AssertionError("can send to " + address[0])
    except OSError:
        continue
    raise AssertionError("can connect to " + address[0])
children = []
try:
    for _ in range(40):
        child = os.fork()
        if child == 0:
            import time
            time.sleep(60)
            os._exit(0)
        children.append(child)
except OSError:
    pass
else:
    raise AssertionError("can have any number of processes")
"""


@cache
def find_jail(kind: Kind | None = None) -> Jail:
    """The first jail that holds on this machine, tried with a program that would notice if it did not.

    Raises:
        SandboxError: none does; the message says what each lacks.
    """
    if sys.platform != "linux":
        raise SandboxError(
            f"there is no sandbox for {sys.platform}: programs that a model wrote are run on Linux only, "
            "or unguarded (unsafe) on a machine that is thrown away afterwards"
        )
    complaints = []
    kinds: tuple[Kind, ...] = ("bwrap", "unshare") if kind is None else (kind,)
    for candidate in kinds:
        missing = tools_missing(candidate)
        if missing:
            complaints.append(f"{candidate}: {', '.join(missing)} not installed")
            continue
        verdict = probe(Jail(kind=candidate))
        if verdict.passed:
            return Jail(kind=candidate)
        complaints.append(f"{candidate}: {verdict.why}")
    raise SandboxError(
        f"no sandbox works here ({'; '.join(complaints)}): install bubblewrap, allow unprivileged user namespaces, "
        "or run programs unguarded (unsafe) on a machine that is thrown away afterwards"
    )


def probe(jail: Jail) -> Verdict:
    """Whether a jail holds: passed if nothing can be written outside, no one reached, and no endless number started."""
    with socket.create_server(("127.0.0.1", 0)) as here:
        return run_jailed(_PROBE % here.getsockname()[1], jail, Limits(timeout_s=20))
