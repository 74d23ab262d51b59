"""A small Mistral from nothing: 3.9 million parameters, a window of 128 in sequences of 512, a vocabulary of 4,096.

    circius tokenizer train TEXTS --vocab-size 4096 --out tok
    circius data prepare TEXTS --tokenizer tok --holdout 0.12 --out shards
    circius pretrain --recipe story --out story

What makes it a Mistral is kept: grouped queries, a window far shorter than the sequence, SwiGLU, an output of its own.
"""

from circius.base.config import ModelConfig
from circius.train.config import (
    CheckpointConfig,
    EvaluationConfig,
    InitConfig,
    RunConfig,
    SampleConfig,
    ScheduleConfig,
    SourceConfig,
)
from circius.train.optim import OptimizerConfig

SHAPE = ModelConfig(
    dim=192,
    n_layers=6,
    head_dim=32,
    hidden_dim=512,
    n_heads=6,
    n_kv_heads=2,
    vocab_size=4096,
    context_len=512,
    window_size=128,
)


def config() -> RunConfig:
    """The run."""
    return RunConfig(
        kind="pretrain",
        model=SHAPE,
        tokenizer="tok",
        sources=(SourceConfig(path="shards"),),
        seq_len=512,
        batch_tokens=4096,
        n_tokens=4_700_000,
        optimizer=OptimizerConfig(kind="muon", lr=2e-3, embedding_lr=4e-3, muon_lr=5e-3, weight_decay=0.1),
        schedule=ScheduleConfig(kind="wsd", warmup=40, decay=0.4, floor=0.02),
        init=InitConfig(std=0.05, residual="zero"),
        evaluation=EvaluationConfig(every=100, max_batches=16),
        samples=SampleConfig(prompts=("Once upon a time",), every=200, max_tokens=80),
        checkpoints=CheckpointConfig(every=100),
    )
