"""``underhood version``: what is installed, for bug reports and for runs that should be repeated."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from dataclasses import dataclass

STANDS_ON = ("torch", "numpy", "scipy", "safetensors", "tiktoken", "tokenizers", "huggingface_hub", "pyarrow", "rich")


@dataclass(frozen=True)
class Args:
    """Prints the versions of Underhood, of Python and of the libraries it uses."""

    json: bool = False
    """Prints one JSON object instead of lines."""


def versions() -> dict[str, str]:
    """Names and versions, read from the installed packages' metadata without importing them."""
    known = {
        "underhood": importlib.metadata.version("underhood"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    return known | {name: importlib.metadata.version(name) for name in STANDS_ON}


def run(args: Args) -> int:
    known = versions()
    print(json.dumps(known) if args.json else "\n".join(f"{name:<16} {value}" for name, value in known.items()))
    return 0
