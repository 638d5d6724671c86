"""Data sets of the Hugging Face Hub, read from their files: no loading scripts, nothing executed.

Most data sets are Parquet, either as uploaded or as the Hub converts them to the branch ``refs/convert/parquet``.
Files are pinned to the commit that was current when the list was read, and the commit is recorded with the corpus.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.data.documents import Document
from underhood.data.files import read_file

CONVERTED = "refs/convert/parquet"


def hub_documents(spec: str, *, split: str, text_field: str | None) -> tuple[Iterator[Document], dict[str, Any]]:
    """The documents of ``hf:OWNER/NAME[:CONFIG]``, downloaded file by file as they are asked for, and facts to record.

    Raises:
        UserError: a malformed name, no such data set, config or split, no access, no network, no files of a known type.
    """
    repo, config, revision, files = _listed(spec, split)

    def documents() -> Iterator[Document]:
        for file in files:
            yield from read_file(_download(repo, revision, file), file, text_field=text_field)

    return documents(), {"repository": repo, "config": config or None, "split": split, "revision": revision}


def hub_files(spec: str, *, split: str) -> Iterator[Path]:
    """The files of one split of ``OWNER/NAME[:CONFIG]``, each downloaded when it is asked for.

    Raises:
        UserError: as for `hub_documents`.
    """
    repo, _, revision, files = _listed(spec, split)
    return (_download(repo, revision, file) for file in files)


def _listed(spec: str, split: str) -> tuple[str, str, str, list[str]]:
    """Repository, config, commit and files that a name and a split mean."""
    repo, _, config = spec.removeprefix("hf:").partition(":")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo):
        raise UserError(f"{spec!r} names no data set", expected="hf:OWNER/NAME or hf:OWNER/NAME:CONFIG")
    return repo, config, *_files(repo, config, split)


def _download(repo: str, revision: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    with _explained(repo):
        return Path(hf_hub_download(repo, file, repo_type="dataset", revision=revision))


def _files(repo: str, config: str, split: str) -> tuple[str, list[str]]:
    """The commit, and the files of one config and split at it."""
    branches = [(revision, *_listing(repo, revision)) for revision in (None, CONVERTED)]
    listed = [(commit, files) for _, commit, files in branches if commit is not None]
    for suffixes in ((".parquet",), (".jsonl",), (".csv", ".tsv"), (".txt", ".md")):
        for commit, every in listed:
            files = [file for file in every if file.endswith(suffixes) and not _is_notes(file)]
            if files:
                return commit, _of_split(repo, _of_config(repo, files, config), split)
    raise UserError(
        f"hf:{repo} has no files of a type that can be read", expected=".parquet, .jsonl, .csv, .tsv, .txt or .md"
    )


def _is_notes(file: str) -> bool:
    return file.rpartition("/")[2].lower() in {"readme.md", "license.txt", "license.md", "requirements.txt"}


def _listing(repo: str, revision: str | None) -> tuple[str | None, list[str]]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    with _explained(repo):
        try:
            info = HfApi().dataset_info(repo, revision=revision)
        except RevisionNotFoundError:
            return None, []
    return info.sha, sorted(sibling.rfilename for sibling in info.siblings or [])


def _of_config(repo: str, files: list[str], config: str) -> list[str]:
    """Configs are folders, as the Hub lays them out; ``data/`` is none."""
    folders = sorted({file.split("/")[0] for file in files if "/" in file} - {"data"})
    if config:
        chosen = [file for file in files if config in file.split("/")[:-1] or re.match(rf"{config}\b", file)]
        if not chosen:
            raise UserError(f"hf:{repo} has no config {config!r}", expected=" | ".join(folders) or "none")
        return chosen
    outside = [file for file in files if file.split("/")[0] not in folders]
    if outside or len(folders) == 1:
        return outside or files
    if "default" in folders:
        return [file for file in files if file.startswith("default/")]
    raise UserError(f"hf:{repo} has several configs", expected=" | ".join(folders), fix=f"Write hf:{repo}:{folders[0]}")


_SPLIT = re.compile(r"(?:^|[/_.-])(train|validation|valid|val|dev|test|eval)(?=[/_.-]|\d|$)", re.IGNORECASE)
_SAME = {"valid": "validation", "val": "validation", "dev": "validation"}


def _of_split(repo: str, files: list[str], split: str) -> list[str]:
    by_split: dict[str, list[str]] = {}
    for file in files:
        splits = _SPLIT.findall(file)
        name = splits[-1].lower() if splits else ""
        if re.search(rf"(?:^|[/_.-]){re.escape(split)}(?=[/_.-]|$)", file):
            name = split
        by_split.setdefault(_SAME.get(name, name), []).append(file)
    wanted = _SAME.get(split, split)
    if wanted in by_split:
        return by_split[wanted]
    if set(by_split) == {""} and split == "train":
        return files  # nobody named a split: all of it is for training
    raise UserError(f"hf:{repo} has no split {split!r}", expected=" | ".join(sorted(filter(None, by_split))) or "train")


class _explained:
    """Turns what the Hub client raises into one line of advice."""

    def __init__(self, repo: str):
        self.repo = repo

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from huggingface_hub import errors

        if error is None or isinstance(error, (UserError, errors.RevisionNotFoundError)):
            return
        if isinstance(error, errors.GatedRepoError):
            fix = "Accept its terms on its page and log in with: hf auth login"
            raise UserError(f"hf:{self.repo} needs permission", fix=fix) from error
        if isinstance(error, errors.RepositoryNotFoundError):
            fix = "Check the name; for a private one log in with: hf auth login"
            raise UserError(f"no data set {self.repo!r} on the Hugging Face Hub", fix=fix) from error
        if isinstance(error, errors.HfHubHTTPError):
            raise UserError(f"the Hugging Face Hub refused hf:{self.repo} ({_line(error)})") from error
        if isinstance(error, (OSError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)) or (
            type(error).__module__.startswith(("httpx", "httpcore", "requests"))
        ):
            fix = "Check the network, or download the files and give their folder"
            raise UserError(f"can't reach the Hugging Face Hub for hf:{self.repo} ({_line(error)})", fix=fix) from error


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
