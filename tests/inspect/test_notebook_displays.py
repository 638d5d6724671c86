"""Notebook displays of traces and views: escaped, with their own numbers, without a request."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
import torch
from traced import IDS, opened

from underhood.infer.load import LoadedModel
from underhood.inspect.contributions import SITES, Contributions, contributions
from underhood.inspect.lens import Lens, logit_lens
from underhood.inspect.patching import PatchSweep, patch_residual
from underhood.inspect.stage_patching import PartPatches
from underhood.inspect.trace import Trace, trace

EVIL = "<script>alert(1)</script>"


class Balance(HTMLParser):
    """Counts the elements that are open, and notes those that may not be there."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe") or any(name in ("src", "href") for name, _ in attrs):
            self.foreign.append(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(page: str) -> str:
    """The page, if it is whole and asks for nothing."""
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert balance.foreign == []
    assert page.startswith('<div class="underhood">')
    assert "light-dark(" in page
    return page


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened("llama2", tmp_path_factory.mktemp("llama2"))[0]


def test_trace_shows_its_tokens_and_what_was_recorded(loaded: LoadedModel):
    page = checked(trace(loaded, IDS, ["residual", "query"])._repr_html_())
    assert len(re.findall('class="token ', page)) == len(IDS)
    assert re.search(r'<td>residual</td><td class="number">3</td><td>12 × 32</td>', page)
    assert re.search(r'<td>query</td><td class="number">2</td><td>4 × 12 × 8</td>', page)


def test_lens_shows_the_likeliest_token_of_every_layer(loaded: LoadedModel):
    lens = logit_lens(loaded, trace(loaded, IDS), positions=[3, -1])
    cells = re.findall(r'<td class="heat" style="--full:(\d+)%">(.)</td>', checked(lens._repr_html_()))
    expected = [lens.row(layer, position)[0] for layer in range(3) for position in range(2)]
    assert cells == [(f"{100 * share:.0f}", piece) for piece, share in expected]


def test_contributions_show_a_cell_for_each_part(loaded: LoadedModel):
    parts = contributions(loaded, trace(loaded, IDS, SITES), 40)
    cells = re.findall(r'<td class="(heat|heat negative)" style="--full:(\d+)%">(.+?)</td>', parts._repr_html_())
    by_name = dict(zip(parts.names, parts.values.tolist(), strict=True))
    values = [by_name[f"{kind}.{layer}"] for layer in (0, 1) for kind in ("mixer", "feedforward")]
    assert [text for _, _, text in cells] == [f"{value:.2f}" for value in values]
    assert [kind == "heat negative" for kind, _, _ in cells] == [value < 0 for value in values]
    assert "100" in [full for _, full, _ in cells]
    checked(parts._repr_html_())


def test_sweep_shows_a_cell_for_each_layer_and_token(loaded: LoadedModel):
    sweep = patch_residual(loaded, [*IDS[:3], 77, *IDS[4:]], IDS, answer=40, other=7)
    page = checked(sweep._repr_html_())
    assert len(re.findall(r'<td class="heat', page)) == 3 * len(IDS)


def test_tokens_cannot_add_elements():
    recorded = Trace(EVIL, (1, 2), (EVIL, "b"), {"residual.0": torch.ones(2, 4)})
    ones = torch.ones(2, 2)
    lens = Lens(recorded, (0, 1), torch.zeros(2, 2, 1, dtype=torch.long), ones[..., None], {0: EVIL}, ones.long(), ones)
    sweep = PatchSweep(ones, 1.0, 0.0, (EVIL, "b"))
    parts = Contributions(0, ("embedding", "mixer.0"), torch.tensor([1.0, -1.0]), 0.0, 0.0)
    patches = PartPatches((EVIL, "b"), torch.tensor([0.5, torch.nan]), 1.0, 0.0)
    for shown in (recorded, lens, sweep, parts, patches):
        assert EVIL not in checked(shown._repr_html_())


def test_a_sweep_without_a_difference_shows_empty_cells():
    sweep = PatchSweep(torch.zeros(2, 2), 0.0, 0.0, ("a", "b"))  # shares of nothing
    assert re.findall(r'<td class="heat" style="--full:0%"></td>', sweep._repr_html_()) != []
    assert "nan" not in sweep._repr_html_()
