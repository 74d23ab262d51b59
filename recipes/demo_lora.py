"""An adapter of rank 16 for the demo model, on conversations of your own.

    circius finetune --recipe demo_lora demo chats.jsonl --out demo-lora
    circius chat demo --adapter demo-lora/adapter

The demo model's weights stay as they are, in 4 bits on disk and in float32 while it learns.
"""

from circius.model.adapter import AdapterConfig
from circius.train.config import CheckpointConfig, EvaluationConfig, RunConfig, ScheduleConfig, SourceConfig
from circius.train.optim import OptimizerConfig


def config() -> RunConfig:
    """The run."""
    return RunConfig(
        kind="finetune",
        model="demo",
        sources=(SourceConfig(path="chats.jsonl"),),
        seq_len=512,
        batch_tokens=2048,
        n_epochs=3,
        lora=AdapterConfig(rank=16, alpha=32),
        optimizer=OptimizerConfig(lr=2e-4, weight_decay=0.0),
        schedule=ScheduleConfig(kind="cosine", warmup=0.03),
        evaluation=EvaluationConfig(share=0.05, every=50),
        checkpoints=CheckpointConfig(every=50),
    )
