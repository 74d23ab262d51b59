"""The benchmarks' items: where they come from, whether they are what they should be, and reading them.

`circius data eval` puts every set into CIRCIUS_HOME/eval once (`fetch`); after that nothing here needs a network. Each
module of `sets` reads one benchmark into plain frozen dataclasses.
"""
