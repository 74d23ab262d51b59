"""`python -m circius` is the `circius` command."""

from circius.cli.main import run

if __name__ == "__main__":
    raise SystemExit(run())
