"""Synonyms of documentation: other words under which a manual may describe what a question asks for."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

from underhood.retrieve.stemming import stem

SAME_WEIGHT, DERIVED_WEIGHT, SYNONYM_WEIGHT = 1.0, 0.6, 0.6
"""What a match counts, compared with the word itself: of an abbreviation or a word of the same meaning, of a derived
word (*reader* for *read*), of a word that may mean the same."""

_SAME = """
addr address
arg argument parameter param
attr attribute
average mean
biggest greatest highest largest maximum
capital upper uppercase
auth authentication
char character
cmd command
config configuration
cosine cos
db database
def definition
del delete
delete erase remove
delete rm
deviation stdev
dict dictionary
dir directory folder
doc documentation docstring
env environment
err error
exec execute
expr expression
format strf
func function
parse strp
have has
hex hexadecimal
img image
info information
init initialize
int integer
iter iterator iterate
least lowest minimum smallest
len length
lib library
logarithm log
lower lowercase
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
regex regexp re pattern
req request
rm remove
seq sequence
sqrt root
sine sin
std standard
str string
sub substitute
sym symbolic symlink
sys system
tangent tan
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
apart split separate
array list sequence iterable
archive zip
ask prompt query
backward reverse
begin start prefix leading
browser web
build construct create generate make new
cache memoize
call execute invoke run
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
convert conversion transform translate turn
convert turn encode decode
count occurrence number
cut separate split
core cpu processor
date day
decode parse
decompress extract unpack unzip
delay pause sleep suspend wait
delete discard remove unlink
duplicate unique distinct
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
find index position
filter keep select
float floating
folder tree
hash digest checksum
host hostname
html markup
index position
integer number
input prompt read
iterate iteration loop
id identifier uuid
job task
keyboard input
kill terminate signal
launch open start
leading left
length size
letter character
load read parse
mail email smtp
memory size
monitor watch
move rename
now today current
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
row line record
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
traverse walk
type class
user login
view show
week weekday
whole entire
word token
"""

_PHRASES = {
    "regular expression": ("regex", 1.0),
    "operating system": ("platform", 1.0),
    "how many": ("count", 0.5),
    "how much": ("size", 0.5),
    "how long": ("time", 0.5),
    "how often": ("count", 0.5),
    "how big": ("size", 1.0),
    "how large": ("size", 1.0),
}
"""Words that are searched for because of a phrase in the question, each with its weight."""


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, float]]:
    table: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for groups, weight in ((_SAME, SAME_WEIGHT), (_SYNONYMS, SYNONYM_WEIGHT)):
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
    nouns = [base + ending for ending in ("er", "or", "ion", "ation")]
    nouns.append(base[:-1] + "ication" if base.endswith("i") else base + base[-1] + "er")
    verbs = [term.removesuffix(ending) for ending in ("er", "or", "ion") if term.endswith(ending) and len(term) > 5]
    return [*nouns, *verbs, *(verb + "e" for verb in verbs)]


def phrases(question: str) -> list[tuple[str, str, float]]:
    """Phrases of a question, each with the word to search for because of it, and that word's weight.

    A word of weight 1 takes the place of the phrase, whose own words then count little.
    """
    lowered = " ".join(question.lower().split())
    return [(phrase, word, weight) for phrase, (word, weight) in _PHRASES.items() if phrase in lowered]
