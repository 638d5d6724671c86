"""The page as one file: its size, its policy, and that it can load nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

from inside_payload import PROMPT
from tiny_run import make_run
from traced import as_loaded

from underhood.models.decoder import qwen3_shaped
from underhood.web.inside.bundle import bundle
from underhood.web.inside.file import LIMIT, render_file
from underhood.web.inside.subjects import InsideModels
from underhood.web.page_files import STATIC


def test_file_of_12_layers_12_heads_128_tokens_takes_at_most_3_mb(tmp_path: Path):
    spec = qwen3_shaped(vocab_size=120, context_length=128, d_model=768, layers=12, heads=12, d_ff=64)
    model = spec.initialize(seed=0).eval()
    for layer in range(12):  # patterns that compress badly, as a trained model's do
        model.get_parameter(f"blocks.{layer}.mixer.query.weight").data.mul_(4)
    prompt = "".join(chr(0x100 + (7 * number * number) % 120) for number in range(128))
    text = render_file(InsideModels.of(as_loaded(model, tmp_path), "wide"), prompt)
    assert len(text.encode()) <= LIMIT == 3_000_000
    held = json.loads(re.findall(r'<script type="application/json" id="payload">(.*?)</script>', text, re.DOTALL)[0])
    views = held["views"]
    assert {f"0&patterns&layer={layer}" for layer in range(12)} <= set(views)
    assert {f"0&lens&start={start}&stop={start + 32}" for start in (0, 32, 64, 96)} <= set(views)
    assert {f"0&row&layer={layer}&position=127" for layer in range(12)} <= set(views)
    assert {f"0&parts&position={position}" for position in range(128)} <= set(views)
    assert sum(key.startswith("0&why") for key in views) == 144
    assert held["left_out"] == 0


def test_file_leaves_out_the_last_views_where_there_is_no_room(tmp_path: Path):
    spec = qwen3_shaped(vocab_size=120, context_length=128, d_model=32, layers=2, heads=4, d_ff=64)
    models = InsideModels.of(as_loaded(spec.initialize(seed=0).eval(), tmp_path), "small")
    whole = render_file(models, PROMPT)
    limit = len(whole.encode()) - 4_000
    cut = render_file(models, PROMPT, limit=limit)
    assert len(cut.encode()) <= limit
    assert '"left_out":0' in whole
    assert '"left_out":0' not in cut
    assert "0&lens&start=0" in cut


def test_file_asks_for_nothing_outside_itself(tmp_path: Path):
    models = InsideModels.open(make_run(tmp_path / "tiny"))
    text = render_file(models, "a list</script><img src=x>")
    assert "</script><img" not in text
    assert not re.findall(r'(?:src|href)="(?!#)[^"$]', text.partition('id="payload"')[0])
    assert "default-src 'none'" in text


def test_bundle_keeps_every_export_and_drops_every_import():
    script = bundle(STATIC, "inside/main.js")
    assert not re.findall(r"^(?:import|export) ", script, re.MULTILINE)
    assert script.index('modules["dom.js"] =') < script.index('modules["inside/heat.js"] =')
    assert 'const { h, typing } = modules["dom.js"];' in script
