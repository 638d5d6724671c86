"""Specs: lossless to JSON and TOML and back, and clear about mistakes."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.core.config import from_json, to_json
from underhood.core.errors import UserError
from underhood.core.files import write_text
from underhood.core.toml import read_toml, toml_text
from underhood.models.decoder import DecoderSpec, qwen3_shaped
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import GatedMLPSpec
from underhood.nn.norm import RMSNormSpec
from underhood.nn.rope import RotarySpec
from underhood.train.optim import AdamWSpec
from underhood.train.schedule import ScheduleSpec


class Slot(Protocol):
    def build(self, d_model: int, layer: int) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Everything:
    """Every kind of field that a spec may have."""

    flag: bool
    count: int
    rate: float
    name: str
    shape: Literal["linear", "cosine"]
    either: int | str | None
    pair: tuple[float, float] = (0.5, 0.25)
    rows: tuple[ScheduleSpec, ...] = ()
    maybe: ScheduleSpec | None = None
    filled: ScheduleSpec | None = ScheduleSpec()
    slot: Slot = AttentionSpec(heads=1)
    names: dict[str, int] = field(default_factory=dict)
    holes: tuple[int | None, ...] = ()


finite = st.floats(allow_nan=False)
words = st.text(st.characters(codec="utf-8"))
schedules = st.builds(
    ScheduleSpec,
    warmup=st.floats(0, 0.4),
    decay=st.floats(0, 0.6),
    floor=finite,
    shape=st.sampled_from(["linear", "cosine"]),
)
norms = st.builds(RMSNormSpec, eps=st.floats(1e-9, 1))
attentions = st.builds(
    AttentionSpec,
    heads=st.just(4),
    kv_heads=st.sampled_from([None, 1, 2]),
    rotary=st.none() | st.builds(RotarySpec, theta=st.floats(1, 1e9)),
    qk_norm=st.none() | norms,
    window=st.none() | st.integers(1, 9),
    bias=st.booleans(),
)
feedforwards = st.builds(GatedMLPSpec, d_ff=st.integers(1, 99))
blocks = st.builds(BlockSpec, mixer=attentions, feedforward=feedforwards, norm=norms)
decoders = st.lists(blocks, min_size=1, max_size=3).flatmap(
    lambda chosen: st.builds(
        DecoderSpec,
        vocab_size=st.integers(1, 10**9),
        context_length=st.integers(1, 10**6),
        d_model=st.just(16),
        layers=st.just(len(chosen) * 2),
        blocks=st.just(tuple(chosen)),
        tied=st.booleans(),
    )
)
everything = st.builds(
    Everything,
    flag=st.booleans(),
    count=st.integers(-(2**63), 2**63 - 1),
    rate=finite,
    name=words,
    shape=st.sampled_from(["linear", "cosine"]),
    either=st.none() | st.integers(-9, 9) | words,
    pair=st.tuples(finite, finite),
    rows=st.lists(schedules, max_size=2).map(tuple),
    maybe=st.none() | schedules,
    filled=st.none() | schedules,
    slot=attentions,
    names=st.dictionaries(words, st.integers(-9, 9), max_size=3),
    holes=st.lists(st.none() | st.integers(-9, 9), max_size=3).map(tuple),
)


@given(decoders | everything)
def test_spec_round_trips_through_json_and_toml(spec: Any):
    plain = to_json(spec)
    assert from_json(type(spec), json.loads(json.dumps(plain))) == spec
    assert from_json(type(spec), tomllib.loads(toml_text(plain))) == spec


def test_spec_none_that_is_not_the_default_survives():
    spec = AttentionSpec(heads=2, rotary=None)
    assert spec != AttentionSpec(heads=2), "the default is another value, so a missing key can't mean None"
    assert from_json(AttentionSpec, tomllib.loads(toml_text(to_json(spec)))) == spec
    assert from_json(AttentionSpec, {"heads": 2, "rotary": None}) == spec


def test_spec_json_names_a_class_only_where_the_slot_takes_several():
    plain = to_json(qwen3_shaped(vocab_size=8, context_length=8, d_model=8, layers=1, heads=2))
    assert "type" not in plain["blocks"][0]
    assert plain["blocks"][0]["mixer"]["type"] == "underhood.nn.attention.AttentionSpec"


def test_spec_fields_with_defaults_may_be_left_out():
    assert from_json(AttentionSpec, {"heads": 3}) == AttentionSpec(heads=3)
    with pytest.raises(UserError, match=r"config lacks the key 'heads'; expected int"):
        from_json(AttentionSpec, {})


BASE: dict[str, Any] = {"flag": True, "count": 1, "rate": 1.0, "name": "", "shape": "linear", "either": 1}


@pytest.mark.parametrize(
    ("cls", "change", "message"),
    [
        (AdamWSpec, {"weight_decya": 0.1}, "unknown key 'weight_decya' in recipe.toml. did you mean weight_decay?"),
        (AdamWSpec, {"zzz": 1}, "unknown key 'zzz' in recipe.toml. valid keys: lr, betas, eps, weight_decay, rates."),
        (AdamWSpec, {"lr": "fast"}, "recipe.toml.lr has the wrong type; expected float, got 'fast'"),
        (AdamWSpec, {"lr": True}, "recipe.toml.lr has the wrong type; expected float, got True"),
        (AdamWSpec, {"lr": None}, "recipe.toml.lr has the wrong type; expected float, got None"),
        (AdamWSpec, {"betas": 0.9}, "recipe.toml.betas has the wrong type; expected a list, got 0.9"),
        (AdamWSpec, {"betas": [0.9]}, "recipe.toml.betas has the wrong length; expected 2, got 1"),
        (AdamWSpec, {"betas": [0.9, "x"]}, "recipe.toml.betas[1] has the wrong type; expected float, got 'x'"),
        (Everything, BASE | {"count": 1.5}, "recipe.toml.count has the wrong type; expected int, got 1.5"),
        (Everything, BASE | {"count": True}, "recipe.toml.count has the wrong type; expected int, got True"),
        (Everything, BASE | {"flag": 1}, "recipe.toml.flag has the wrong type; expected bool, got 1"),
        (Everything, BASE | {"name": 1}, "recipe.toml.name has the wrong type; expected str, got 1"),
        (Everything, BASE | {"names": [1]}, "recipe.toml.names has the wrong type; expected a table, got [1]"),
        (Everything, BASE | {"names": {"a": "b"}}, "recipe.toml.names.a has the wrong type; expected int, got 'b'"),
        (Everything, BASE | {"shape": "round"}, "has no such choice; expected 'linear' | 'cosine', got 'round'"),
        (Everything, BASE | {"shape": []}, "has no such choice; expected 'linear' | 'cosine', got []"),
        (Everything, BASE | {"either": []}, "recipe.toml.either has the wrong type; expected int | str"),
        (
            Everything,
            BASE | {"maybe": {"wramup": 0}},
            "unknown key 'wramup' in recipe.toml.maybe. did you",
        ),
        (Everything, BASE | {"maybe": 3}, "recipe.toml.maybe is not a table of keys"),
        (Everything, BASE | {"rows": [{"decay": 2}]}, "recipe.toml.rows[0]: warmup and decay are shares of the run"),
        (Everything, BASE | {"slot": 3}, "recipe.toml.slot has the wrong type; expected Slot, got 3"),
        (Everything, BASE | {"slot": {"heads": 1}}, "recipe.toml.slot lacks the key 'type'"),
        (Everything, BASE | {"slot": {"type": "none"}}, "recipe.toml.slot names a type outside underhood; got 'none'"),
        (Everything, [], "recipe.toml is not a table of keys; expected the fields of Everything, got []"),
    ],
)
def test_config_mistakes_are_named(cls: type, change: Any, message: str):
    with pytest.raises(UserError) as caught:
        from_json(cls, change, where="recipe.toml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        *("os.system", "subprocess.Popen", "underhood", "underhoodx.a.B", "", ".", 3, None),
        *("underhood.core.errors.UserError", "underhood.core.config.importlib", "underhood.nowhere.Spec"),
        "underhood.nn.attention.Attention",
    ],
)
def test_config_builds_only_specs_of_this_package(path: Any):
    with pytest.raises(UserError, match="type"):
        from_json(Everything, BASE | {"slot": {"type": path, "heads": 1}})


def test_config_type_of_another_slot_is_refused():
    """A spec where another kind belongs would fail later and far away."""
    with pytest.raises(UserError, match=r"config\.maybe has the wrong type; expected ScheduleSpec"):
        from_json(Everything, BASE | {"maybe": {"type": "underhood.nn.norm.RMSNormSpec"}})
    with pytest.raises(UserError, match=r"config\.mixer has the wrong type; expected MixerSpec"):
        from_json(
            BlockSpec,
            {"mixer": {"type": "underhood.nn.norm.RMSNormSpec"}, "feedforward": to_json(GatedMLPSpec(d_ff=1))},
        )


def test_to_json_refuses_what_is_no_spec():
    @dataclass
    class Bad:
        value: Any = dataclasses.field(default_factory=object)

    for wrong in (3, Everything, Bad()):
        with pytest.raises(TypeError):
            to_json(wrong)


values = st.recursive(
    st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b


@given(st.dictionaries(words, values, max_size=4))
def test_toml_text_reads_back_the_same_matches_tomllib(table: dict[str, Any]):
    assert same(tomllib.loads(toml_text(table)), table)


def test_toml_text_leaves_none_out_and_refuses_other_objects():
    assert tomllib.loads(toml_text({"a": None, "b": {"c": None}})) == {"b": {}}
    with pytest.raises(TypeError):
        toml_text({"a": object()})


def test_toml_file_round_trips_and_replaces(tmp_path: Path):
    file = tmp_path / "deep" / "run.toml"
    write_text(file, toml_text({"a": 1}))
    write_text(file, toml_text({"a": {"größe": [1.5, "x\ny"]}}))
    assert read_toml(file) == {"a": {"größe": [1.5, "x\ny"]}}
    assert [item.name for item in file.parent.iterdir()] == ["run.toml"]
    with pytest.raises(UserError, match="can't write"):
        write_text(file / "below", toml_text({}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = 1\nb = = 2\n", "is not TOML: .*line 2"),
        (b"a = 1\na = 2\n", "is not TOML: .*line 2"),
        (b"\xff\xfd", "is not UTF-8 text"),
        (None, "there is no file"),
    ],
)
def test_read_toml_names_the_line_of_a_mistake(tmp_path: Path, content: bytes | None, message: str):
    file = tmp_path / "recipe.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_toml(file)
    assert "recipe.toml" in str(caught.value)


def test_read_toml_of_a_folder_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="is a folder"):
        read_toml(tmp_path)
