"""Opens whichever of our tokenizers a file holds."""

from __future__ import annotations

import os
from pathlib import Path

from underhood.core.errors import UserError
from underhood.text.bpe import BytePairTokenizer
from underhood.text.characters import CharacterTokenizer
from underhood.text.files import read_json
from underhood.text.tokenizer_json import from_tokenizer_json


def load_tokenizer(path: str | os.PathLike[str]) -> BytePairTokenizer | CharacterTokenizer:
    """The tokenizer saved at `path`, which is its file or a folder (a run, a model) with a ``tokenizer.json``.

    Raises:
        UserError: nothing is there, the file is broken, or it holds a tokenizer of another kind.
    """
    file = Path(path)
    if file.is_dir():
        file /= "tokenizer.json"
    data = read_json(file)
    if isinstance(data, dict) and "format" in data:
        return CharacterTokenizer.from_json(data, str(file))
    if isinstance(data, dict) and "model" in data:
        return BytePairTokenizer(from_tokenizer_json(data, str(file)))
    raise UserError(
        f"{file} holds no tokenizer that underhood knows",
        expected="a Hugging Face tokenizer.json (byte-level BPE) or a character vocabulary",
    )
