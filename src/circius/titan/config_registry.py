"""What `--config` of torchtitan can name; every field of it can be changed on the command line.

Nothing is read here. `--hf_assets_path` is the folder with the tokenizer (and, with `--checkpoint.initial_load_in_hf`,
the weights to begin with), `--dataloader.dataset_path` one of `circius data prepare`.
"""

from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw
from torchtitan.config import TrainingConfig
from torchtitan.distributed.activation_checkpoint import SelectiveAC
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.trainer import Trainer

from circius.titan.loader import CirciusTokenizer, ShardsLoader
from circius.titan.spec import model_registry


def mistral_7b() -> Trainer.Config:
    """Mistral 7B v0.1: a window of 4,096 in sequences of 8,192."""
    return _trainer(model_registry("mistral_7b"))


def mistral_7b_varlen() -> Trainer.Config:
    """The same with flash-attention's kernels, for machines that have them; no context parallelism."""
    return _trainer(model_registry("mistral_7b", attn_backend="varlen"))


def mistral_7b_v03() -> Trainer.Config:
    """Mistral 7B v0.3: no window, a vocabulary of 32,768, theta of a million."""
    return _trainer(model_registry("mistral_7b_v03"))


def mistral_debug() -> Trainer.Config:
    """20 million parameters, a window of 128 in sequences of 512, ten steps: to see whether everything fits."""
    config = _trainer(model_registry("mistral_debug"))
    config.training.seq_len, config.training.local_batch_size, config.training.steps = 512, 8, 10
    config.lr_scheduler.warmup_steps = 2
    config.metrics.log_freq = 1
    config.checkpoint.enable = False
    return config


def _trainer(spec: ModelSpec) -> Trainer.Config:
    vocab_size = spec.model.vocab_size
    return Trainer.Config(
        model_spec=spec,
        hf_assets_path="./tokenizer",
        tokenizer=CirciusTokenizer.Config(),
        dataloader=ShardsLoader.Config(vocab_size=vocab_size),
        loss=ChunkedLossWrapper.Config(loss_fn=CrossEntropyLoss.Config(global_vocab_size=vocab_size)),
        optimizer=default_adamw(lr=3e-4),
        lr_scheduler=LRSchedulersContainer.Config(warmup_steps=200, decay_type="cosine", min_lr_factor=0.1),
        training=TrainingConfig(
            local_batch_size=1,
            seq_len=8192,
            steps=1000,
            disable_cuda_graphs=True,  # documents of any number in a row: what attention is told has no fixed shape
        ),
        metrics=MetricsProcessor.Config(log_freq=10),
        checkpoint=CheckpointManager.Config(enable=True, interval=500, last_save_in_hf=True, export_dtype="bfloat16"),
        activation_checkpoint=SelectiveAC.Config(),
    )
