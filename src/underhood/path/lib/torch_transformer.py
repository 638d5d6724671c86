"""torch.nn.Transformer with the weights of one of our encoder–decoders, for comparisons."""

from __future__ import annotations

import warnings
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from underhood.models.encoder_decoder import EncoderDecoder
from underhood.nn.attention import Attention
from underhood.nn.block import Block


@torch.no_grad()
def torch_transformer(model: EncoderDecoder) -> nn.Transformer:
    """The same encoder and decoder, without embeddings, for models of `original_transformer`."""
    block = cast(Block, model.decoder.blocks[0])
    before = block.sublayers[0].norm is not None
    mlp = cast(nn.Linear, block.get_submodule("feedforward.up"))
    heads = cast(Attention, block.get_submodule("mixer")).spec.heads
    layers = len(model.encoder.blocks)
    with torch.device(mlp.weight.device), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*nested.tensor")
        theirs = nn.Transformer(
            mlp.in_features,
            heads,
            layers,
            len(model.decoder.blocks),
            mlp.out_features,
            dropout=0.0,
            batch_first=True,
            norm_first=before,
        )
    pairs = ((model.encoder, theirs.encoder), (model.decoder, theirs.decoder))
    for ours, stack in pairs:
        for block, layer in zip(ours.blocks, stack.layers, strict=True):
            _copy_layer(cast(Block, block), layer, "norm" if before else "stream_norm")
        if before:
            cast(nn.Module, stack.norm).load_state_dict(ours.norm.state_dict())
        else:  # the paper has no norm behind its last block
            stack.norm = None
    return theirs.eval()


@torch.no_grad()
def largest_difference(model: EncoderDecoder, source: Int[Tensor, "B S"], target: Int[Tensor, "B T"]) -> float:
    """Between the model's scores and those of torch.nn.Transformer, given the same embeddings."""
    embedded = list[Tensor]()

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        embedded.append(output)

    hooks = [module.register_forward_hook(keep) for module in (model.source_sum, model.target_sum)]
    scores_BTV = model(source, target)
    for hook in hooks:
        hook.remove()
    later = nn.Transformer.generate_square_subsequent_mask(target.shape[1], device=target.device)
    hidden_BTD = torch_transformer(model)(*embedded, tgt_mask=later)
    return float((scores_BTV - model.unembed(hidden_BTD)).abs().max())


def _copy_layer(block: Block, layer: nn.Module, norm: str) -> None:
    attentions = {"mixer": "self_attn", "cross": "multihead_attn"}
    for number, name in enumerate((piece.name for piece in block.sublayers), start=1):
        layer.get_submodule(f"norm{number}").load_state_dict(block.get_submodule(f"{name}_{norm}").state_dict())
        ours = block.get_submodule(name)
        if name in attentions:
            theirs = cast(nn.MultiheadAttention, layer.get_submodule(attentions[name]))
            inputs = [cast(nn.Linear, ours.get_submodule(kind)) for kind in ("query", "key", "value")]
            cast(nn.Parameter, theirs.in_proj_weight).copy_(torch.cat([linear.weight for linear in inputs]))
            cast(nn.Parameter, theirs.in_proj_bias).copy_(torch.cat([linear.bias for linear in inputs]))
            theirs.out_proj.load_state_dict(ours.get_submodule("output").state_dict())
        else:
            layer.get_submodule("linear1").load_state_dict(ours.get_submodule("up").state_dict())
            layer.get_submodule("linear2").load_state_dict(ours.get_submodule("down").state_dict())
