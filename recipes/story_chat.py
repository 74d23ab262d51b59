"""Teaches the small Mistral of `story` to answer: all of its weights, at a smaller rate.

circius finetune --recipe story_chat --out story-chat     # reads ./chats.jsonl, begins with ./story/model
circius chat story-chat/model
"""

from circius.train.config import (
    CheckpointConfig,
    EvaluationConfig,
    RunConfig,
    SampleConfig,
    ScheduleConfig,
    SourceConfig,
)
from circius.train.optim import OptimizerConfig


def config() -> RunConfig:
    """The run."""
    return RunConfig(
        kind="finetune",
        model="story/model",
        sources=(SourceConfig(path="chats.jsonl"),),
        seq_len=512,
        batch_tokens=8192,
        n_epochs=3,
        optimizer=OptimizerConfig(lr=5e-4, weight_decay=0.1),
        schedule=ScheduleConfig(kind="cosine", warmup=0.05),
        evaluation=EvaluationConfig(share=0.05, every=50),
        samples=SampleConfig(prompts=("Tell me a story about a dog.",), every=100, max_tokens=80),
        checkpoints=CheckpointConfig(every=100, keep_best=True, export="best"),
    )
