"""Times another library's pre-fill; run by that library's own Python, which needs nothing of circius.

    python peer_prefill.py ctranslate2|transformers MODEL_FOLDER TOKENS THREADS

MODEL_FOLDER is a checkpoint in Hugging Face's layout in bf16. CTranslate2 runs it in int8, converted once into a folder
beside it; transformers in bf16 with torch's fused attention. Prints the tokens a second of each repeat as JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPEATS = 2
FIRST_TOKEN = 3


def ctranslate2_prefill(folder: Path, n_tokens: int, n_threads: int) -> Callable[[], object]:
    import ctranslate2

    class Converter(ctranslate2.converters.TransformersConverter):
        """Without the tokenizer, whose words make no difference to the time."""

        def load_tokenizer(self, *_: object, **__: object) -> "Words":
            return Words()

    converted = folder.with_name(f"{folder.name}-ctranslate2-int8")
    if not converted.exists():
        Converter(str(folder)).convert(str(converted), quantization="int8")
    generator = ctranslate2.Generator(str(converted), compute_type="int8", intra_threads=n_threads, inter_threads=1)
    vocabulary = json.loads((converted / "vocabulary.json").read_text())
    words = vocabulary[FIRST_TOKEN:]
    prompt = [words[index % len(words)] for index in range(n_tokens)]
    return lambda: generator.generate_batch([prompt], max_length=1, include_prompt_in_result=False)


class Words:
    """What the converter asks of a tokenizer; it makes up names for all further tokens."""

    unk_token, bos_token, eos_token = "<unk>", "<s>", "</s>"

    def get_vocab(self) -> dict[str, int]:
        return {self.unk_token: 0, self.bos_token: 1, self.eos_token: 2}


def transformers_prefill(folder: Path, n_tokens: int, n_threads: int) -> Callable[[], object]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(n_threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    tokens = FIRST_TOKEN + torch.arange(n_tokens)[None] % (model.config.vocab_size - FIRST_TOKEN)

    @torch.inference_mode()
    def prefill() -> object:
        return model(tokens, use_cache=True, logits_to_keep=1)

    return prefill


def main() -> None:
    peer, folder, n_tokens, n_threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    ready = {"ctranslate2": ctranslate2_prefill, "transformers": transformers_prefill}[peer](
        folder, n_tokens, n_threads
    )
    speeds = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        ready()
        speeds.append(n_tokens / (time.perf_counter() - started))
    print(json.dumps(speeds[1:]))


if __name__ == "__main__":
    main()
