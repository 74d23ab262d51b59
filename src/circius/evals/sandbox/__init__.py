"""Programs that a model wrote, run where they can do no harm.

    from circius.evals.sandbox import run
    run("assert 1 + 1 == 2")                # Verdict(passed=True, why='passed', seconds=0.06)

Walls, from the outside in: namespaces of their own for processes, network, mounts and inter-process communication
(`jail.py`, by bubblewrap or by util-linux's unshare); no privileges and none to be had; a file tree that holds the
system's programs and Python, read-only, and one small empty folder; limits on time, memory, processes and files
(`inside.py`, and `watch.py` for all processes together). Inside, what decides that a program ran to its end is kept
from the program itself; see `inside.py`. `probe.py` tries a jail before anything is trusted to it.
"""

from circius.evals.sandbox.limits import Limits
from circius.evals.sandbox.runner import Sandbox, run
from circius.evals.sandbox.running import Verdict

__all__ = ["Limits", "Sandbox", "Verdict", "run"]
