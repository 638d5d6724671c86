"""The letters that name tensor dimensions throughout the code.

========  ====================================================
letter    dimension
========  ====================================================
B         batch (rows, sequences)
T         positions of the tokens given (queries)
S         positions that can be attended to (keys, cache included)
D         width of the residual stream
H         query heads
G         key-value heads (H is a multiple of G)
K         width of one head
F         inner width of the feed-forward
V         vocabulary
L         layers
E         experts
N         a flat count of anything else (documents, tokens, pairs)
========  ====================================================

A local variable carries its shape as a suffix, outermost dimension first: ``q_BHTK`` has shape (B, H, T, K).
Public signatures carry the same letters as jaxtyping annotations; the test suite checks them on every call.
"""

from __future__ import annotations
