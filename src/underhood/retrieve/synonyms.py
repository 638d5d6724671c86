"""Synonyms of documentation: other words under which a manual may describe what a question asks for."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

from underhood.retrieve.stemming import stem

SYNONYM_WEIGHT = 0.5
"""What a synonym's match counts, compared with the word itself."""

_GROUPS = """
add append insert
add sum total
alter change modify update
argument parameter
array list sequence
async asynchronous coroutine
average mean
backward reverse
begin start
begin start prefix leading
biggest greatest highest largest maximum max
blank space whitespace
browser web
build construct create generate make
cache memoize
call execute invoke run
capital upper uppercase
char character letter
check test determine
child subprocess process
clear empty
clone copy duplicate
close shut
code source
combine concatenate join merge
compare difference diff
compress pack zip
compute calculate
convert transform translate turn
count occurrence
cut separate split
date day
decode parse
decompress extract unpack unzip
del delete discard erase remove rm unlink
delay pause sleep suspend wait
dict dictionary mapping
dir directory folder
display output print show
distinct unique
download fetch retrieve
dump save serialize store write
each every
element entry item member
encode encoding
end finish
end suffix trailing
end exit quit stop terminate
env environment
equal same identical
error exception
escape quote
evaluate eval
extension suffix
filename pathname path
find locate search
float floating
func function
hash digest checksum
hex hexadecimal
html markup
index position
int integer
int integer number
iterate iteration loop
iterator iterable
launch open start
leading left
least lowest minimum min smallest
length len size
link symlink
load read
lower lowercase
match pattern
memory heap
move rename
multiply product
object instance
order sort
password secret
permutation ordering arrangement
pick choose choice select
power exponent pow
random randomly
regex regexp re
remainder modulo mod
replace substitute sub
right trailing
root sqrt
shell command
similar close
str string text
substring str
surround pad fill
temp temporary tmp
thread threading
timer timing time
title capitalize
type class
url link
value values
variable var
whole entire
word words token
"""

_PHRASES = {
    "regular expression": "re regex",
    "working directory": "cwd",
    "current directory": "cwd",
    "upper case": "uppercase",
    "lower case": "lowercase",
    "square root": "sqrt",
    "web page": "url",
    "web site": "url",
    "command line": "argv",
    "how many": "count number",
    "how long": "time length",
    "how often": "count",
    "how big": "size",
    "how large": "size",
    "how old": "age time",
}
"""Words that a phrase of the question adds to its search."""


@lru_cache(maxsize=1)
def _table() -> dict[str, tuple[str, ...]]:
    table: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for line in _GROUPS.strip().splitlines():
        words = line.split()
        for word in words:
            table[stem(word)] |= {other: None for other in words if stem(other) != stem(word)}
    return {term: tuple(words) for term, words in table.items()}


def synonyms(term: str) -> tuple[str, ...]:
    """Other words, unstemmed, for an index term."""
    return _table().get(term, ())


def words_of_phrases(question: str) -> list[str]:
    """Words to search for because of a phrase in the question: "square root" is called *sqrt*."""
    lowered = " ".join(question.lower().split())
    return [word for phrase, words in _PHRASES.items() if phrase in lowered for word in words.split()]
