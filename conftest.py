"""What pytest must know before it looks for tests: no test asserts a time, and some modules need an extra."""

from importlib.util import find_spec

from hypothesis import settings

settings.register_profile("circius", deadline=None)
settings.load_profile("circius")

NEEDS = {"src/circius/evals/lm_eval.py": "lm_eval"}
collect_ignore = [path for path, module in NEEDS.items() if find_spec(module) is None]
collect_ignore += ["src/circius/titan"]  # no doctests there, and importing torchtitan makes torch warn
