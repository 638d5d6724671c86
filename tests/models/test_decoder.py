"""The decoder against other people's implementations, finite differences, and its own limits."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_contract import SPECS, V, assert_same, built, decoder, gpt2_shaped, random_tokens
from torch import Tensor, nn

from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder, DecoderSpec, qwen3_shaped
from underhood.nn import attention
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import ACTIVATIONS, GatedMLPSpec, MLPSpec
from underhood.nn.forward_context import ForwardContext
from underhood.nn.norm import LayerNormSpec, RMSNormSpec
from underhood.nn.rope import RotarySpec


def llama_names(layer: int) -> dict[str, str]:
    """Hugging Face's names of one layer's weights (Llama, Mistral, Qwen3) to ours."""
    ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
    names = {
        "input_layernorm.weight": "mixer_norm.weight",
        "post_attention_layernorm.weight": "feedforward_norm.weight",
        "self_attn.q_norm.weight": "mixer.query_norm.weight",
        "self_attn.k_norm.weight": "mixer.key_norm.weight",
    }
    names |= {f"mlp.{piece}_proj.weight": f"feedforward.{piece}.weight" for piece in ("gate", "up", "down")}
    for their, our in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output")):
        names |= {f"self_attn.{their}_proj.{kind}": f"mixer.{our}.{kind}" for kind in ("weight", "bias")}
    return {theirs + their: ours + our for their, our in names.items()}


def copy_into_llama_like(model: Decoder, peer: nn.Module) -> None:
    names = {
        "model.embed_tokens.weight": "embed.weight",
        "model.norm.weight": "norm.weight",
        "lm_head.weight": "unembed.weight",
    }
    for layer in range(model.spec.layers):
        names |= llama_names(layer)
    own = model.state_dict()
    peer.load_state_dict({their: own[our] for their, our in names.items() if our in own})


def padded_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, their attention mask as Hugging Face has it, and their positions as we have them."""
    tokens = random_tokens(3, 20)
    lengths = torch.tensor([20, 13, 6])
    positions = (torch.arange(20) - (20 - lengths[:, None])).clamp(min=-1)
    return tokens, (positions >= 0).long(), positions


LLAMA_LIKE = {"vocab_size": V, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_decoder_qwen3_shaped_logits_match_transformers(tied: bool) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    spec = qwen3_shaped(
        vocab_size=V,
        context_length=64,
        d_model=16,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=6,
        d_ff=24,
        theta=5e3,
        tied=tied,
    )
    model = built(spec)
    assert isinstance(model, Decoder)
    config = Qwen3Config(
        **LLAMA_LIKE,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        max_position_embeddings=64,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 5e3},
        tie_word_embeddings=tied,
    )
    peer = Qwen3ForCausalLM(config).eval()
    copy_into_llama_like(model, peer)
    tokens, mask, positions = padded_batch()
    torch.testing.assert_close(model(tokens), peer(tokens).logits, rtol=0, atol=1e-5)
    theirs = peer(tokens, attention_mask=mask, position_ids=positions.clamp(min=0)).logits
    real = mask.bool()
    torch.testing.assert_close(model(tokens, positions=positions)[real], theirs[real], rtol=0, atol=1e-5)


