"""The encoder–decoder and its beam search against MarianMT of transformers, with the same random weights."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from underhood.data.translation_batches import pad_sources
from underhood.infer.beam import BeamSpec, StopRule, beam_search_batch
from underhood.models.encoder_decoder import EncoderDecoder, original_transformer

V, D, LAYERS, START = 29, 16, 2, 0
STOPS = [3, 7, 20]
NAMES = {
    "self_attn.q_proj": "mixer.query",
    "self_attn.k_proj": "mixer.key",
    "self_attn.v_proj": "mixer.value",
    "self_attn.out_proj": "mixer.output",
    "self_attn_layer_norm": "mixer_stream_norm",
    "encoder_attn.q_proj": "cross.query",
    "encoder_attn.k_proj": "cross.key",
    "encoder_attn.v_proj": "cross.value",
    "encoder_attn.out_proj": "cross.output",
    "encoder_attn_layer_norm": "cross_stream_norm",
    "fc1": "feedforward.up",
    "fc2": "feedforward.down",
    "final_layer_norm": "feedforward_stream_norm",
}


@pytest.fixture(scope="module")
def pair() -> tuple[EncoderDecoder, Any]:
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(2)
    config = MarianConfig(
        vocab_size=V,
        d_model=D,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        activation_function="relu",
        scale_embedding=True,
        max_position_embeddings=48,
        init_std=0.3,
        pad_token_id=START,
        decoder_start_token_id=START,
        eos_token_id=STOPS,
        forced_eos_token_id=None,
    )
    peer = MarianMTModel(config).eval()
    for parameter in peer.parameters():
        if parameter.ndim == 1:
            parameter.data += torch.randn(parameter.shape) * 0.3
    spec = original_transformer(vocab_size=V, context_length=48, d_model=D, layers=LAYERS, heads=4, d_ff=24)
    return ours_with_the_weights_of(peer, spec.build()), peer


@torch.no_grad()
def ours_with_the_weights_of(peer: Any, model: EncoderDecoder) -> EncoderDecoder:
    """Marian has all sines of a position before all cosines; with the dimensions of the stream reordered it is ours."""
    order = torch.arange(D).view(2, -1).T.flatten()
    theirs, mine = peer.model.state_dict(), model.state_dict()
    mine["embed.weight"].copy_(theirs["shared.weight"][:, order])
    for side in ("encoder", "decoder"):
        for layer in range(LAYERS):
            for name, own in NAMES.items():
                if side == "encoder" and own.startswith("cross"):
                    continue
                for kind in ("weight", "bias"):
                    tensor = theirs[f"{side}.layers.{layer}.{name}.{kind}"]
                    reads, writes = kind == "weight" and tensor.ndim == 2, name.endswith(("out_proj", "fc2", "norm"))
                    tensor = tensor[order] if writes else tensor
                    tensor = tensor[:, order] if reads and not name.endswith(("out_proj", "fc2")) else tensor
                    mine[f"{side}.blocks.{layer}.{own}.{kind}"].copy_(tensor)
    return model.eval()


def sources() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    source, positions = pad_sources([torch.randint(4, V, (n,), generator=draw).tolist() for n in (7, 3, 9, 5, 1, 8)])
    assert positions is not None
    return source, positions


@torch.no_grad()
def test_scores_match_marian(pair: tuple[EncoderDecoder, Any]) -> None:
    model, peer = pair
    source, positions = sources()
    target = torch.randint(4, V, (6, 5), generator=torch.Generator().manual_seed(3))
    theirs = peer(input_ids=source, attention_mask=(positions >= 0).long(), decoder_input_ids=target).logits
    ours = model.decode(target, model.encode(source, positions=positions))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("stop", ["full", "likely", "certain"])
def test_beams_match_marian(pair: tuple[EncoderDecoder, Any], stop: StopRule) -> None:
    model, peer = pair
    source, positions = sources()
    finishes, lengths = set[str](), set[int]()
    for beams, alpha in itertools.product((1, 2, 3, 4, 5), (0.0, 0.6, 1.0)):
        options = {"num_beams": beams, "num_return_sequences": beams, "length_penalty": alpha} if beams > 1 else {}
        options |= {"early_stopping": {"full": True, "likely": False, "certain": "never"}[stop]} if beams > 1 else {}
        expected = peer.generate(
            input_ids=source,
            attention_mask=(positions >= 0).long(),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=STOPS,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
        actual = beam_search_batch(
            model.given(model.encode(source, positions=positions)),
            [[START]] * len(source),
            BeamSpec(beams=beams, length_penalty=alpha, stop=stop),
            n=beams,
            max_new_tokens=12,
            stop_ids=STOPS,
        )
        hypotheses = [hypothesis for search in actual for hypothesis in search]
        texts = [[*each.ids, *([] if each.stop_id is None else [each.stop_id])] for each in hypotheses]
        theirs = [row[1 : 1 + len(text)].tolist() for row, text in zip(expected.sequences, texts, strict=True)]
        assert texts == theirs
        if beams > 1:
            scores = [each.score for each in hypotheses]
            assert scores == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)
        finishes |= {each.finish for each in hypotheses}
        lengths |= {len(each.ids) for each in hypotheses}
    assert finishes == {"stop", "length"}
    assert len(lengths) > 2
