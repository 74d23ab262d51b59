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
        template="v1",
        seq_len=512,
        too_long="split",
        batch_tokens=4096,
        n_tokens=2_500_000,
        optimizer=OptimizerConfig(lr=1e-3, weight_decay=0.1),
        schedule=ScheduleConfig(kind="cosine", warmup=0.05),
        evaluation=EvaluationConfig(share=0.03, every=100, max_batches=16),
        samples=SampleConfig(
            prompts=("Tell me a story about a dog.", "Hello! How are you today?"), every=200, max_tokens=80
        ),
        checkpoints=CheckpointConfig(every=100, keep_best=True, export="best"),
    )