@torch.no_grad()
def test_decoder_with_window_logits_match_transformers_mistral() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    model = built(decoder(AttentionSpec(heads=4, kv_heads=1, window=5)))
    assert isinstance(model, Decoder)
    config = MistralConfig(
        **LLAMA_LIKE,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=4,
        sliding_window=5,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        attn_implementation="eager",
    )
    peer = MistralForCausalLM(config).eval()
    copy_into_llama_like(model, peer)
    tokens = random_tokens(2, 20)
    torch.testing.assert_close(model(tokens), peer(tokens).logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_decoder_gpt2_shaped_logits_match_transformers() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = built(gpt2_shaped())
    assert isinstance(model, Decoder)
    peer = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=64, n_embd=16, n_layer=2, n_head=2)).eval()
    own = model.state_dict()
    theirs = {
        "transformer.wte.weight": own["embed.weight"],
        "transformer.wpe.weight": own["position_embed.weight"],
        "transformer.ln_f.weight": own["norm.weight"],
        "transformer.ln_f.bias": own["norm.bias"],
        "lm_head.weight": own["embed.weight"],
    }
    for layer in range(2):
        ours, prefix = f"blocks.{layer}.", f"transformer.h.{layer}."
        for kind in ("weight", "bias"):
            # GPT-2 keeps its matrices as (in, out), and query, key and value as one.
            turn = (lambda x: x.T) if kind == "weight" else (lambda x: x)
            piece = {name: own[f"{ours}{name}.{kind}"] for name in ("mixer.query", "mixer.key", "mixer.value")}
            theirs[f"{prefix}attn.c_attn.{kind}"] = torch.cat([turn(x) for x in piece.values()], dim=-1)
            for their, our in (
                ("attn.c_proj", "mixer.output"),
                ("mlp.c_fc", "feedforward.up"),
                ("mlp.c_proj", "feedforward.down"),
            ):
                theirs[f"{prefix}{their}.{kind}"] = turn(own[f"{ours}{our}.{kind}"])
            theirs[f"{prefix}ln_1.{kind}"] = own[f"{ours}mixer_norm.{kind}"]
            theirs[f"{prefix}ln_2.{kind}"] = own[f"{ours}feedforward_norm.{kind}"]
    peer.load_state_dict(theirs)
    tokens, mask, positions = padded_batch()
    torch.testing.assert_close(model(tokens), peer(tokens).logits, rtol=0, atol=1e-5)
    out = peer(tokens, attention_mask=mask, position_ids=positions.clamp(min=0)).logits
    real = mask.bool()
    torch.testing.assert_close(model(tokens, positions=positions)[real], out[real], rtol=0, atol=1e-5)


GRADIENT_SPECS = {
    "qwen3": qwen3_shaped(vocab_size=5, context_length=8, d_model=6, layers=2, heads=3, kv_heads=1, head_dim=4, d_ff=5),
    "window_tied_geglu": DecoderSpec(
        vocab_size=5,
        context_length=8,
        d_model=4,
        layers=2,
        tied=True,
        blocks=(
            BlockSpec(
                mixer=AttentionSpec(heads=2, window=2, bias=True, output_bias=True),
                feedforward=GatedMLPSpec(d_ff=3, activation="gelu_tanh", bias=True),
            ),
        ),
    ),
    "gpt2": gpt2_shaped(width=4, vocab_size=5),
}


def gradient_error(spec: DecoderSpec) -> float:
    """The worst error over every parameter of the model, in float64 on a packed and padded batch, as a share of the
    largest derivative in its tensor."""
    model = built(dataclasses.replace(spec, context_length=8))
    assert isinstance(model, Decoder)
    model.double()
    tokens, targets = random_tokens(2, 7) % 5, random_tokens(2, 7, seed=1) % 5
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2], [-1, -1, 0, 0, 1, 2, 3]])
    targets[positions < 0] = -100

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(tokens, positions=positions).flatten(0, 1), targets.flatten())

    loss().backward()
    step, worst, checked = 2e-6, 0.0, 0
    with torch.no_grad():
        for parameter in model.parameters():
            flat, numeric = parameter.view(-1), torch.zeros(parameter.numel(), dtype=torch.float64)
            for index in range(parameter.numel()):
                middle = flat[index].item()
                flat[index] = middle + step
                above = loss()
                flat[index] = middle - step
                numeric[index] = (above - loss()) / (2 * step)
                flat[index] = middle
            assert parameter.grad is not None
            error = (parameter.grad.view(-1) - numeric).abs().max() / numeric.abs().max().clamp(min=1e-3)
            worst, checked = max(worst, error.item()), checked + parameter.numel()
    assert checked == parameter_count(model)
    return worst


@pytest.mark.parametrize("name", GRADIENT_SPECS)
def test_decoder_gradients_match_finite_differences(name: str) -> None:
    assert gradient_error(GRADIENT_SPECS[name]) < 1e-6


def test_finite_differences_notice_a_gradient_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    rotate = attention.rotate
    monkeypatch.setattr(attention, "rotate", lambda x, tables: 0.999 * rotate(x, tables) + 0.001 * x.detach())
    assert gradient_error(GRADIENT_SPECS["window_tied_geglu"]) > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 4])
def test_attention_window_reaches_exactly_that_far(window: int) -> None:
    model = built(decoder(AttentionSpec(heads=2, window=window), layers=1))
    tokens = random_tokens(1, 12)
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % V
    differs = (model(tokens) - model(changed)).abs().amax(dim=-1)[0] > 1e-6
    assert differs.nonzero().flatten().tolist() == list(range(3, 3 + window))


