"""``underhood export``: one model of a run, written for other people's programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from underhood.core.errors import UserError, nearest
from underhood.core.runlog import RunLog
from underhood.infer.load import LoadedModel, load
from underhood.models.hub_weights import Progress
from underhood.recipes.export.card import Card, read_summary
from underhood.recipes.export.huggingface import (
    SHARD_BYTES,
    FloatType,
    config_for,
    origin_of,
    special_ids,
    write_folder,
)
from underhood.recipes.export.place import making
from underhood.recipes.export.tuning import read_tuning
from underhood.recipes.published_run import model_stem

Format = Literal["hf", "gguf"]

_LONG = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_SHORT = {long: short for short, long in _LONG.items()}
DEFAULT_DTYPE: dict[Format, str] = {"hf": "float32", "gguf": "f16"}


@dataclass(frozen=True)
class Exported:
    """What an export made: the folder (hf) or file (gguf), its card, and how the weights are stored."""

    path: Path
    card: Path
    dtype: str


def export(
    run: str | Path | LoadedModel,
    format: Format = "hf",
    *,
    dtype: str | None = None,
    stage: str | None = None,
    out: Path | None = None,
    replace: bool = False,
    shard_bytes: int = SHARD_BYTES,
    log: RunLog | None = None,
) -> Exported:
    """Writes a model in Hugging Face's or llama.cpp's form; nothing half-written is left if that fails.

    Args:
        run: a run's folder, a checkpoint in it, or a loaded model.
        dtype: float32, float16 or bfloat16; for gguf also q8_0. None means float32 (hf) and float16 (gguf).
        stage: which of the run's models; None takes the last one that there is.
        out: the folder (hf) or file (gguf) to make; None means ``RUN/export/STAGE-hf`` or ``…/STAGE-DTYPE.gguf``;
            of a GGUF file or a named model ``export/NAME-hf`` or ``export/NAME-DTYPE.gguf``.
        replace: whether an earlier export at that place may be replaced.
        shard_bytes: weights larger than this are cut into several files (hf).
        log: whose listeners are told how far reading and writing are.

    Raises:
        UserError: no such run or stage, a model without such a form, an unknown dtype, a place that can't be written.
    """
    from underhood.models.gguf_file import gguf_architecture
    from underhood.models.gguf_reader import is_gguf

    stored = resolve_dtype(format, dtype)
    log = log or RunLog(None)
    reading, writing = (log.counter("export", f"{doing} the model") for doing in ("reading", "writing"))
    loaded = run if isinstance(run, LoadedModel) else load(run, stage, progress=reading)
    tuning = read_tuning(loaded.run)
    summary = read_summary(tuning.origin if tuning else loaded.run)
    # Beside a run; not into a package, a cache, or beside a file that others may have put there.
    elsewhere = is_gguf(loaded.run) or (not isinstance(run, LoadedModel) and not Path(run).expanduser().exists())
    named = loaded.run if isinstance(run, LoadedModel) else run
    stem = model_stem(named) if elsewhere else loaded.stage
    folder_of_exports = Path("export") if elsewhere else loaded.run / "export"
    name = f"{model_stem(named)}-{loaded.stage}"
    family = config_for(loaded)["model_type"] if format == "hf" else gguf_architecture(loaded.decoder)[0]
    published = origin_of(loaded) is not None
    about = {"title": name, "loaded": loaded, "summary": summary, "dtype": stored}
    about |= {"family": family, "published": published, "tuning": tuning}
    if format == "hf":
        target = out or folder_of_exports / f"{stem}-hf"
        card = Card(form="hf", **about).text()
        with making(target, folder=True, replace=replace) as folder:
            write_folder(folder, loaded, cast(FloatType, stored), shard_bytes=shard_bytes, progress=writing)
            (folder / "README.md").write_text(card, encoding="utf-8")
        return Exported(target, target / "README.md", stored)
    target = out or folder_of_exports / f"{stem}-{stored}.gguf"
    beside = target.with_name(f"{target.name}.md")
    card = Card(form="gguf", **about).text()
    with (
        making(beside, folder=False, replace=replace) as card_file,
        making(target, folder=False, replace=replace) as file,
    ):
        card_file.write_text(card, encoding="utf-8")
        _write_gguf(file, loaded, name, stored, writing)
    return Exported(target, beside, stored)


def resolve_dtype(format: Format, dtype: str | None) -> str:
    """The name that the format itself has for a way to store weights.

    Raises:
        UserError: the format has no such type.
    """
    from underhood.models.gguf_file import GGUFType

    valid = get_args(FloatType) if format == "hf" else get_args(GGUFType)
    resolved = DEFAULT_DTYPE[format] if dtype is None else dtype
    resolved = (_LONG if format == "hf" else _SHORT).get(resolved, resolved)
    if resolved not in valid:
        near = nearest(resolved, valid)
        fix = f"Did you mean {near}?" if near else ("Use --format gguf for q8_0" if resolved == "q8_0" else None)
        raise UserError(f"--format {format} has no dtype {dtype!r}", expected=" or ".join(valid), fix=fix)
    return resolved


def _write_gguf(file: Path, loaded: LoadedModel, name: str, stored: str, progress: Progress) -> None:
    from underhood.models.gguf_file import GGUFType, Naming, write_gguf
    from underhood.text.gguf_keys import gguf_keys

    vocabulary = gguf_keys(loaded.tokenizer, loaded.spec.vocab_size)
    ids, template = special_ids(loaded), loaded.template
    naming = Naming(
        name=name,
        description=f"Made with Underhood; the {loaded.stage} model of a run.",
        chat_template=None if template is None else template.jinja,
        bos_id=ids["bos_token_id"],
        eos_id=ids["eos_token_id"],
        pad_id=ids["pad_token_id"],
        turn_id=None if template is None else next(iter(template.stop_ids(loaded.tokenizer)), None),
        # Our own texts are given as they are: what a prompt opens with is the caller's business.
        opens=loaded.roles is not None and bool(loaded.roles.prefix_ids),
    )
    write_gguf(file, loaded.decoder, vocabulary, naming, cast(GGUFType, stored), progress)
