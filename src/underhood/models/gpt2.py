"""GPT-2: the decoder of Radford et al. 2019, its initialisation, and the padding of its vocabulary.

Layer norm before each sublayer and once at the end, learned positions, GELU, tied embeddings. nanoGPT (Karpathy 2022)
trains the same shape, with or without biases, for characters as for 124 million parameters.
"""

from __future__ import annotations

import math

import torch

from underhood.models.decoder import Decoder, DecoderSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import Activation, MLPSpec
from underhood.nn.norm import LayerNormSpec
from underhood.nn.positions import LearnedPositionSpec

STD = 0.02
"""Standard deviation of every fresh matrix, at every width."""


def gpt2_shaped(
    *,
    vocab_size: int,
    context_length: int,
    d_model: int,
    layers: int,
    heads: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    bias: bool = True,
    activation: Activation = "gelu_tanh",
) -> DecoderSpec:
    """A decoder of GPT-2's architecture.

    Args:
        bias: biases in linear layers and norms; nanoGPT's own trainings leave them out.
        activation: OpenAI's code has the tanh form of GELU, nanoGPT the exact one (``gelu``).
    """
    norm = LayerNormSpec(bias=bias)
    attention = AttentionSpec(
        heads=heads, kv_heads=kv_heads, head_dim=head_dim, rotary=None, bias=bias, output_bias=bias
    )
    feedforward = MLPSpec(d_ff=4 * d_model, activation=activation, bias=bias)
    return DecoderSpec(
        vocab_size=vocab_size,
        context_length=context_length,
        d_model=d_model,
        layers=layers,
        blocks=(BlockSpec(mixer=attention, feedforward=feedforward, norm=norm),),
        norm=norm,
        tied=True,
        positions=LearnedPositionSpec(),
    )


def gpt2_initialized(spec: DecoderSpec, *, seed: int, scale_residual: bool = True) -> Decoder:
    """The model with GPT-2's fresh weights: normal with standard deviation 0.02, biases zero, norms one.

    The residual stream is a sum of 2 L branches, so the matrices that write to it start at ``0.02 / √(2 L)``: the sum
    then has the same size however deep the model is (Radford et al. 2019, section 2.3).

    Args:
        scale_residual: False leaves those matrices at 0.02, to see what the scale is for.
    """
    model = spec.build()
    generator = torch.Generator().manual_seed(seed)
    into_stream = STD / math.sqrt(2 * spec.layers) if scale_residual else STD
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                writes = name.endswith((".mixer.output.weight", ".feedforward.down.weight"))
                parameter.normal_(0.0, into_stream if writes else STD, generator=generator)
            else:
                parameter.fill_(1.0 if "norm" in name and name.endswith(".weight") else 0.0)
    return model


def padded_vocabulary(tokens: int, multiple: int = 64) -> int:
    """The vocabulary size that suits matrix units: 50,304 rows for 50,257 tokens (nanoGPT); the rest stays unused."""
    return -(-tokens // multiple) * multiple
