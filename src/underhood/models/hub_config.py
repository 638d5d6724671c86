"""Reading a Hugging Face ``config.json`` strictly: a key that nobody read, and that could matter, is an error.

Every key of the file is either taken by the family that reads it, passed over with a reason, or refused by name; the
rules are in `config_keys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log, sqrt
from typing import Any

from underhood.core.errors import UserError
from underhood.models.config_keys import ALLOWED_VALUES, UnusedKey, ignored_config_keys, judge
from underhood.nn.rope import RotarySpec
from underhood.nn.rope_scaling import LinearScaling, Llama3Scaling, LongRopeScaling, RotaryScalingSpec, YarnScaling

_MISSING = object()


class Config:
    """The keys of one file, and which of them have been read.

    Args:
        data: the file's object.
        where: its name, for errors.
        context: the context that the model shall have, or None for the file's own.

    Attributes:
        unused: after `finish`, the keys that passed without being read, those of inner objects included.
    """

    def __init__(self, data: Mapping[str, Any], where: str, context: int | None = None):
        self.data, self.where, self.context = data, where, context
        self.unused: list[UnusedKey] = []
        self._read: set[str] = set()
        self._skipped: set[str] = set()
        self._allowed = dict(ALLOWED_VALUES)

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
        """Names keys that change nothing in this family, whatever they say."""
        self._skipped.update(keys)

    def allow(self, *values: Any, keys: str) -> None:
        """Names keys (with blanks between them) that this family does not read, with the values that describe it."""
        self._allowed |= dict.fromkeys(keys.split(), values)

    def finish(self) -> None:
        """Passes over or refuses what nobody has read.

        Raises:
            UserError: keys that change the function, or may; or one that was read and shall be ignored.
        """
        if needed := sorted(self._read & self.data.keys() & ignored_config_keys()):
            raise UserError(f"{self.where}: {needed[0]!r} decides what the model computes, so it can't be ignored")
        unknown = []
        for key, value in self.data.items():
            if key in self._read:
                continue
            verdict = "harmless" if key in self._skipped else judge(key, value, self._allowed)
            if verdict == "unsupported":
                expected = " or ".join(map(repr, self._allowed[key]))
                raise UserError(f"{key} in {self.where} is not supported", expected=expected, got=repr(value))
            if verdict == "unknown":
                unknown.append(key)
            else:
                self.unused.append(UnusedKey(key, value, verdict))
        if unknown:
            number = "a key" if len(unknown) == 1 else "keys"
            raise UserError(
                f"{self.where} has {number} that underhood does not know: {', '.join(map(repr, unknown))}",
                fix="A key may change what the model computes, so nothing was loaded; where you know that it does not, "
                f"pass --ignore-config-keys {' '.join(unknown)}",
            )

    def finish_inner(self, inner: Config, name: str) -> None:
        """`finish` of an object inside this one, under the key `name`."""
        inner.finish()
        self.unused += [UnusedKey(f"{name}.{unused.key}", unused.value, unused.why) for unused in inner.unused]

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
    source_key = "rope_scaling" if config.get("rope_scaling", None) else "rope_parameters"
    given = config.get(source_key, None) or {}
    if source_key == "rope_scaling":
        config.get("rope_parameters", None)  # transformers too takes the older key where both are there
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
    if name == "dynamic":  # NTK scaling that begins where the context ends: within it, nothing is scaled
        rope.number("factor")
        if config.context is not None and config.context > context:
            raise UserError(
                f"{config.where} scales its rotary positions by the length of the text beyond {context:,} tokens, "
                "which is not supported",
                expected=f"a context up to {context:,}",
                got=str(config.context),
            )
        scaling: RotaryScalingSpec | None = None
    elif name in ("longrope", "su"):
        context = config.context or original
        scaling = _longrope(rope, config, context, int(original), int(head_dim * fraction))
    elif name in scalings:
        scaling = scalings[name]()
    else:
        expected = " | ".join([*scalings, "dynamic", "longrope"])
        raise UserError(f"rope_type in {config.where} is not known", expected=expected, got=repr(name))
    rope.skip("rope_type", "type", "original_max_position_embeddings", "partial_rotary_factor")
    config.finish_inner(rope, source_key)
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
