"""Location of a model: a folder on this machine, or ``hf:OWNER/NAME`` on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from underhood.core.errors import UserError

WANTED = ("*.safetensors", "*.json", "tokenizer.model", "spiece.model", "*.txt", "*.jinja")
"""What is downloaded: weights that cannot run code, and plain text. Never Python files, never pickles."""

UNWANTED = ("*/*", "consolidated*")
"""Subfolders and Mistral's own layout repeat the weights."""

_NAME = re.compile(r"hf:(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")


def is_on_hub(source: str | Path) -> bool:
    return str(source).startswith("hf:")


def fetch(source: str | Path) -> Path:
    """The folder of a model: `place` itself, or what the Hub has under that name, downloaded once and kept.

    Args:
        place: a folder, ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION``.

    Raises:
        UserError: a malformed name, no such repository, no access, no network.
    """
    if not is_on_hub(source):
        return Path(source).expanduser()
    match = _NAME.fullmatch(str(source))
    if match is None:
        raise UserError(f"{str(source)!r} names no model", expected="hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                match["repo"], revision=match["revision"], allow_patterns=list(WANTED), ignore_patterns=list(UNWANTED)
            )
        )
    except Exception as error:
        raise _explained(match["repo"], error) from error


def _explained(repo: str, error: Exception) -> Exception:
    """What the Hub's client raises, as one line of advice; a bug stays what it is."""
    from huggingface_hub import errors

    line = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
    if isinstance(error, errors.GatedRepoError):
        fix = "Accept its terms on its page and log in with: hf auth login"
        return UserError(f"hf:{repo} needs permission", fix=fix)
    if isinstance(error, errors.RepositoryNotFoundError):
        fix = "Check the name; for a private one log in with: hf auth login"
        return UserError(f"no model {repo!r} on the Hugging Face Hub", fix=fix)
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"hf:{repo} has no such revision ({line})")
    if isinstance(error, (OSError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)) or (
        type(error).__module__.startswith(("httpx", "httpcore", "requests"))
    ):
        fix = "Check the network, or download the files and give their folder"
        return UserError(f"can't reach the Hugging Face Hub for hf:{repo} ({line})", fix=fix)
    return error
