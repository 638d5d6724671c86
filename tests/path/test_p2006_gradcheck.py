"""Every backward pass that the library writes by hand is in the milestone, and right by two checks."""

from __future__ import annotations

import ast

import pytest

from needs import REPOSITORY
from underhood.path.p2006_gradcheck.run import operation_error, operations


@pytest.mark.parametrize("name", sorted(operations()))
def test_backward_pass_written_by_hand_matches_central_differences_and_torch_gradcheck(name: str):
    ours, theirs = operation_error(operations()[name])
    assert ours < 1e-6
    assert theirs


def test_every_backward_pass_of_the_library_is_in_the_milestone():
    """A new ``torch.autograd.Function`` must be added to the operations that the milestone checks."""
    actual = set()
    for file in (REPOSITORY / "src" / "underhood").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.ClassDef) and "torch.autograd.Function" in bases:
                actual.add(f"{file.stem}.{node.name}")
    assert actual == set(operations())
