"""Texts that have broken tokenizers, and a strategy that finds more."""

from __future__ import annotations

from hypothesis import strategies as st

NASTY = [
    "",
    " ",
    "\n",
    "\r\n\r\n  \t\n x",
    "   leading, trailing   ",
    "I'm, WE'LL, they'D, it'ſ, don’t, ''s",
    "naïve café — 北京, 東京 123456 ١٢٣ Ⅷ ½",
    "e\u0301 vs é, \ufeffBOM, zero\u200bwidth, non\u00a0breaking, \u2028 line",
    "👩‍👩‍👧‍👦 🇺🇳 🏳️‍🌈 \U0001f9ff",
    "\x00\x01\x1c\x1d\x7f\x80\x85\x9f",
    "ﬃ ŉ ß ẞ İ ı ǅ",
    "العربية עברית हिन्दी ภาษาไทย 한국어",
    "\u0378\u0558\u088f\u0c5c\U000116d0\U00011de0\U000323b0\U0010ffff\ufffe",  # unassigned, or assigned of late
    "    def f(x):\n\t\treturn x ** 2  # ok\n\n\n",
    "a" * 300 + "ab" * 100 + " " * 200 + "=" * 100,
    "<|im_end |> <|im_start| >",
]

FRAGMENTS = st.sampled_from(
    ["'s", "'LL", "<|", "|>", "\n", "\r\n", "  ", "\t", "the", " and", "123", "é", "北", "\u088f"]
)
TEXTS = st.one_of(
    st.text(),
    st.text(alphabet="aAbst' \n\r\t1.<|>é"),
    st.lists(st.one_of(FRAGMENTS, st.text(max_size=4)), max_size=30).map("".join),
)
"""Any valid Unicode, with weight on what the split pattern treats specially."""
