"""Peak memory of scoring above weights and activations, at vocabulary 128,000, 2,048 tokens, batch 8.

    python -m benchmarks.memory

Each side runs in a process of its own; the figure is the difference of their peak resident sizes.
"""

from __future__ import annotations

import resource
import subprocess
import sys

VOCABULARY, TOKENS, BATCH = 128_000, 2048, 8


def peak(side: str) -> float:
    """Peak resident megabytes of one side in a fresh process."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.memory", side], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def run(side: str) -> None:
    """Body alone, or the full token statistics; prints this process's peak in MB."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from repromia.targets.language import LanguageModel
    from repromia.targets.tokens import Encoder, TokenSequence

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    generator = np.random.default_rng(0)
    scored = np.arange(TOKENS) > 0
    sequences = [TokenSequence(generator.integers(0, VOCABULARY, TOKENS), scored) for _ in range(BATCH)]
    if side == "body":
        with torch.inference_mode():
            model.model(input_ids=torch.from_numpy(np.stack([one.ids for one in sequences])))
    else:

        class NoTokenizer:  # ids are made here; only the attributes that a target looks up exist
            bos_token_id = None

        target = LanguageModel(model, Encoder(NoTokenizer(), TOKENS), batch_tokens=BATCH * TOKENS)
        target.signals(sequences)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print the difference."""
    if len(sys.argv) > 1:
        run(sys.argv[1])
        return
    body, full = peak("body"), peak("full")
    logits = 4 * VOCABULARY * TOKENS * BATCH / 2**20
    print(f"peak with the body alone {body:.0f} MB, with all token statistics {full:.0f} MB")
    print(f"above weights and activations: {full - body:.0f} MB (goal < 400; the logits alone would be {logits:.0f})")


if __name__ == "__main__":
    main()
