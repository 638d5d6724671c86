"""The command ``underhood``: finds the verb, reads its options, and turns mistakes into one line.

Nothing heavy is imported here, so that ``underhood --help`` answers at once; a verb's module is loaded when it is
called. Such a module defines ``Args`` (see `underhood.cli.options`) and ``run(args) -> int``, the exit code.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from underhood.core.errors import UserError, nearest
from underhood.core.text_files import protect_streams
from underhood.core.threads import limit_spinning
from underhood.recipes.stages.registry import all_stages, find_stage

VERBS: dict[str, dict[str, str]] = {
    "Make": {
        "build": "Turns text into a model that answers, stage by stage.",
    },
    "One stage of it": {
        "tokenizer": "Reads text and learns a tokenizer from it.",
        # `verbs` adds the training stages here.
        "eval": "Measures what each model can do.",
    },
    "Other work": {
        "finetune": "Fine-tunes any model on a file of conversations.",
        "distill": "Teaches a model from another one's probabilities or answers.",
        "best-of": "Samples answers and keeps the best, to fine-tune on.",
        "classify": "Teaches a model to label texts, and labels texts with it.",
        "translate": "Trains an encoder–decoder on pairs, and translates with it.",
        "compress": "Makes a file small with a language model, losing nothing.",
        "decompress": "Makes such a file whole again.",
    },
    "Bring one in": {
        "models": "Lists the models of this machine, and fetches a real one.",
        "import": "Turns a published model into a run.",
    },
    "Take one out": {
        "export": "Writes a model for transformers, vLLM or llama.cpp.",
    },
    "Search": {
        "index": "Makes an index of documents, to search and to ask.",
        "search": "Finds the passages that answer a question.",
        "embed": "Learns word vectors (word2vec) from your own text.",
    },
    "Talk": {
        "chat": "Talks with the model of a run.",
        "generate": "Continues a prompt; fit for pipes.",
        "serve": "Serves models through OpenAI's API, and as a web page.",
    },
    "The path": {
        "path": "The history of language models, as a map of claims.",
        "reproduce": "Measures a milestone's claims on this machine.",
        "play": "Shannon's guessing game: you against the models.",
    },
    "Look around": {
        "inspect": "Shows what a model computes on its way to the next token.",
        "report": "Writes a run's report again.",
        "version": "Versions of Underhood and of the libraries it uses.",
    },
}
"""Verbs by group, in the order of the help page, each with its purpose (at most 64 characters)."""

MODULES = {"import": "import_model", "best-of": "best_of"}
"""Verbs whose module can't be called like them."""


def verbs() -> dict[str, dict[str, str]]:
    """`VERBS` with the training stages, each between the tokenizer and the evaluation."""
    groups = {group: dict(purposes) for group, purposes in VERBS.items()}
    stages = groups["One stage of it"]
    evaluation = stages.pop("eval")
    stages |= {stage.name: stage.command for stage in all_stages()} | {"eval": evaluation}
    return groups


WITH_DATA = {"dpo": "preferences", "grpo": "grpo", "ppo": "ppo", "reward": "reward"}
"""Stages that also do something with a file, and the module of that."""

OF_A_FILE = ("--data", "--score")
"""Options that name such a file."""

TRAINING = {"build", "finetune", "distill", "classify", "translate", "reproduce"}
"""Verbs that train, beside the stages."""

EXIT_MISTAKE, EXIT_INTERRUPTED, EXIT_PIPE = 2, 130, 141

MACHINE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
"""A full disk or a forbidden place is the machine's answer to the user, not a bug of ours."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 2 the user's mistake, 130 interrupted."""
    protect_streams()
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (head, less) has left. Python flushes stdout once more at exit, so it must lead nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE


def _dispatch(words: list[str]) -> int:
    """Runs the command that `words` begin with, or prints the overview."""
    known = {name for group in verbs().values() for name in group}
    if not words or words[0] in ("-h", "--help", "help"):
        if words[1:2] and words[1] in known:
            words = [words[1], "--help"]
        else:
            print(overview())
            return 0
    if words[0] == "--version":
        words[0] = "version"
    if words[0] not in known:
        near = nearest(words[0], known)
        kind = "option" if words[0].startswith("-") else "command"
        hint = f"did you mean {near}?" if near else "underhood --help lists what there is"
        return _complain(f"underhood: unknown {kind} {words[0]}; {hint}")
    return _run(words[0], words[1:])


def overview() -> str:
    """What ``underhood --help`` prints: every verb with its purpose, by group."""
    lines = ["usage: underhood COMMAND [options]", "", "Builds small language models, talks to them and looks inside."]
    for group, purposes in verbs().items():
        lines += ["", group, *(f"  {name:<12}  {purpose}" for name, purpose in purposes.items())]
    return "\n".join([*lines, "", "underhood COMMAND --help explains one command."])


def _run(verb: str, words: list[str]) -> int:
    from underhood.cli.options import HelpRequested, UsageError, parse

    stage = find_stage(verb)
    try:
        limit_spinning(training=stage is not None or verb in TRAINING)
        module_name = MODULES.get(verb, verb)
        if verb in WITH_DATA and any(word.split("=")[0] in OF_A_FILE for word in words):
            module_name, stage = WITH_DATA[verb], None
        if stage is not None:
            from underhood.cli.train_stage import args_of, run_stage_command

            args = parse(args_of(stage), words, prog=f"underhood {verb}")
            return _call(lambda args: run_stage_command(stage, args), args)
        module = importlib.import_module(f"underhood.cli.{module_name}")
        return _call(module.run, parse(module.Args, words, prog=f"underhood {verb}"))
    except HelpRequested as page:
        print(page)
        return 0
    except UsageError as error:
        other = f"; with {stage.any_model} it trains any model" if stage is not None and stage.any_model else ""
        return _complain(f"{error}{other}")
    except UserError as error:
        return _complain(f"error: {error}")
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in MACHINE_ERRNOS:
            file = f"{error.filename}: " if error.filename else ""
            return _complain(f"error: {file}{os.strerror(error.errno)}.")
        _ask_to_report(verb)
        raise
    except Exception:
        _ask_to_report(verb)
        raise


def _call(run: Callable[[Any], int], args: Any) -> int:
    """Runs a command under the settings that hold for all models it opens."""
    keys = getattr(args, "ignore_config_keys", ())
    if not keys:
        return run(args)
    from underhood.models.config_keys import ignoring_config_keys

    with ignoring_config_keys(keys):
        return run(args)


def _complain(line: str) -> int:
    print(line, file=sys.stderr)
    return EXIT_MISTAKE


def _ask_to_report(verb: str) -> None:
    print(f"underhood {verb} failed through a bug of ours; please report what follows.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
