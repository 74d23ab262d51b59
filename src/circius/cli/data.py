"""`circius data ...`: training data, looked at and prepared; the benchmarks' items, fetched."""

from circius.cli import data_check, data_eval, data_prepare, data_show

NAME = "data"
HELP = "Training data: check, look at, prepare. Evaluation data: fetch."
VERBS = (data_check, data_show, data_prepare, data_eval)
