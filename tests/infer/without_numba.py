"""Generates in every way in a process in which Numba and LLVM cannot be imported; prints what it wrote, as JSON."""

from __future__ import annotations

import json
import sys
import warnings
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any


class Absent(MetaPathFinder):
    """Has Python find no Numba."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname.split(".")[0] in ("numba", "llvmlite"):
            raise ImportError(f"No module named {fullname!r}")


def written(run: Path) -> dict[str, Any]:
    """Tokens of a stream, an engine and a chat, with weights of 32, 8 and 4 bits."""
    from underhood.infer.engine import Engine
    from underhood.infer.engine_spec import EngineSpec
    from underhood.infer.load import load
    from underhood.infer.optimize import optimize_for_inference
    from underhood.infer.request import Request
    from underhood.infer.session import Session

    loaded = load(run)
    results: dict[str, Any] = {}
    for quantize in (None, "int8", "int4"):
        model = optimize_for_inference(load(run).model, quantize)  # type: ignore[arg-type]
        stream = [token.id for token in Session(model).stream([5, 6, 7], max_new_tokens=8)]
        engine = Engine(model, loaded.tokenizer, EngineSpec())
        handles = [engine.submit(Request(prompt=[5, 6, 7, *range(n)], max_new_tokens=8)) for n in range(3)]
        while engine.step():
            pass
        assert all(handle.usage.completion_tokens for handle in handles)
        results[str(quantize)] = stream
    return results


if __name__ == "__main__":
    run = Path(sys.argv[1])
    sys.meta_path.insert(0, Absent())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = written(run)
    told = [str(warning.message) for warning in caught if "Numba" in str(warning.message)]
    print(json.dumps({"written": results, "told": told, "loaded": "numba" in sys.modules}))
    from underhood.cli.main import main
    from underhood.infer import opening

    opening.LARGE = 0
    assert main(["generate", str(run), "A list", "--max-tokens", "5"]) == 0
    assert main(["chat", str(run), "--max-tokens", "5"]) == 0
