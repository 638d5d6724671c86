"""Reading a model needs little more memory than its weights."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hf_folders import stored_tensors

from underhood.core.tensorfile import AT_ONCE
from underhood.infer.importing import import_run
from underhood.infer.load import load
from underhood.models.decoder import qwen3_shaped
from underhood.models.hub_export import to_huggingface

MEASURE = """
import sys, threading, time
from pathlib import Path
import torch
from underhood.core import tensorfile
from underhood.infer.load import load

def used():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def share_of_weights(folder):
    before, peak, on = used(), [0], [True]
    def watch():
        while on[0]:
            peak[0] = max(peak[0], used())
            time.sleep(0.002)
    thread = threading.Thread(target=watch)
    thread.start()
    model = load(folder).model
    on[0] = False
    thread.join()
    return (max(peak[0], used()) - before) / sum(p.numel() * p.element_size() for p in model.parameters())

folder, small, tensorfile.AT_ONCE = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
load(small)  # what every load needs once
print(share_of_weights(folder))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_reading_needs_little_more_memory_than_the_weights(single: Path, tmp_path: Path) -> None:
    """260 MB, from a published folder and from the run that `import` makes of it.

    All that the process holds counts, mapped pages too. Mapped whole, it would be twice that.
    """
    spec = qwen3_shaped(vocab_size=1024, context_length=64, d_model=1024, layers=5, heads=8, d_ff=2816)
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in stored_tensors(spec.build()).items()}
    write_zeros(tmp_path / "model.safetensors", shapes)
    (tmp_path / "config.json").write_text(json.dumps(to_huggingface(spec)))
    run = import_run(load(tmp_path), "here", tmp_path / "run")

    def share(folder: Path, at_once: int) -> float:
        words = [sys.executable, "-c", MEASURE, str(folder), str(single), str(at_once)]  # alone: freed memory lingers
        return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    assert 0.9 <= share(tmp_path, AT_ONCE) < 1.2
    assert 0.9 <= share(run, AT_ONCE) < 1.2
    assert share(tmp_path, 2**40) > 1.8


def write_zeros(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of zeros, as a hole on the disk: large, and made at once."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(torch.Size(shape).numel())
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(8 + len(text) + offset)
