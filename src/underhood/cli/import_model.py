"""``underhood import``: a published model becomes a run, so that every other verb works on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional


@dataclass(frozen=True, kw_only=True)
class Args(ModelOptions):
    """Reads a published model, says what it is, checks it, and keeps it as a run.

    Only safetensors and GGUF files are read: pickled weights are refused, and a model's own code is never run. Chat,
    generate and the others also take such a folder or file as it is; a run is needed to train it further. Of a GGUF
    file it says how its tensors are quantised; the run gets their values, dequantised.

    It also lists the keys of config.json that decided nothing, by why they could be passed over: known to be unused,
    empty (null, false), private (they begin with _), or ignored by --ignore-config-keys.
    """

    source: Positional[str]
    """A Hugging Face folder, a GGUF file, or hf:OWNER/NAME to download."""

    out: Path | None = None
    """The run's folder to make; left out, runs/NAME."""

    check: bool = False
    """Only says what it is and checks it; writes nothing."""


def run(args: Args) -> int:
    from underhood.cli.model_loading import open_model
    from underhood.core.errors import UserError
    from underhood.infer.adapter_folder import adapter_base, is_adapter
    from underhood.infer.fetch import fetch
    from underhood.infer.importing import facts_of, import_run, unused_keys_text, verify, weights_text
    from underhood.models.gguf_reader import SUFFIX, is_gguf
    from underhood.models.published import is_published

    name = args.source.removeprefix("hf:").partition("@")[0].rstrip("/").rpartition("/")[2].removesuffix(SUFFIX)
    out = args.out or Path("runs") / (name or "model")
    if out.exists() and not args.check:
        raise UserError(f"{out} is there already", fix="Choose another --out")
    folder = fetch(args.source)
    if is_adapter(folder):
        fix = "chat, generate, serve and eval open it as it is; export --format hf writes it merged"
        raise UserError(f"{folder} is a LoRA adapter for {adapter_base(folder)}, not a model", fix=fix)
    if not is_published(folder):
        raise UserError(f"{folder} is not a Hugging Face folder", expected="a config.json in it, or a GGUF file")
    loaded = open_model(folder, keep_type=True)
    print(facts_of(loaded).text())
    if notes := weights_text(folder) if is_gguf(folder) else unused_keys_text(folder):
        print(notes)
    verify(loaded)
    if not args.check:
        print(f"run        {import_run(loaded, args.source, out)}")
    return 0
