"""``underhood inspect --view probes``: what linear probes read from each layer, beside what they would read anyway."""

from __future__ import annotations

import sys

from rich.console import Console

from underhood.cli.inspect_options import View, ViewOptions, chosen_layer
from underhood.cli.inspect_texts import corpus_texts
from underhood.cli.progress import steps_line
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import token_windows
from underhood.inspect.default_training import PROBE_CHARACTERS, probed_layers
from underhood.inspect.probe_tasks import ProbeTask, probe_task
from underhood.inspect.probes import ProbeResult, probe_layers
from underhood.inspect.trace import Trace, trace
from underhood.ui.terminal import console, table


def probes_view(loaded: LoadedModel, args: ViewOptions) -> View:
    """Accuracy by layer with the control task and the untrained model, and the best probe's answers to the prompt."""
    windows = token_windows(loaded, corpus_texts(args, PROBE_CHARACTERS))
    task = probe_task(args.task, loaded, windows)
    labels = task.labels(windows)
    layers = probed_layers(loaded) if args.layer is None else (chosen_layer(loaded, args, end=True),)
    sites = [f"residual.{layer}" for layer in layers]
    with steps_line(console(sys.stderr), "Training the probes") as tell:
        results = probe_layers(loaded, windows, labels, sites=sites, progress=tell)
    best = max(results, key=lambda result: result.selectivity)
    recorded = trace(loaded, args.prompt, [best.site])
    answers = _answers(task, best, recorded)
    labelled = sum(label is not None for of_window in labels for label in of_window)

    def show(out: Console) -> None:
        out.print(f"{task.question} {', '.join(task.classes)}.", style="bold")
        out.print(
            f"Linear probes of {labelled:,} tokens, tested on windows that they were not trained on. The commonest "
            f"answer is right for {results[0].majority:.2f}. control: with a label drawn at random for each token of "
            "the vocabulary, which shows what a probe learns by heart; untrained: of a model whose weights are in "
            "random order."
        )
        out.print()
        rows = [[_layer_name(loaded, result.site), *_row(result)] for result in results]
        out.print(table(["layer", "accuracy", "control", "above control", "untrained"], rows))
        if not answers:
            return
        out.print()
        where = "at the end" if (name := _layer_name(loaded, best.site)) == "end" else f"before layer {name}"
        out.print(f"What the probe {where}, the furthest above its control, says of the prompt:")
        out.print()
        told = [[str(at), recorded.pieces[at], answer, f"{share:.2f}", truth] for at, answer, share, truth in answers]
        out.print(table(["", "token", "probe", "share", "true"], told))

    return {
        "task": task.name,
        "question": task.question,
        "classes": task.classes,
        "labelled": labelled,
        "majority": results[0].majority,
        "layers": [
            {"layer": layer, "accuracy": each.accuracy, "control": each.control, "untrained": each.untrained}
            for layer, each in zip(layers, results, strict=True)
        ],
        "pieces": recorded.pieces,
        "best": best.site,
        "answers": [
            {"position": at, "probe": answer, "share": share, "true": truth} for at, answer, share, truth in answers
        ],
    }, show


def _row(result: ProbeResult) -> list[str]:
    untrained = "" if result.untrained is None else f"{result.untrained:.2f}"
    return [f"{result.accuracy:.2f}", f"{result.control:.2f}", f"{result.selectivity:+.2f}", untrained]


def _layer_name(loaded: LoadedModel, site: str) -> str:
    layer = site.partition(".")[2]
    return "end" if layer == str(len(loaded.decoder.blocks)) else layer


def _answers(task: ProbeTask, result: ProbeResult, recorded: Trace) -> list[tuple[int, str, float, str]]:
    """What a probe says of the tokens to which the task applies: position, answer, its share, and the truth."""
    shares_TC = result.probe.scores(recorded[result.site].float()).softmax(dim=-1)
    [labels] = task.labels([recorded.ids])
    answers = []
    for position, label in enumerate(labels):
        if label is not None:
            share, answer = shares_TC[position].max(dim=0)
            answers.append((position, task.classes[int(answer)], float(share), task.classes[label]))
    return answers