@torch.no_grad()
def test_attention_window_as_long_as_the_text_matches_no_window() -> None:
    tokens = random_tokens(2, 9)
    whole = built(decoder(AttentionSpec(heads=2)))(tokens)
    assert torch.equal(built(decoder(AttentionSpec(heads=2, window=9)))(tokens), whole)
    assert not torch.allclose(built(decoder(AttentionSpec(heads=2, window=8)))(tokens), whole)


@torch.no_grad()
def test_rotary_attention_depends_on_distance_only() -> None:
    model = built(decoder(AttentionSpec(heads=2)))
    tokens = random_tokens(1, 6)
    assert_same(model(tokens, positions=torch.arange(30, 36)[None]), model(tokens))
    still = built(decoder(AttentionSpec(heads=2, rotary=None), layers=1))
    twice = torch.tensor([[3, 4, 5], [4, 3, 5]])  # without positions the last token can't tell the order
    first_V, second_V = still(twice)[:, -1]
    assert_same(first_V, second_V)
    first_V, second_V = model(twice)[:, -1]
    assert not torch.allclose(first_V, second_V)


def test_rotary_tables_of_float64_are_exact() -> None:
    tokens = torch.zeros(1, 4000, dtype=torch.long)

    cos, sin = RotarySpec().tables(ForwardContext(tokens, None, None), 8, torch.float64)
    angle = 3999 * 10_000.0 ** (-2 / 8)
    assert cos[0, 0, 3999, 1].item() == pytest.approx(torch.tensor(angle, dtype=torch.float64).cos().item(), abs=1e-12)
    assert sin.dtype == torch.float64


def test_initialize_starts_at_uniform_predictions_and_repeats() -> None:
    spec = qwen3_shaped(vocab_size=V, context_length=32, d_model=16, layers=2, heads=2)
    model, again, other = (spec.initialize(seed=seed) for seed in (0, 0, 1))
    logits = model(random_tokens(1, 5))
    assert torch.equal(logits, torch.zeros_like(logits))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.embed.weight, other.embed.weight)


def test_parameter_count_matches_closed_form_and_counts_ties_once() -> None:
    spec = SPECS["qwen3_tied"]
    model = built(spec)
    width, heads, groups, head, hidden = 16, 2, 1, 8, 24
    attention = width * (heads + 2 * groups) * head + heads * head * width + 2 * head
    expected = V * width + width + 2 * (attention + 3 * width * hidden + 2 * width)
    assert parameter_count(model) == expected
    untied = dataclasses.replace(spec, tied=False)
    assert parameter_count(built(untied)) == expected + V * width


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: decoder(AttentionSpec(heads=2), layers=0),
        lambda: decoder(AttentionSpec(heads=2), blocks=()),
        lambda: AttentionSpec(heads=4, kv_heads=3),
        lambda: decoder(AttentionSpec(heads=3)).build(),
    ],
)
def test_decoder_spec_refuses_what_cannot_be_built(wrong) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        wrong()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_feedforward_matches_its_equation(name) -> None:
    x = torch.randn(2, 3, 8)

    ctx = ForwardContext(torch.zeros(2, 3, dtype=torch.long), None, None)
    act = {
        "silu": lambda z: z / (1 + (-z).exp()),
        "gelu": lambda z: z * 0.5 * (1 + (z / 2**0.5).erf()),
        "gelu_tanh": lambda z: 0.5 * z * (1 + ((2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3)).tanh()),
        "relu": lambda z: z * (z > 0),
        "relu2": lambda z: z**2 * (z > 0),
    }[name]
    gated = GatedMLPSpec(d_ff=5, activation=name).build(8)
    assert_same(gated(x, ctx), (act(x @ gated.gate.weight.T) * (x @ gated.up.weight.T)) @ gated.down.weight.T)
    plain = MLPSpec(d_ff=5, activation=name).build(8)
    inner = act(x @ plain.up.weight.T + plain.up.bias)
    assert_same(plain(x, ctx), inner @ plain.down.weight.T + plain.down.bias)


def test_norms_match_their_equations_in_every_type() -> None:
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        x = torch.randn(4, 16, dtype=torch.float64) * 3
        norm = RMSNormSpec(eps=1e-3).build(16)
        nn.init.normal_(norm.weight)
        expected = x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight.double()
        actual = norm.to(dtype)(x.to(dtype))
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)
    layer = LayerNormSpec(eps=1e-3).build(16)
    x = torch.randn(4, 16)
    centred = x - x.mean(-1, keepdim=True)
    assert_same(layer(x), centred / (centred.square().mean(-1, keepdim=True) + 1e-3).sqrt())
