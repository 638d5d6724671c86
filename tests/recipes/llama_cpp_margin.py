"""How far llama.cpp's greedy text may be from our likeliest tokens.

llama.cpp rounds what it multiplies with weights of 8 bits and fewer to blocks of 8 bits, and with f16 to f16. Where
`rounded` is used our model does the same, so that the margin can be small. llama.cpp's text is read by our model token
by token: each token must be our likeliest, or one whose log-probability is less than a margin below it. Nothing is
excused by an earlier difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import gguf
import torch
from gguf import GGMLQuantizationType

from llama_peer import LlamaCpp
from underhood.infer.load import LoadedModel

TOKENS = 32
EXACT = 2e-3
"""Margin in nats for weights of 32 bits: sums in another order."""
ROUNDED = 0.1
"""Margin in nats where both round activations: a sum in another order may round to the neighbour, which moved single
log-probabilities by up to 0.078 (results/check_gguf, 2026-11-22)."""
UNROUNDED = 0.3
"""Margin in nats where only llama.cpp rounds them, over 30 layers: the top two tokens are a near-tie for it then."""
ROUNDING = {"f32": None, "f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0}
"""What llama.cpp rounds activations to for weights of these types."""

PROMPTS = ["Gravity is", "The capital of France is", "def add(a, b):\n    return", "Once upon a time", "1, 2, 3, 4,"]


def rounded(loaded: LoadedModel, kind: GGMLQuantizationType | None) -> LoadedModel:
    """The model with the inputs of its linear layers rounded as llama.cpp rounds them."""

    def round_input(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        assert kind is not None
        x = inputs[0].float().numpy()
        return torch.from_numpy(gguf.dequantize(gguf.quantize(x, kind), kind).reshape(x.shape).copy())

    layers = [module for module in loaded.decoder.modules() if isinstance(module, torch.nn.Linear)]
    assert len(layers) > 6 * loaded.decoder.spec.layers
    for layer in layers if kind is not None else ():
        layer.register_forward_pre_hook(round_input)
    return loaded


def gaps(loaded: LoadedModel, prompt: Sequence[int], written: Sequence[int], ended: bool) -> list[float]:
    """By how much the log-probability of each written token is below that of the likeliest one there.

    Where the text ended, the last one is that of the likeliest token that ends a text.
    """
    with torch.inference_mode():
        logits_TV = loaded(torch.tensor([[*prompt, *written]]))[0, len(prompt) - 1 :]
        logprobs_TV = logits_TV[:, : loaded.tokenizer.vocab_size].float().log_softmax(dim=-1)
    best_T = logprobs_TV.amax(dim=-1)
    below = (best_T[:-1] - logprobs_TV[range(len(written)), list(written)]).tolist()
    return below + [float(best_T[-1] - logprobs_TV[-1, loaded.stop_ids].amax())] * ended


def continuations(peer: LlamaCpp, loaded: LoadedModel, prompts: Sequence[Sequence[int]], margin: float) -> int:
    """Checks llama.cpp's greedy texts; how many tokens they have."""
    count = 0
    for prompt in prompts:
        written = peer.write(prompt, TOKENS)
        worst = max(gaps(loaded, prompt, written, len(written) < TOKENS))
        assert worst < margin, (loaded.tokenizer.decode(prompt), worst)
        count += len(written)
    return count
