"""Runs every reference solution of HumanEval and MBPP in the sandbox: all must pass, and this is what it costs.

    circius data eval humaneval mbpp
    python benchmarks/bench_sandbox.py [--kind bwrap|unshare] [--at-once N]

Exits with 1 if a solution did not pass.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from statistics import median

from circius.base.errors import CirciusError
from circius.evals.data.sets.humaneval import read_humaneval
from circius.evals.data.sets.mbpp import read_mbpp
from circius.evals.sandbox import Sandbox
from circius.evals.scoring.code import humaneval_program, mbpp_program


def reference_programs() -> dict[str, dict[str, str]]:
    """Set to item to program: the authors' own solutions with their tests."""
    return {
        "HumanEval": {
            doc.id: humaneval_program(doc.prompt, doc.solution, doc.test, doc.entry_point) for doc in read_humaneval()
        },
        "MBPP, sanitised": {f"MBPP/{doc.id}": mbpp_program(doc.code, doc.tests, doc.set_up) for doc in read_mbpp()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kind", choices=("bwrap", "unshare"), help="one kind of jail (default: the first that works)")
    parser.add_argument("--at-once", type=int, help="programs side by side (default: one a core)")
    given = parser.parse_args(arguments)
    try:
        sandbox = Sandbox(kind=given.kind, n_at_once=given.at_once)
        sets = reference_programs()
    except CirciusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    failed = 0
    for name, programs in sets.items():
        begun = time.perf_counter()
        verdicts = sandbox.run_all(list(programs.values()))
        elapsed_s = time.perf_counter() - begun
        wrong = [(item, verdict.why) for item, verdict in zip(programs, verdicts, strict=True) if not verdict.passed]
        failed += len(wrong)
        middle = median(verdict.seconds for verdict in verdicts)
        print(
            f"{name}: {len(programs) - len(wrong)} of {len(programs)} passed in {elapsed_s:.1f} s; a program takes "
            f"{1000 * middle:.0f} ms in {sandbox.jail.kind}, {sandbox.n_at_once} at once"
        )
        for item, why in wrong:
            print(f"  {item}: {why}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
