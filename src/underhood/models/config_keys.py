"""Keys of a Hugging Face ``config.json`` that no family reads: which are harmless, and which are refused.

A silent default is the worst way to open someone's model: the answer is wrong and looks right. Refusing every unknown
key is nearly as bad: published files carry dozens that switch nothing on. So an unread key is judged by what it can do
(`judge`): it passes if it is private (``_…``), null, false or empty, or on the list of harmless ones; it is refused if
it may change the function. `ignoring_config_keys` is the user's way to overrule that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

_HARMLESS = """
_name_or_path _commit_hash name_or_path model_name architectures auto_map model_type dtype torch_dtype
transformers_version transformers.js_config unsloth_version unsloth_fixed is_llama_config license use_cache
cache_implementation _attn_implementation _attn_implementation_autoset attn_implementation use_flash_attn
use_flash_attention use_flash_attention_2 flash_attn use_sdpa torchscript return_dict output_past output_attentions
output_hidden_states output_router_logits gradient_checkpointing use_bfloat16 fp16 bf16 fp32 chunk_size_feed_forward
pretraining_tp base_model_tp_plan base_model_pp_plan base_model_ep_plan tf_legacy_loss pruned_heads
reorder_and_upcast_attn upcast_attention onnx num_logits_to_keep logits_to_keep model_parallel

dropout attention_dropout attn_dropout attn_pdrop resid_pdrop resid_dropout residual_dropout embd_pdrop embd_dropout
embedding_dropout hidden_dropout hidden_dropout_prob attention_probs_dropout_prob ffn_dropout mlp_dropout
classifier_dropout classifier_dropout_prob layerdrop initializer_range initializer_factor init_std init_method
router_aux_loss_coef router_z_loss_coef router_jitter_noise input_jitter_noise neftune_noise_alpha label_smoothing
z_loss_multiplier

bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id unk_token_id bos_token eos_token
pad_token unk_token eot_token_id im_start_token_id im_end_token_id decoder_start_token_id bad_words_ids
tokenizer_class tokenizer_name tokenizer_model_max_length model_max_length tokenizer_padding_side padding_side
add_bos_token add_eos_token predict_special_tokens prefix task_specific_params do_sample temperature top_k top_p min_p
typical_p num_beams num_beam_groups max_length min_length max_new_tokens early_stopping length_penalty
repetition_penalty no_repeat_ngram_size diversity_penalty encoder_no_repeat_ngram_size
exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens
num_return_sequences remove_invalid_values return_dict_in_generate output_scores chat_template

finetuning_task id2label label2id num_labels problem_type summary_activation summary_first_dropout
summary_proj_to_labels summary_type summary_use_proj
"""
HARMLESS = frozenset(_HARMLESS.split())
"""Keys that do not change what a language model computes: where the file comes from and how programs handle it
(``auto_map`` names remote code, which is never run), training only, tokens and text generation (read elsewhere), and
heads for other tasks."""

_OFF = (False, None)
_ON = (True,)

ALLOWED_VALUES: Mapping[str, tuple[Any, ...]] = {
    "is_encoder_decoder": _OFF,
    "is_decoder": (False, True, None),
    "add_cross_attention": _OFF,
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": _OFF,
    "use_bidirectional_attention": _OFF,
    "scale_attn_by_inverse_layer_idx": _OFF,
    "clip_qkv": (None,),
    "attention_bias": _OFF,
    "mlp_bias": _OFF,
    "lm_head_bias": _OFF,
    "full_attention_mod": (1, None),
    "full_attn_mod": (1, None),
    "interpolate_factor": (1, None),
    "rope_interleaved": _OFF,
    "num_nextn_predict_layers": (0, None),
    "n_special": (0, None),
    "quantization_config": (None, {}),
    "quantization": (None, {}),
    # Switches that are on where a file says nothing: off is another function, so false must not pass as "empty".
    "scale_attn_weights": _ON,
    "causal": _ON,
    "is_causal": _ON,
    "use_rope": _ON,
    "use_rotary": _ON,
    "rotary": _ON,
    "use_rotary_embeddings": _ON,
    "use_rotary_position_embeddings": _ON,
    "use_rmsnorm": _ON,
    "use_rms_norm": _ON,
    "rms_norm": _ON,
    "use_glu": _ON,
    "use_gated_mlp": _ON,
    "gated_mlp": _ON,
    "use_swiglu": _ON,
    "do_layer_norm_before": _ON,
    "normalize_before": _ON,
    "use_final_norm": _ON,
    "final_layer_norm": _ON,
    "elementwise_affine": _ON,
    "layer_norm_elementwise_affine": _ON,
}
"""Keys that would change the function in every family, with the values that do not. A family adds its own by
`Config.allow`."""

Verdict = Literal["harmless", "empty", "private", "ignored", "unsupported", "unknown"]


@dataclass(frozen=True)
class UnusedKey:
    """A key of a configuration that decides nothing in the model that was made of it.

    Attributes:
        key: its name, with that of the object it is in, e.g. ``rope_scaling.finetuned``.
        value: what the file says.
        why: "harmless" (on the list, or a value that changes nothing), "empty" (null, false or empty), "private"
            (begins with ``_``), or "ignored" (the user asked for it).
    """

    key: str
    value: Any
    why: Verdict


def judge(key: str, value: Any, allowed: Mapping[str, tuple[Any, ...]]) -> Verdict:
    """What an unread key can do: the reason why it passes, or "unsupported" or "unknown"."""
    if key in HARMLESS:
        return "harmless"
    if key in allowed:
        return "harmless" if any(value is good or value == good for good in allowed[key]) else "unsupported"
    if key.startswith("_"):
        return "private"
    if value is None or value is False or (isinstance(value, (str, list, dict)) and not value):
        return "empty"
    return "ignored" if key in _ignored.get() else "unknown"


_ignored: ContextVar[frozenset[str]] = ContextVar("ignored_config_keys", default=frozenset())


@contextmanager
def ignoring_config_keys(names: Iterable[str]) -> Iterator[None]:
    """Lets unknown keys of these names pass in every configuration read inside the ``with``.

    Keys that are known to change the function can't be ignored.
    """
    token = _ignored.set(_ignored.get() | frozenset(names))
    try:
        yield
    finally:
        _ignored.reset(token)


def ignored_config_keys() -> frozenset[str]:
    """The names in force; see `ignoring_config_keys`."""
    return _ignored.get()
