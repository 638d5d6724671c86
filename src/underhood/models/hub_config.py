"""Reading a Hugging Face ``config.json`` strictly: a key that nobody read, and that could matter, is an error.

A silent default is the worst way to open someone's model: the answer is wrong and looks right. So every key of the
file is either taken by the family that reads it, known to change nothing about the function, or refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log, sqrt
from typing import Any

from underhood.core.errors import UserError
from underhood.nn.rope import RotarySpec
from underhood.nn.rope_scaling import LinearScaling, Llama3Scaling, LongRopeScaling, RotaryScalingSpec, YarnScaling

_HARMLESS = """
_name_or_path _commit_hash architectures auto_map model_type dtype torch_dtype transformers_version
transformers.js_config unsloth_version unsloth_fixed is_llama_config license use_cache cache_implementation
_attn_implementation _attn_implementation_autoset attn_implementation use_flash_attn torchscript return_dict
output_attentions output_hidden_states output_router_logits gradient_checkpointing use_bfloat16 fp16 bf16 fp32
chunk_size_feed_forward pretraining_tp base_model_tp_plan tf_legacy_loss pruned_heads reorder_and_upcast_attn

attention_dropout attn_pdrop resid_pdrop embd_pdrop hidden_dropout classifier_dropout initializer_range
router_aux_loss_coef router_jitter_noise input_jitter_noise

bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id bad_words_ids tokenizer_class
prefix task_specific_params do_sample temperature top_k top_p typical_p num_beams num_beam_groups max_length min_length
max_new_tokens early_stopping length_penalty repetition_penalty no_repeat_ngram_size diversity_penalty
encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id suppress_tokens
begin_suppress_tokens num_return_sequences remove_invalid_values return_dict_in_generate output_scores

finetuning_task id2label label2id num_labels problem_type summary_activation summary_first_dropout
summary_proj_to_labels summary_type summary_use_proj
"""
HARMLESS = frozenset(_HARMLESS.split())
"""Keys that do not change what a language model computes: where the file comes from and how programs handle it
(``auto_map`` names remote code, which is never run), training only, tokens and text generation (read elsewhere), and
heads for other tasks."""

ONLY: Mapping[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,),
    "is_decoder": (False, True),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False,),
    "use_bidirectional_attention": (False, None),
    "scale_attn_by_inverse_layer_idx": (False,),
    "scale_attn_weights": (True,),
    "clip_qkv": (None,),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "lm_head_bias": (False,),
    "full_attention_mod": (1,),
    "interpolate_factor": (1,),
    "rope_interleaved": (False,),
    "num_nextn_predict_layers": (0, None),
}
"""Keys that would change it, with the values that do not."""

_MISSING = object()


class Config:
    """The keys of one file, and which of them have been read.

    Args:
        data: the file's object.
        where: its name, for errors.
        context: the context that the model shall have, or None for the file's own.
    """

    def __init__(self, data: Mapping[str, Any], where: str, context: int | None = None):
        self.data, self.where, self.context = data, where, context
        self._read: set[str] = set()

    def get(self, key: str, default: Any = _MISSING) -> Any:
        """The value of `key`, as it is (null included), or `default` where there is no such key."""
        self._read.add(key)
        if key in self.data:
            return self.data[key]
        if default is _MISSING:
            raise UserError(f"{self.where} lacks the key {key!r}")
        return default

    def whole(self, key: str, default: Any = _MISSING) -> int:
        """A whole number from 1 up; null means the default."""
        value = self._or_default(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{key} in {self.where} is out of range", expected="a whole number from 1", got=repr(value))
        return value

    def number(self, key: str, default: Any = _MISSING) -> float:
        """A finite number above 0; null means the default."""
        return number(self._or_default(key, default), f"{key} in {self.where}")

    def truth(self, key: str, default: bool) -> bool:
        value = self._or_default(key, default)
        if not isinstance(value, bool):
            raise UserError(f"{key} in {self.where} has the wrong type", expected="true or false", got=repr(value))
        return value

    def choice(self, keys: tuple[str, ...], choices: Mapping[str, Any], default: str) -> Any:
        """What `choices` holds for the value of the first of `keys` that is there."""
        values = [value for key in keys if (value := self.get(key, None)) is not None]
        value = values[0] if values else default
        if value not in choices:
            expected = " | ".join(map(repr, choices))
            raise UserError(f"{keys[0]} in {self.where} is not known", expected=expected, got=repr(value))
        return choices[value]

    def skip(self, *keys: str) -> None:
        """Marks keys as read that change nothing in this family."""
        self._read.update(keys)

    def finish(self) -> None:
        """Refuses what nobody has read.

        Raises:
            UserError: a key that changes the function, or may.
        """
        for key, value in self.data.items():
            if key in self._read or key in HARMLESS:
                continue
            if key not in ONLY:
                fix = "It may change what the model computes, so nothing was loaded"
                raise UserError(f"{self.where} has a key that underhood does not know: {key!r}", fix=fix)
            if value not in ONLY[key]:
                expected = " or ".join(map(repr, ONLY[key]))
                raise UserError(f"{key} in {self.where} is not supported", expected=expected, got=repr(value))

    def _or_default(self, key: str, default: Any) -> Any:
        value = self.get(key, default)
        return default if value is None and default is not _MISSING else value


def number(value: Any, where: str) -> float:
    """`value` as a float, if it is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UserError(f"{where} is out of range", expected="a number above 0", got=repr(value))
    return float(value)


