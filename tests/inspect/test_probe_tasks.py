"""Tasks for probes whose labels a text gives by itself, and what the layers of a trained model know of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from trained_model import trained, training_texts

from underhood.core.errors import UserError
from underhood.inspect.corpus_values import token_windows
from underhood.inspect.probe_tasks import FREQUENT, LINE_BOUNDS, probe_task
from underhood.inspect.probes import probe_layers

TEXT = "One line here.\nA second line that is far longer than the first one, and goes on.\nThe last."


def test_labels_say_what_the_text_says(tmp_path: Path):
    loaded = trained(tmp_path)
    windows = token_windows(loaded, [TEXT])
    decode = loaded.tokenizer.decode
    previous = probe_task("previous", loaded, windows)
    counts = Counter(id for window in windows for id in window[1:])
    for window, labels in zip(windows, previous.labels(windows), strict=True):
        assert len(labels) == len(window)
        assert labels[0] is None
        for before, label in zip(window[:-1], labels[1:], strict=True):
            if label is not None:
                assert previous.classes[label].strip("·⏎") == decode([before]).strip()
            else:
                assert sum(counts[before] <= count for count in counts.values()) >= FREQUENT
    word = probe_task("word", loaded, windows)
    for window, labels in zip(windows, word.labels(windows), strict=True):
        assert labels[-1] is None
        assert labels[1:-1] == [int(not decode([id])[0].isalnum()) for id in window[2:]]
    line = probe_task("line", loaded, windows)
    for window, labels in zip(windows, line.labels(windows), strict=True):
        for position, label in enumerate(labels[1:], start=1):
            ends = [at for at in range(position) if "\n" in decode([window[at]])]
            since = position - 1 - ends[-1] if ends else None
            assert label == (None if since is None else sum(since >= bound for bound in LINE_BOUNDS))


def test_the_token_before_is_known_once_attention_has_brought_it(tmp_path: Path):
    loaded = trained(tmp_path)
    windows = token_windows(loaded, training_texts()[:60])
    task = probe_task("previous", loaded, windows)
    steps: list[tuple[int, int]] = []
    results = probe_layers(loaded, windows, task.labels(windows), progress=lambda done, of: steps.append((done, of)))
    assert results[-1].accuracy > results[0].accuracy + 0.05
    assert steps == [(done, len(results)) for done in range(1, len(results) + 1)]


def test_an_unknown_task_is_refused_with_those_that_there_are(tmp_path: Path):
    with pytest.raises(UserError, match=r"previous, word, line.*Did you mean word"):
        probe_task("words", trained(tmp_path), [[1, 2]])
