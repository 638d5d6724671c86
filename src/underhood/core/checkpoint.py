"""Crash-safe checkpoints: complete and verified, or not read at all.

A checkpoint is a folder ``step-00000123`` of safetensors files, one ``state.json``, and a ``manifest.json`` with the
SHA-256 of every other file and of itself, written last. It is made under a temporary name, flushed to disk and renamed
in one move, so a folder with the right name is complete; older ones are removed only after the new one is in place, and
lose their name first.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.files import fsync_folder, sha256_of, storage_errors
from underhood.core.tensorfile import shapes_in, stream

MANIFEST = "manifest.json"
STEP_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk: its step and state in memory, its tensors on demand."""

    path: Path
    step: int
    state: dict[str, Any]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """All tensors of ``name.safetensors``, on the CPU."""
        file = self.path / f"{name}.safetensors"
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise UserError(f"can't read {file}: {error}", fix="Use an earlier checkpoint or make it again") from error

    def fill(self, module: nn.Module, name: str) -> None:
        """Copies the tensors of ``name.safetensors`` into a module of exactly that shape, a few at a time.

        Raises:
            UserError: as `load_module`, or the file can't be read.
        """
        file = self.path / f"{name}.safetensors"
        own, shapes = module_tensors(module), shapes_in(file)
        same_shapes({key: tuple(tensor.shape) for key, tensor in own.items()}, shapes, self.path)
        with torch.no_grad():
            for key, tensor in stream(dict.fromkeys(shapes, file), shapes):
                own[key].copy_(tensor)


def write_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    keep: int = 2,
) -> Path:
    """Writes ``folder/step-…`` and then removes all but the newest `keep` checkpoints.

    Args:
        tensors: file stem to its tensors, e.g. ``{"model": …, "optimizer": …}``.
        state: anything JSON can carry.

    Raises:
        UserError: the disk is full or the folder can't be written; earlier checkpoints are untouched.
    """
    with checkpoint_folder(folder, step, state, keep=keep) as making:
        for stem, group in tensors.items():
            saved = {name: tensor.detach().cpu().contiguous() for name, tensor in group.items()}
            save_file(saved, making / f"{stem}.safetensors")
    return folder / f"step-{step:08d}"


@contextmanager
def checkpoint_folder(folder: Path, step: int, state: Mapping[str, Any], *, keep: int = 2) -> Iterator[Path]:
    """A folder to write a checkpoint's tensor files into; when the ``with`` block ends it becomes ``folder/step-…``.

    Raises:
        UserError: as `write_checkpoint`.
    """
    final = folder / f"step-{step:08d}"
    making = folder / f".making-{final.name}"
    with storage_errors(final, "Earlier checkpoints are intact; free some space or choose another --out, then resume"):
        folder.mkdir(parents=True, exist_ok=True)
        for stale in (*folder.glob(".making-*"), *folder.glob(".removing-*")):
            shutil.rmtree(stale)
        making.mkdir()
        try:
            yield making
            _seal(making, step, state)
            if final.exists():  # e.g. one that lost its manifest
                _remove(final)
            os.rename(making, final)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        fsync_folder(folder)
    for old in complete_checkpoints(folder)[:-keep]:
        with suppress(OSError):  # the new one is complete; a leftover old one does no harm
            _remove(old)


def newest(folder: Path) -> Path | None:
    """The complete checkpoint with the highest step, or None."""
    complete = complete_checkpoints(folder)
    return complete[-1] if complete else None


def read_checkpoint(path: Path) -> Checkpoint:
    """Opens a checkpoint after comparing every file with the manifest.

    Raises:
        UserError: it is missing or incomplete, or a file's content has changed; the file is named.
    """
    mend = "Delete this checkpoint to fall back on the one before it"
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        expected: dict[str, str] = manifest["sha256"]
        if manifest["own_sha256"] != _own_digest(manifest["step"], expected):
            raise ValueError("the manifest does not match its own checksum")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path} is not a complete checkpoint", expected=f"a {MANIFEST} in it") from error
    except OSError as error:
        raise UserError(f"can't read {path / MANIFEST}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path / MANIFEST} is damaged", fix=mend) from error
    for name, digest in expected.items():
        file = path / name
        if not file.exists():
            raise UserError(f"{file} is missing from its checkpoint", fix=mend)
        if sha256_of(file) != digest:
            raise UserError(f"{file} is damaged: its content does not match the checksum in {MANIFEST}", fix=mend)
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return Checkpoint(path=path, step=manifest["step"], state=state)


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters and persistent buffers by name, each shared tensor once (under its first name)."""
    kept = module.state_dict(keep_vars=True)
    seen: set[int] = set()
    result = {}
    for name, tensor in kept.items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            result[name] = tensor.detach().contiguous()
    return result


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], where: Path | str) -> None:
    """Copies tensors into a module of exactly that shape.

    Raises:
        UserError: a tensor is missing, superfluous or of another shape; the first such is named.
    """
    own = module_tensors(module)
    needed, given = ({name: tuple(tensor.shape) for name, tensor in some.items()} for some in (own, tensors))
    same_shapes(needed, given, where)
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


Shapes = Mapping[str, tuple[int, ...]]


def same_shapes(needed: Shapes, given: Shapes, where: Path | str) -> None:
    if missing := [name for name in needed if name not in given]:
        raise UserError(f"{where} lacks the tensor {missing[0]!r} ({len(missing)} missing)")
    if extra := [name for name in given if name not in needed]:
        raise UserError(f"{where} holds a tensor the model has no place for: {extra[0]!r} ({len(extra)} in all)")
    for name, shape in needed.items():
        if shape != given[name]:
            raise UserError(f"{where}: tensor {name!r} has the wrong shape", expected=str(shape), got=str(given[name]))


def _seal(making: Path, step: int, state: Mapping[str, Any]) -> None:
    """Writes the state and, last, the manifest with every file's checksum."""
    _write(making / "state.json", json.dumps(dict(state), indent=1))
    digests = {file.name: sha256_of(file) for file in sorted(making.iterdir())}
    for name in digests:
        with (making / name).open("rb+") as file:
            os.fsync(file.fileno())
    manifest = {"step": step, "sha256": digests, "own_sha256": _own_digest(step, digests)}
    _write(making / MANIFEST, json.dumps(manifest, indent=1))
    fsync_folder(making)


def _own_digest(step: int, digests: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([step, digests], sort_keys=True).encode()).hexdigest()


def _remove(checkpoint: Path) -> None:
    """Takes the name away before the content, so that a kill halfway leaves nothing that looks complete."""
    removing = checkpoint.with_name(f".removing-{checkpoint.name}")
    os.rename(checkpoint, removing)
    shutil.rmtree(removing, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def complete_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, the oldest first."""
    if not folder.is_dir():
        return []
    folders = [(int(match[1]), path) for path in folder.iterdir() if (match := STEP_NAME.fullmatch(path.name))]
    return [path for _, path in sorted(folders) if (path / MANIFEST).exists()]
