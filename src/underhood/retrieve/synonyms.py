"""Synonyms of documentation: other words under which a manual may describe what a question asks for."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

from underhood.retrieve.stemming import stem

ABBREVIATION_WEIGHT, DERIVED_WEIGHT, SYNONYM_WEIGHT = 0.9, 0.7, 0.6
"""What the match of an abbreviation, of a derived word or of a synonym counts, compared with the word itself."""

_ABBREVIATIONS = """
addr address
arg argument parameter param
attr attribute
auth authentication
char character
cmd command
config configuration
db database
dec decimal
def definition
del delete
dict dictionary
dir directory folder
doc documentation docstring
env environment
err error
exec execute
expr expression
func function
hex hexadecimal
img image
info information
init initialize
int integer
iter iterator iterate
len length
lib library
max maximum
min minimum
msg message
num number
obj object
param parameter
pos position
prev previous
proc process
pwd password
rand random
ref reference
regex regexp re
req request
rm remove
seq sequence
sqrt root
std standard
str string
sub substitute
sym symbolic symlink
sys system
temp temporary tmp
url link
val value
var variable
whitespace space
"""

_SYNONYMS = """
add append insert
add sum total
alter change modify update set
angle radian degree
apart split separate
array list sequence iterable
archive zip
ask prompt query
average mean
backward reverse
begin start prefix leading
biggest greatest highest largest maximum
browser web
build construct create generate make new
cache memoize
call execute invoke run
capital upper uppercase
check test determine whether
child subprocess process
clear empty
clone copy duplicate
close shut
code source
collect gather
combine concatenate join merge
combine merge update
common intersection
compare comparison difference diff equal
compress pack zip
compute calculate
content text
convert transform translate turn
count occurrence number
cut separate split
core cpu processor
date day
decode parse
decompress extract unpack unzip
delay pause sleep suspend wait
delete discard erase remove unlink
display output print show
download fetch retrieve
dump save serialize store write
each every
element entry item member
encode encoding
end finish
end suffix trailing
ending suffix
endless forever infinite indefinitely
equal same identical
error exception
escape quote
evaluate eval
exit quit stop terminate end
extension suffix
file filename path pathname
find locate search match
float floating
folder tree
hash digest checksum
host hostname
html markup
index position
integer number
iterate iteration loop
job task
launch open start
leading left
least lowest minimum smallest
length size
letter character
load read parse
lower lowercase
mail smtp
mean average
memory heap
monitor watch
move rename
multiply product
name filename
nested deep
object instance
order sort
pair tuple
pick choose choice select
password secret
permutation ordering arrangement
permission mode
power exponent pow
program interpreter process script
quantity amount
random randomly
recursive recursively tree
remainder modulo mod
replace substitute
repeat cycle
right trailing
seconds time
shell command
similar close
simultaneously concurrently parallel
square power
stack traceback
string text
substring string
surround pad fill
thread threading
time clock
timer timing
title capitalize
truncate cut shorten
type class
user login
view show
week weekday
whole entire
word token
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
def _table() -> dict[str, dict[str, float]]:
    table: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for groups, weight in ((_ABBREVIATIONS, ABBREVIATION_WEIGHT), (_SYNONYMS, SYNONYM_WEIGHT)):
        for line in groups.strip().splitlines():
            for word in line.split():
                for other in line.split():
                    if stem(other) != stem(word):
                        table[stem(word)].setdefault(other, weight)
    return dict(table)


def synonyms(term: str) -> list[tuple[str, float]]:
    """Other words for an index term, each with what its match counts."""
    return [*_table().get(term, {}).items(), *((word, DERIVED_WEIGHT) for word in _derived(term))]


def _derived(term: str) -> list[str]:
    """Nouns of a verb and the verb of a noun: *read*, *reader*; *compress*, *compression*; unknown words do no harm."""
    if len(term) < 4 or not term.isalpha():
        return []
    base = term.removesuffix("e")
    nouns = [base + ending for ending in ("er", "or", "ion")] + [base + base[-1] + "er"]
    verbs = [term.removesuffix(ending) for ending in ("er", "or", "ion") if term.endswith(ending) and len(term) > 5]
    return [*nouns, *verbs, *(verb + "e" for verb in verbs)]


def words_of_phrases(question: str) -> list[str]:
    """Words to search for because of a phrase in the question: "square root" is called *sqrt*."""
    lowered = " ".join(question.lower().split())
    return [word for phrase, words in _PHRASES.items() if phrase in lowered for word in words.split()]
