"""Any bytes come back from any model, byte for byte; what does not fit together is said in one line."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_run import TEXT, make_run, tiny_model, tiny_tokenizer

import underhood
from published import make_published
from underhood.core.errors import UserError
from underhood.data.arithmetic import TOTAL_LIMIT
from underhood.infer import token_streams
from underhood.infer.compress import MODEL, NGRAM, STORED, CompressedHeader, _opening, compress, decompress, unpack
from underhood.infer.load import LoadedModel
from underhood.infer.token_code import Spelling, digest_of, frequencies
from underhood.infer.token_streams import Shape, Streams
from underhood.models.ngram import NGramSpec
from underhood.text.bpe import train_bpe
from underhood.text.characters import CharacterTokenizer

ANY = st.binary(max_size=200) | st.text(max_size=120).map(str.encode) | st.sampled_from(TEXT).map(str.encode)
NASTY = (b"", b"x", b"\x00" * 300, bytes(range(256)), "日本語 🙂".encode()[:-1], b"\xff\xfe ok \xc3", b"\xed\xa0\x80")


@dataclass
class Fake:
    """As much of `LoadedModel` as compressing needs, around any model."""

    model: Any
    tokenizer: Any
    stage: str = "base"
    run: Path = Path("fake")
    stop_ids: list[int] = field(default_factory=list)

    def prompt_ids(self, text: str) -> list[int]:
        assert text == ""
        return []


def decoder(context: int = 96) -> LoadedModel:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, 0, context)
    model.unembed.weight.data *= 0.05  # unsure enough to be of use on anything
    return cast(LoadedModel, Fake(model, tokenizer))


def characters() -> LoadedModel:
    """A vocabulary of a few characters and no bytes: everything else has to be escaped."""
    tokenizer = CharacterTokenizer.from_texts(TEXT[0], ["<|endoftext|>"])
    model = NGramSpec(vocab_size=tokenizer.vocab_size, order=3).build().fit([tokenizer.encode(TEXT[0])])
    return cast(LoadedModel, Fake(model, tokenizer))


MODELS: dict[str, Callable[[], LoadedModel]] = {
    "decoder": decoder,
    "short window": lambda: decoder(context=8),
    "token n-gram": characters,
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(ANY, st.integers(0, 6))
@example(b"", 5)
@example(bytes(range(256)) * 3, 5)
@example(TEXT[0].encode() * 20, 5)
def test_any_bytes_come_back_from_the_ngram(data: bytes, order: int):
    made = compress(data, order=order)
    assert decompress(made) == data
    assert len(made) <= len(data) + 17


@pytest.mark.parametrize("name", MODELS)
def test_any_bytes_come_back_from_a_model(name: str, monkeypatch: pytest.MonkeyPatch):
    """Through the coder itself: `compress` would keep what an untrained model makes larger."""
    monkeypatch.setattr(token_streams, "PART", 20)  # so that a short text has several rows
    loaded = MODELS[name]()
    spelling = Spelling(loaded.tokenizer, loaded.model.vocab_size)

    @settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
    @given(ANY)
    def comes_back(data: bytes) -> None:
        ids = spelling.encode(data)
        assert spelling.decode(ids) == data
        shape = Shape.of(loaded.model, len(ids))
        code = token_streams.write(loaded.model, spelling, 0, ids, shape)
        assert token_streams.read(loaded.model, spelling, 0, code, shape) == ids

    for data in NASTY:
        comes_back = example(data)(comes_back)
    comes_back()


@pytest.mark.parametrize("name", MODELS)
def test_text_is_made_smaller_by_a_model_and_comes_back(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(token_streams, "PART", 20)
    loaded = MODELS[name]()
    data = (TEXT[0] * 6).encode()
    made = compress(data, loaded=loaded, name="it")
    [(written, _)] = unpack(made)
    assert written.method == MODEL
    assert written.shape is not None
    assert written.shape.streams > 2
    assert len(made) < 0.8 * len(data)
    assert decompress(made, load=lambda _: loaded) == data


@pytest.mark.slow
def test_a_megabyte_comes_back_from_the_ngram():
    draw = random.Random(0)
    words = [bytes(draw.choices(b"\x00\xff\x80abc", k=draw.randrange(2, 12))) for _ in range(30)]
    data = b"".join(draw.choices(words, k=200_000))[: 1 << 20]
    assert len(data) == 1 << 20
    made = compress(data, order=0)
    assert len(made) < 0.95 * len(data)
    assert decompress(made) == data


@pytest.mark.slow
def test_a_megabyte_comes_back_from_a_model_in_many_rows_and_windows():
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefgh", k=60)) + " " for _ in range(6)]
    tokenizer = train_bpe([" ".join(words * 3)], vocab_size=720)
    loaded = cast(LoadedModel, Fake(tiny_model(tokenizer, 1, 64), tokenizer))
    loaded.model.unembed.weight.data *= 0.05
    data = "".join(draw.choices(words, k=18_000)).encode()[: (1 << 20) - 40] + draw.randbytes(40)
    made = compress(data, loaded=loaded)
    [(written, _)] = unpack(made)
    assert written.shape is not None
    assert written.shape.streams > 10
    assert written.shape.length > 5 * written.shape.window
    assert decompress(made, load=lambda _: loaded) == data


def test_random_bytes_are_kept_as_they_are():
    data = random.Random(0).randbytes(5000)
    made = compress(data)
    assert unpack(made)[0][0].method == STORED
    assert len(made) - len(data) < 18
    assert decompress(made) == data


def test_code_of_a_model_is_as_long_as_the_model_says():
    """An oracle that goes through the text in one pass, without rows, cache or coder."""
    loaded = decoder()
    spelling = Spelling(loaded.tokenizer, loaded.model.vocab_size)
    ids = spelling.encode(TEXT[0].encode() * 2)[:90]
    shape = Shape.of(loaded.model, len(ids))
    assert shape.streams == 1
    with torch.inference_mode():
        scores = loaded.model(torch.tensor([[0, *ids[:-1]]]))[0].masked_fill(~spelling.usable, -torch.inf)
    nats = -scores.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None]).double().sum().item()
    code = token_streams.write(loaded.model, spelling, 0, ids, shape)
    assert abs(8 * len(code) - nats / np.log(2)) <= 16


def test_streams_go_on_where_their_window_is_full():
    """What a row sees after its window was cut: the opening token and the later half, as a fresh pass has it."""
    loaded = decoder(context=8)
    spelling = Spelling(loaded.tokenizer, loaded.model.vocab_size)
    ids = [40 + index for index in range(30)]
    with torch.inference_mode():
        streams = Streams(loaded.model, spelling, 0, Shape(60, 2, 8, 1))
        for index, id in enumerate(ids):
            streams.push([id, id + 1])
            held = streams._runner.tokens[0]
            assert held[0] == 0
            assert len(held) <= 8
            assert held[1:] == ids[index + 2 - len(held) : index + 1]
            assert index < 3 or len(held) >= 5
            again = loaded.model(torch.tensor([held]))[0, -1]
            torch.testing.assert_close(streams._logits_BV[0], again, rtol=1e-4, atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.sampled_from((1.0, 30.0, 1e4)))
def test_every_usable_token_has_a_frequency_and_no_other(seed: int, scale: float):
    rng = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, 50, generator=rng) * scale
    scores[0, 3], scores[1, 4], scores[2, 5] = torch.nan, torch.inf, -torch.inf
    usable = torch.rand(50, generator=rng) > 0.3
    each = np.diff(frequencies(scores, usable))
    assert each[:, :50][:, usable.numpy()].min(initial=1) >= 1
    assert not each[:, :50][:, ~usable.numpy()].any()
    assert (each[:, 50] == 1).all()
    assert each.sum(axis=1).max() <= TOTAL_LIMIT


def test_frequencies_are_the_models_probabilities():
    scores = torch.randn(4, 200, generator=torch.Generator().manual_seed(0)) * 3
    each = np.diff(frequencies(scores, torch.ones(200, dtype=torch.bool)))[:, :-1]
    p = each / each.sum(axis=1, keepdims=True)
    expected = scores.double().softmax(-1).numpy()
    cost = (expected * (np.log2(expected) - np.log2(p))).sum(axis=1)
    assert cost.max() < 1e-4


def test_without_the_same_probabilities_nothing_comes_back():
    """The ablation: one weight moved by a hundredth, and the text is another one."""
    loaded = decoder()
    spelling = Spelling(loaded.tokenizer, loaded.model.vocab_size)
    ids = spelling.encode(TEXT[0].encode() * 3)
    shape = Shape.of(loaded.model, len(ids))
    code = token_streams.write(loaded.model, spelling, 0, ids, shape)
    assert token_streams.read(loaded.model, spelling, 0, code, shape) == ids
    loaded.model.norm.weight.data[0] *= 1.01
    try:
        actual = token_streams.read(loaded.model, spelling, 0, code, shape)
    except ValueError:
        actual = None
    assert actual != ids


def test_other_model_or_other_arithmetic_is_refused_in_one_line():
    loaded = decoder()
    made = compress((TEXT[0] * 3).encode(), loaded=loaded, name="one (base)")
    [(written, code)] = unpack(made)
    with pytest.raises(UserError, match=r"written with the model one \(base\)"):
        decompress(made)
    other = decoder()
    other.model.norm.weight.data[0] += 1e-3
    with pytest.raises(UserError, match="another model"):
        decompress(made, load=lambda _: other)
    elsewhere = replace(written, probe=b"....", torch="9.9", processor="Z80").pack() + code
    with pytest.raises(UserError, match=r"PyTorch 9\.9 on Z80, here is"):
        decompress(elsewhere, load=lambda _: loaded)
    wrong = replace(written, checksum=b"........").pack() + code
    with pytest.raises(UserError, match="checksum"):
        decompress(wrong, load=lambda _: loaded)


def test_digest_tells_models_apart_by_any_weight_and_by_their_vocabulary():
    first, second = decoder(), decoder()
    spelling = Spelling(first.tokenizer, first.model.vocab_size)
    assert digest_of(first.model, spelling, 0) == digest_of(second.model, spelling, 0)
    assert digest_of(first.model, spelling, 0) != digest_of(first.model, spelling, 1)
    spelling.bytes_of[5] += b"?"
    assert digest_of(first.model, spelling, 0) != digest_of(
        second.model, Spelling(first.tokenizer, first.model.vocab_size), 0
    )
    with pytest.raises(UserError, match="no weights"):
        digest_of(cast(Any, SimpleNamespace()), spelling, 0)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_file_is_refused_or_right_after_all(data: st.DataObject):
    content = (TEXT[0] * 2).encode()
    made = bytearray(compress(content))
    assert unpack(bytes(made))[0][0].method == NGRAM
    kind = data.draw(st.sampled_from(("flip", "cut", "fill")))
    at = data.draw(st.integers(0, len(made) - 1))
    if kind == "flip":
        made[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del made[at:]
    else:
        made[at:] = data.draw(st.binary(max_size=40))
    if CompressedHeader(NGRAM, 0, b"").pack()[:5] == made[:5] and len(made) > 12 and made[7] >= 128:
        return  # a length of gigabytes: right to go on reading until the code ends, and slow
    with contextlib.suppress(UserError):
        assert decompress(bytes(made)) == content


def test_joined_files_give_all_contents_in_a_row():
    loaded, opened = decoder(), []
    contents = [(TEXT[0] * 2).encode(), b"", bytes(random.Random(3).randbytes(50)), (TEXT[0] * 3).encode()]
    packed = [compress(data, loaded=loaded if number in (0, 3) else None) for number, data in enumerate(contents)]
    assert [header.method for header, _ in unpack(b"".join(packed))] == [MODEL, STORED, STORED, MODEL]

    def load(header: CompressedHeader) -> LoadedModel:
        opened.append(header.name)
        return loaded

    shares: list[float] = []
    assert decompress(b"".join(packed), load=load, progress=shares.append) == b"".join(contents)
    assert len(opened) == 1
    assert shares == sorted(shares)
    both = compress(contents[0]) + compress(contents[3])
    assert decompress(both) == contents[0] + contents[3]


@pytest.mark.parametrize("rest", [b"\0", b"garbage", b"UHC", b"UHC\2", b"\n", compress(b"abc" * 30)[:-1]], ids=repr)
@pytest.mark.parametrize("content", [(TEXT[0] * 2).encode(), bytes(range(256))], ids=["n-gram", "stored"])
def test_bytes_behind_the_end_are_never_lost(rest: bytes, content: bytes):
    made = compress(content)
    with pytest.raises(UserError, match=r"follow the end of what was packed|cut off|has layout"):
        decompress(made + rest)
    assert decompress(made) == content


def test_run_compresses_with_the_stage_that_was_asked_for(tmp_path: Path):
    run = make_run(tmp_path / "demo", context=24)
    base, dpo = underhood.load(run, "base"), underhood.load(run, "dpo")
    data = b"The list " * 40
    for loaded in (base, dpo):
        loaded.model.unembed.weight.data *= 0.05
    made = compress(data, loaded=base)
    assert unpack(made)[0][0].method == MODEL
    assert decompress(made, load=lambda _: base) == data
    with pytest.raises(UserError, match="another model"):
        decompress(made, load=lambda _: dpo)


def test_vocabulary_that_puts_a_space_in_front_keeps_its_tokens():
    class Spaced:
        vocab_size, special = 4, {}
        words = (b" the", b" cat", b"t", b"he")

        def encode(self, text: str) -> list[int]:
            return [0, 1]

        def decode_bytes(self, ids: list[int]) -> bytes:
            return b"".join(self.words[id] for id in ids)

    spelling = Spelling(cast(Any, Spaced()), 4)
    assert spelling.encode(b"the cat") == [2, 3, 1]
    assert spelling.decode([2, 3, 1]) == b"the cat"
    assert spelling.decode(spelling.encode(b"a cat")) == b"a cat"


@pytest.mark.parametrize("style", ["llama3", "gemma"])
def test_published_model_codes_any_bytes(style: str, tmp_path: Path):
    """Vocabularies of others: bytes as letters, words with a mark in front, special tokens that text may spell."""
    make_published(tmp_path / "model", style)
    loaded = underhood.load(tmp_path / "model")
    spelling, opening = Spelling(loaded.tokenizer, loaded.model.vocab_size), _opening(loaded)
    data = b"".join(NASTY) + "".join([*TEXT, *loaded.tokenizer.special]).encode()
    ids = spelling.encode(data)
    assert spelling.decode(ids) == data
    assert not set(ids) & set(loaded.tokenizer.special.values())
    shape = Shape.of(loaded.model, len(ids))
    code = token_streams.write(loaded.model, spelling, opening, ids, shape)
    assert token_streams.read(loaded.model, spelling, opening, code, shape) == ids
