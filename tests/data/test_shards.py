"""Shards: what is written comes back, damage is named, and a failed write leaves the old shards in force."""

import errno
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.core.errors import UserError
from underhood.data import shards as shards_module
from underhood.data.shards import TokenShards, write_shards

EOT = 500


def write(folder, documents, **options):
    return write_shards(folder, documents, **({"eot_id": EOT, "tokenizer_digest": "tok-1"} | options))


def read(shards):
    return [shards.document(number).tolist() for number in range(len(shards))]


@given(
    st.lists(st.lists(st.integers(0, 70000), max_size=9), min_size=1, max_size=20),
    st.integers(1, 30),
)
def test_documents_come_back_with_their_end(tmp_path_factory, documents, per_shard):
    folder = tmp_path_factory.mktemp("shards")
    counts = [3 * len(ids) for ids in documents]
    shards = write(folder, documents, byte_counts=counts, max_tokens_per_shard=per_shard)
    kept = [ids for ids in documents if ids]
    assert read(shards) == [[*ids, EOT] for ids in kept]
    assert shards.tokens == sum(len(ids) + 1 for ids in kept)
    assert shards.bytes == sum(3 * len(ids) for ids in kept)
    assert shards.lengths_N.tolist() == [len(ids) + 1 for ids in kept]
    if kept:
        whole = np.concatenate([[*ids, EOT] for ids in kept])
        places = np.random.default_rng(0).integers(0, len(whole), (4, 7))
        assert np.array_equal(shards.gather(places), whole[places])


def test_small_vocabularies_take_two_bytes_a_token(tmp_path):
    small = write(tmp_path / "small", [list(range(400))] * 100)
    large = write(tmp_path / "large", [[70000, *range(399)]] * 100)
    sizes = [next(s.folder.glob("*.bin")).stat().st_size for s in (small, large)]
    assert sizes[1] - sizes[0] == 2 * small.tokens
    assert large.document(0)[0] == 70000


def test_empty_input_makes_empty_shards(tmp_path):
    shards = write(tmp_path, [])
    assert (len(shards), shards.tokens, shards.bytes) == (0, 0, 0)


def test_every_flipped_bit_is_noticed_and_the_file_named(tmp_path):
    write(tmp_path, [[1, 2, 3], [4, 5]], byte_counts=[3, 2])
    path = next(tmp_path.glob("*.bin"))
    good = path.read_bytes()
    padding = good[: 16 + int.from_bytes(good[12:16], "little")].rstrip(b" ")
    for index in range(len(good)):
        if len(padding) <= index < 16 + int.from_bytes(good[12:16], "little"):
            continue  # spaces that fill the header
        path.write_bytes(good[:index] + bytes([good[index] ^ 0x10]) + good[index + 1 :])
        with pytest.raises(UserError, match=path.name):
            TokenShards.open(tmp_path)


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_truncated_file_is_named(tmp_path, cut):
    write(tmp_path, [list(range(100))])
    path = next(tmp_path.glob("*.bin"))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UserError, match=path.name):
        TokenShards.open(tmp_path)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no token shards"):
        TokenShards.open(tmp_path)
    write(tmp_path, [[1]])
    path = next(tmp_path.glob("*.bin"))
    path.write_bytes(b"GIF89a" + b"x" * 100)
    with pytest.raises(UserError, match="isn't a token shard"):
        TokenShards.open(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=path.name):
        TokenShards.open(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        TokenShards.open(tmp_path)


def test_shards_of_another_run_do_not_pass(tmp_path):
    """A whole and valid file under the right name, but not the one that the index lists."""
    write(tmp_path / "a", [[1, 2]])
    write(tmp_path / "b", [[1, 3]])
    a, b = (next((tmp_path / name).glob("*.bin")) for name in "ab")
    a.write_bytes(b.read_bytes())
    with pytest.raises(UserError, match="doesn't belong"):
        TokenShards.open(tmp_path / "a")


def test_another_tokenizer_is_refused(tmp_path):
    write(tmp_path, [[1]])
    assert len(TokenShards.open(tmp_path, tokenizer_digest="tok-1")) == 1
    with pytest.raises(UserError, match=r"another tokenizer; expected tok-2, got tok-1"):
        TokenShards.open(tmp_path, tokenizer_digest="tok-2")


@pytest.mark.parametrize(
    ("code", "told"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission denied")],
)
@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_failed_write_says_why_and_leaves_the_old_shards(tmp_path, monkeypatch, code, told, fails_at):
    """The disk refuses the first file, the second, or the index: each time the earlier shards open unchanged."""
    before = read(write(tmp_path, [[1, 2, 3], [4]]))
    files = sorted(path.name for path in tmp_path.iterdir())
    calls = iter(range(100))
    real = os.fsync

    def fsync(number):
        if next(calls) == fails_at:
            raise OSError(code, os.strerror(code))
        real(number)

    monkeypatch.setattr(shards_module.os, "fsync", fsync)
    with pytest.raises(UserError, match=told) as caught:
        write(tmp_path, [[7] * 10, [8] * 10], max_tokens_per_shard=5)
    assert "--out" in str(caught.value)
    assert read(TokenShards.open(tmp_path)) == before
    assert not list(tmp_path.glob("*.partial"))
    monkeypatch.undo()
    write(tmp_path, [[1, 2, 3], [4]])
    assert sorted(path.name for path in tmp_path.iterdir()) == files  # what the failure left is swept up


def test_killed_writer_leaves_the_old_shards(tmp_path, monkeypatch):
    """As SIGKILL would: nothing after this moment runs, not even the clean-up."""
    before = read(write(tmp_path, [[1, 2, 3], [4]]))

    class Killed(BaseException):
        pass

    for moment in range(3):
        calls = iter(range(100))

        def replace(*_, moment=moment, calls=calls, real=os.replace):
            if next(calls) == moment:
                raise Killed
            real(*_)

        with monkeypatch.context() as patch:
            patch.setattr(shards_module.os, "replace", replace)
            with pytest.raises(Killed):
                write(tmp_path, [[7] * 10, [8] * 10], max_tokens_per_shard=5)
        assert read(TokenShards.open(tmp_path)) == before


def test_folder_that_is_a_file_is_explained(tmp_path):
    (tmp_path / "x").write_text("here")
    with pytest.raises(UserError, match="can't write token shards"):
        write(tmp_path / "x", [[1]])


def test_index_lists_what_the_files_hold(tmp_path):
    write(tmp_path, [[1] * 9, [2] * 9, [3]], max_tokens_per_shard=10)
    index = json.loads((tmp_path / "index.json").read_text())
    assert [(shard["tokens"], shard["documents"]) for shard in index["shards"]] == [(10, 1), (10, 1), (2, 1)]
