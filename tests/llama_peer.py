"""llama.cpp (the package xllamacpp) as an oracle: it opens a GGUF file, tokenizes, renders and continues.

It runs in a process of its own, because two OpenMP runtimes in one process do not get on, and because it writes its
log to standard error. Run as a script this file is that process: a JSON question per line, a JSON answer per line.
"""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class LlamaCpp:
    """One process that opens one file after the other; use it as a context manager."""

    def __init__(self) -> None:
        pipe, silent = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, stderr=silent, text=True)

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def open(self, file: Path, *, context_length: int = 256) -> str:
        """Opens a file; returns why it can't be opened, or ""."""
        return self._ask("open", str(file), context_length)

    def tokenize(self, texts: Sequence[str], *, special: bool = False, opening: bool = False) -> list[list[int]]:
        """The ids of texts; `special`: a text that spells a special token is that token; `opening`: adds BOS."""
        return self._ask("tokenize", list(texts), special, opening)

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The conversation as text, by llama.cpp's own Jinja, with the generation prompt."""
        return self._ask("render", list(messages))

    def write(self, prompt: Sequence[int], count: int) -> list[int]:
        """Continues the prompt greedily; the end token is left out."""
        return self._ask("write", list(prompt), count)

    def _ask(self, *question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        while True:
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError("llama.cpp's process has ended")
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))


class _Served:
    def __init__(self, file: str, context_length: int):
        library: Any = importlib.import_module("xllamacpp")
        params = library.CommonParams()
        params.model.path = file
        params.n_ctx, params.n_parallel, params.warmup = context_length, 1, False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        # Left alone, llama.cpp keeps keys and values as f16, which moves log-probabilities by 0.002.
        params.cache_type_k = params.cache_type_v = library.ggml_type.GGML_TYPE_F32
        params.no_extra_bufts = True  # its repacked matrices for AMX crash in narrow models
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            params.port = probe.getsockname()[1]
        self.server = library.Server(params)

    def tokenize(self, texts: list[str], special: bool, opening: bool) -> list[list[int]]:
        flags = {"parse_special": special, "add_special": opening}
        return [self._post("/tokenize", {"content": text} | flags)["tokens"] for text in texts]

    def render(self, messages: list[dict[str, str]]) -> str:
        return self._post("/apply-template", {"messages": messages})["prompt"]

    def write(self, prompt: list[int], count: int) -> list[int]:
        how = {"temperature": 0.0, "cache_prompt": False, "return_tokens": True}
        answer = self._post("/completion", {"prompt": prompt, "n_predict": count} | how)
        return answer["tokens"][: -1 if answer["stop_type"] == "eos" else None]

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self.server.listening_address + path, data, kind)
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.load(response)


def main() -> None:
    served: _Served | None = None
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        if what == "open":
            served = None
            try:
                served, answer = _Served(*arguments), ""
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
        else:
            answer = getattr(served, what)(*arguments)
        print("answer " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
