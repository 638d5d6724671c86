"""Names written as one word (``getcwd``, ``listdir``, ``splitlines``), taken apart by a small lexicon of code words."""

from __future__ import annotations

from functools import lru_cache

_WORDS = frozenset(
    """
    abs access add addr address all append archive arg args attr attrs available base bin block body bool buffer build
    byte bytes call calls case char chars check child chunk class clear client close cmp code command cookie copy
    count cpu create current cwd data date debug decode deep default del delete depth dict diff digest digit digits
    dir directory dirs disk disp doc docs down dump element encode encoding end ends entry env equal error escape
    event exec exist exists exit expand file files fill find first float floor flush format free from func function
    get group groups has hash header headers heap hex hook host html http id index info init input insert int is iso
    item items iter join json key keys large largest last left len length level lib limit line lines link list load
    local lock log long lower mail main make map mask match max mean method min mode module move mtime name names net
    new next node num number object offset only open option options order pack page parse password path paths pattern
    peek pop port position prefix print process push put quote rand random range raw read ready real reduce remove
    rename repeat replace report request reset resource response reverse right rm root round run same scan scandir
    search seconds seek select send sep server set setting settings shift short show shuffle sign signal size sleep
    small smallest socket sort source space spec split stack start starts stat state status stop storage str stream
    strf string strings strip strp sub suffix sum swap sym symbol sync sys system tab table tag temp test text thread
    time times title token trace tree trunc type union unpack update upper url user utc value values var vars version
    view wait walk warn week whence width window with word words work wrap write year zip
    """.split()  # noqa: SIM905
)
SHORTEST, LONGEST = 2, max(map(len, _WORDS))


@lru_cache(maxsize=50_000)
def words_of_compound(name: str) -> tuple[str, ...]:
    """The two or more words that a lower-case name consists of; none if the lexicon doesn't cover all of it.

    ``listdir`` gives *list* and *dir*, ``rmtree`` *rm* and *tree*. The longest first words are preferred.
    """
    pieces = _tiled(name)
    return pieces if len(pieces) > 1 else ()


def _tiled(name: str) -> tuple[str, ...]:
    for length in range(min(LONGEST, len(name)), SHORTEST - 1, -1):
        if name[:length] in _WORDS:
            if length == len(name):
                return (name,)
            rest = _tiled(name[length:])
            if rest:
                return (name[:length], *rest)
    return ()
