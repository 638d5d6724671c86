"""Location of a model: a path on this machine, a name (``smollm2``), or ``hf:OWNER/NAME`` on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from underhood.core.errors import UserError
from underhood.infer.model_table import GGUF_SUFFIX, locate_named

WANTED = (
    *("*.safetensors", "*.json", "tokenizer.model", "spiece.model"),
    *("*.txt", "*.jinja", "README.md", "LICENSE", "LICENSE.md"),
)
"""What is downloaded: weights that cannot run code, plain text, and the licence. Never Python files, never pickles."""

UNWANTED = ("*/*", "consolidated*")
"""Subfolders and Mistral's own layout repeat the weights."""

_NAME = re.compile(r"hf:(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")


def is_on_hub(source: str | Path) -> bool:
    return str(source).startswith("hf:")


def fetch(source: str | Path) -> Path:
    """The folder or file of a model: a path as it is, what a name means, or what the Hub has under that name.

    A file or folder of that name in the working folder goes before a name of the table. What comes from the Hub is
    downloaded once and kept.

    Args:
        source: a path, a name of the model table (see `model_table`), ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION``.

    Raises:
        UserError: a malformed name, a named model that is not on this machine, no such repository, no access, no
            network.
    """
    if not is_on_hub(source):
        path = Path(source).expanduser()
        if path.exists() or (named := locate_named(Path(source).as_posix())) is None:
            return path
        if not is_on_hub(named):
            return Path(named)
        source = named
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


def model_title(source: str | Path, location: Path) -> str:
    """A short name for a model: that of its folder or file, or its name in the table or on the Hub.

    Args:
        source: what was asked for.
        location: where `fetch` has it.
    """
    if is_on_hub(source):
        return str(source).removeprefix("hf:").partition("@")[0].rpartition("/")[2]
    if Path(source).expanduser().exists():
        return location.resolve().name.removesuffix(GGUF_SUFFIX)
    return Path(source).name


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
