"""The `circius` command: one verb, one module; `main` brings them together."""
