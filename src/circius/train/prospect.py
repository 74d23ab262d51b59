"""What training with nothing but defaults would take, by what a check has counted: steps, memory, the least time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from circius.engine.devices import pick_device
from circius.model.adapter import AdapterConfig
from circius.train.check import PREFERENCE, TEXT, Report
from circius.train.defaults import tuning_config
from circius.train.metrics import training_operations
from circius.train.peak import peak_operations
from circius.train.plan import Plan, estimate
from circius.weights import open_checkpoint
from circius.weights.hub import resolve


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """options: of the command, which is the verb `kind`. least_s: the time in which the device could do the run's
    products if it did nothing else, at its measured peak; None if that is not known."""

    kind: Literal["finetune", "dpo"]
    options: Sequence[str]
    plan: Plan
    least_s: float | None


def prospects(report: Report, model: str, adapter: AdapterConfig, *, seq_len: int | None = None) -> list[Prospect]:
    """What it would take to train all weights of `model` on the files of a report, and what an adapter.

    Nothing for texts, whose training only a recipe describes, and for files of which no one verb takes all.

    Raises:
        ModelNotFoundError, CheckpointError: there are no weights of the model.
    """
    forms = {one.form for one in report.files}
    if TEXT in forms or not report.total.n_examples or (PREFERENCE in forms and len(forms) > 1):
        return []
    kind: Literal["finetune", "dpo"] = "dpo" if PREFERENCE in forms else "finetune"
    return [_prospect(report, model, kind, lora, seq_len) for lora in (None, adapter)]


def _prospect(
    report: Report, model: str, kind: Literal["finetune", "dpo"], lora: AdapterConfig | None, seq_len: int | None
) -> Prospect:
    total = report.total
    files = [str(one.file) for one in report.files]
    config = tuning_config(kind, model, files, lora=lora, seq_len=seq_len)
    if seq_len is None and total.longest > config.seq_len:
        seq_len = total.longest
        config = tuning_config(kind, model, files, lora=lora, seq_len=seq_len)
    shape, device = open_checkpoint(resolve(model)).config, pick_device(config.device)[0]
    plan = estimate(total, config, shape=shape, device=device.type)
    mean = max(1, round(total.n_tokens / total.n_examples))
    work = training_operations(shape, [mean], is_frozen=lora is not None) / mean * plan.n_tokens
    peak = peak_operations(config, device)
    return Prospect(
        kind=kind,
        options=[*(["--lora"] if lora else []), *([f"--seq-len={seq_len}"] if seq_len else [])],
        plan=plan,
        least_s=None if peak is None else work / peak,
    )
