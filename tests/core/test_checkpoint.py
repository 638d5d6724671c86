"""Checkpoints: whole or absent, and honest about damage."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from limits import file_size_limit
from torch import Tensor, nn

import underhood.core.checkpoint as checkpoint
from underhood.core.checkpoint import load_module, module_tensors, newest, read_checkpoint, write_checkpoint
from underhood.core.errors import UserError

STATE = {"tokens": 12, "spec": {"width": 4}, "name": "größer"}


def tensors(step: int = 0, size: int = 6) -> dict[str, dict[str, Tensor]]:
    weights = torch.arange(size, dtype=torch.float32) + step
    return {"model": {"weight": weights}, "optimizer": {"mean": weights * 2, "count": torch.tensor(step)}}


def write(folder: Path, step: int, **options: Any) -> Path:
    return write_checkpoint(folder, step, tensors(step), STATE, **options)


def test_checkpoint_read_returns_what_was_written(tmp_path: Path):
    path = write(tmp_path / "checkpoints", 7)
    saved = read_checkpoint(path)
    assert (saved.step, saved.state, saved.path) == (7, STATE, path)
    for name, group in tensors(7).items():
        loaded = saved.tensors(name)
        assert loaded.keys() == group.keys()
        for key, tensor in group.items():
            assert loaded[key].dtype == tensor.dtype
            assert torch.equal(loaded[key], tensor)


def test_checkpoint_keep_removes_the_oldest_and_newest_is_by_number(tmp_path: Path):
    assert newest(tmp_path / "nothing") is None
    for step in (5, 90, 100_000_000, 7):
        write(tmp_path, step, keep=3)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000007", "step-00000090", "step-100000000"]
    path = newest(tmp_path)
    assert path is not None
    assert path.name == "step-100000000"


def test_checkpoint_of_the_same_step_is_replaced(tmp_path: Path):
    write(tmp_path, 3)
    path = write_checkpoint(tmp_path, 3, tensors(99), {})
    assert torch.equal(read_checkpoint(path).tensors("model")["weight"], tensors(99)["model"]["weight"])
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_checkpoint_clears_what_killed_writers_left(tmp_path: Path):
    for left in (".making-step-00000002", ".removing-step-00000001"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "model.safetensors").write_bytes(b"half")
    assert newest(tmp_path) is None
    write(tmp_path, 3)
    assert [item.name for item in tmp_path.iterdir()] == ["step-00000003"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_checkpoint_names_the_file_of_any_flipped_bit(tmp_path: Path, name: str):
    path = write(tmp_path, 24)
    whole = (path / name).read_bytes()
    spaces = {index for index, byte in enumerate(whole) if name == "manifest.json" and byte in b" \n"}
    places = range(0, len(whole), max(1, len(whole) // 60))
    for index in places:
        if index in spaces:
            continue  # between the manifest's words, a flip may give other white space, which means the same
        for bit in (0, 5, 7):
            (path / name).write_bytes(whole[:index] + bytes([whole[index] ^ 1 << bit]) + whole[index + 1 :])
            with pytest.raises(UserError, match="is damaged") as caught:
                read_checkpoint(path)
            assert name in str(caught.value)
            assert "fall back on the one before" in str(caught.value)
    (path / name).write_bytes(whole)
    assert read_checkpoint(path).step == 24


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_checkpoint_names_a_truncated_and_a_missing_file(tmp_path: Path, name: str):
    file = write(tmp_path, 1) / name
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        read_checkpoint(file.parent)
    file.unlink()
    with pytest.raises(UserError, match=rf"{name} is missing"):
        read_checkpoint(file.parent)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"step": 1, "sha256": []}', '{"step": 1}', "\x00" * 9])
def test_checkpoint_names_a_broken_manifest(tmp_path: Path, text: str):
    path = write(tmp_path, 1)
    (path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        read_checkpoint(path)


def test_checkpoint_without_manifest_is_none(tmp_path: Path):
    path = write(tmp_path, 1)
    (path / "manifest.json").unlink()
    assert newest(tmp_path) is None
    with pytest.raises(UserError, match="not a complete checkpoint"):
        read_checkpoint(path)
    with pytest.raises(UserError, match="not a complete checkpoint"):
        read_checkpoint(path / "state.json")
    assert newest(write(tmp_path, 1).parent) == path, "and it is in nobody's way"


def intact(folder: Path, step: int = 1) -> None:
    path = newest(folder)
    assert path is not None
    saved = read_checkpoint(path)
    assert saved.step == step
    assert torch.equal(saved.tensors("model")["weight"], tensors(step)["model"]["weight"])


def test_checkpoint_that_the_system_refuses_leaves_the_earlier_one(tmp_path: Path):
    write(tmp_path, 1)
    message = r"can't write .*step-00000002: the file would be too large.*Earlier .* intact"
    with file_size_limit(10_000), pytest.raises(UserError, match=message):
        write_checkpoint(tmp_path, 2, tensors(2, size=100_000), STATE)
    assert [item.name for item in tmp_path.iterdir()] == ["step-00000001"]
    intact(tmp_path)


def test_checkpoint_on_a_full_disk_leaves_the_earlier_one(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        write(disk / "checkpoints", 1)
        more = {"more": {"tensor": torch.zeros(50_000)}}
        for size in (10_000, 40_000, 200_000):  # full in the optimizer's file, in the model's, at once
            with pytest.raises(UserError, match=r"can't write .*: the disk is full.*free some space"):
                write_checkpoint(disk / "checkpoints", 2, tensors(2, size=size) | more, {})
            assert [item.name for item in (disk / "checkpoints").iterdir()] == ["step-00000001"]
            intact(disk / "checkpoints")
        write(disk / "checkpoints", 2)
        intact(disk / "checkpoints", 2)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["mkdir", "fsync", "rename", "open"])
def test_checkpoint_survives_a_storage_error_at_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
):
    write(tmp_path, 1)
    calls, refuse_at = 0, 0
    original = getattr(os, call)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == refuse_at:
            raise OSError(code, os.strerror(code))
        return original(*args, **kwargs)

    monkeypatch.setattr(os, call, refuse)
    refused = []
    for number in range(1, 10):  # one call more than there are
        calls, refuse_at = 0, number
        try:
            write(tmp_path, 2, keep=9)
        except UserError as error:
            refused.append(str(error))
        # Once the new folder has its name, only the sync of the folder around it can still fail.
        renamed = (tmp_path / "step-00000002").exists()
        intact(tmp_path, 2 if renamed else 1)
        assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []
        shutil.rmtree(tmp_path / "step-00000002", ignore_errors=True)
    assert refused
    assert all("Earlier checkpoints are intact" in message for message in refused)


def test_checkpoint_folder_that_is_a_file_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't write .*a file is in the place of a folder"):
        write(tmp_path / "file", 1)
    with pytest.raises(UserError, match=r"can't write .*a part of the path is a file"):
        write(tmp_path / "file" / "checkpoints", 1)


def test_checkpoint_tensor_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"can't read .*reward\.safetensors"):
        read_checkpoint(write(tmp_path, 1)).tensors("reward")


def test_checkpoint_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "sha256_of", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(3, 2)
        self.unembed = nn.Linear(2, 3)
        self.unembed.weight = self.embed.weight
        self.register_buffer("table", torch.ones(2))
        self.register_buffer("made_anew", torch.ones(2), persistent=False)


def test_module_tensors_hold_each_shared_tensor_once_and_no_throwaway_buffer():
    assert list(module_tensors(Tied())) == ["table", "embed.weight", "unembed.bias"]


def test_load_module_restores_and_names_what_does_not_fit():
    source, target = Tied(), Tied()
    saved = {name: tensor.clone() for name, tensor in module_tensors(source).items()}
    with torch.no_grad():
        load_module(target, saved, "here")
    assert torch.equal(target.unembed.weight, source.embed.weight)
    assert target.unembed.weight is target.embed.weight
    missing = {name: tensor for name, tensor in saved.items() if name != "table"}
    with pytest.raises(UserError, match=r"here lacks the tensor 'table' \(1 missing\)"):
        load_module(target, missing, "here")
    with pytest.raises(UserError, match="a tensor the model has no place for: 'odd'"):
        load_module(target, saved | {"odd": torch.ones(1)}, "here")
    with pytest.raises(UserError, match=r"'table' has the wrong shape; expected \(2,\), got \(1,\)"):
        load_module(target, saved | {"table": torch.ones(1)}, "here")


def test_checkpoint_state_is_readable_json(tmp_path: Path):
    path = write(tmp_path, 1)
    assert json.loads((path / "state.json").read_text(encoding="utf-8")) == STATE