def read_rotary(
    config: Config, head_dim: int, *, kind: str | None = None, theta: float = 10_000.0, usual: int | None = None
) -> tuple[RotarySpec, int]:
    """The rotary positions and the context they are good for.

    transformers 5 writes one object ``rope_parameters``, nested by kind of layer in some families; before, there was
    ``rope_theta`` and perhaps ``rope_scaling``. Both are read.

    Args:
        kind: "full_attention" or "sliding_attention" in families whose layers differ.
        theta: the family's base where the file names none.
        usual: its context where the file names none.

    Raises:
        UserError: a scaling that is not known, or one of its keys.
    """
    given = config.get("rope_scaling", None) or config.get("rope_parameters", None) or {}
    if kind is not None and kind in given:
        given = given[kind] or {}
    if not isinstance(given, Mapping):
        raise UserError(f"the rotary positions in {config.where} have the wrong type", expected="an object")
    rope = Config(given, f"the rotary positions in {config.where}")
    base = rope.number("rope_theta", config.get("rope_theta", None) or theta)
    fraction = rope.number("partial_rotary_factor", config.get("partial_rotary_factor", None) or 1.0)
    context = config.whole("max_position_embeddings", *([] if usual is None else [usual]))
    # Phi-3 keeps this number outside, and that place wins.
    original = config.get("original_max_position_embeddings", None) or rope.get(
        "original_max_position_embeddings", context
    )
    scalings = {
        "default": lambda: None,
        "linear": lambda: LinearScaling(factor=rope.number("factor")),
        "llama3": lambda: Llama3Scaling(
            factor=rope.number("factor"),
            low_turns=rope.number("low_freq_factor"),
            high_turns=rope.number("high_freq_factor"),
            original_context=int(number(original, "original_max_position_embeddings")),
        ),
        "yarn": lambda: _yarn(rope, int(original)),
    }
    name = rope.get("rope_type", rope.get("type", "default"))
    if name in ("longrope", "su"):
        context = config.context or original
        scaling: RotaryScalingSpec | None = _longrope(rope, config, context, int(original), int(head_dim * fraction))
    elif name in scalings:
        scaling = scalings[name]()
    else:
        expected = " | ".join([*scalings, "longrope"])
        raise UserError(f"rope_type in {config.where} is not known", expected=expected, got=repr(name))
    rope.skip("rope_type", "type", "original_max_position_embeddings", "partial_rotary_factor")
    rope.finish()
    return RotarySpec(theta=base, scaling=scaling, fraction=fraction), config.context or context


def _yarn(rope: Config, original: int) -> YarnScaling:
    factor = rope.number("factor")
    mscale, mscale_all_dim = rope.get("mscale", None), rope.get("mscale_all_dim", None)
    amplitude = rope.get("attention_factor", None)
    if amplitude is None and mscale and mscale_all_dim:
        scaled, all_dim = (YarnScaling(factor=factor**scale, original_context=1) for scale in (mscale, mscale_all_dim))
        amplitude = scaled.amplitude / all_dim.amplitude
    return YarnScaling(
        factor=factor,
        original_context=original,
        fast_turns=rope.number("beta_fast", 32.0),
        slow_turns=rope.number("beta_slow", 1.0),
        attention_factor=None if amplitude is None else number(amplitude, "attention_factor"),
        whole_pairs=rope.truth("truncate", True),
    )


def _longrope(rope: Config, config: Config, context: int, original: int, rotated: int) -> LongRopeScaling:
    lists = {key: rope.get(key) for key in ("short_factor", "long_factor")}
    for key, values in lists.items():
        if not isinstance(values, list) or len(values) != rotated // 2:
            raise UserError(f"{key} in {config.where} has the wrong length", expected=f"{rotated // 2} numbers")
    amplitude, factor = rope.get("attention_factor", None), rope.get("factor", None)
    if amplitude is None:
        factor = factor or config.whole("max_position_embeddings") / original
        amplitude = 1.0 if factor <= 1 else sqrt(1 + log(factor) / log(original))
    divisors = lists["long_factor" if context > original else "short_factor"]
    return LongRopeScaling(divisors=tuple(map(float, divisors)), attention_factor=number(amplitude, "attention_factor"))
