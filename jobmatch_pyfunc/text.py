"""How a text becomes terms: the one definition that training and serving share.

A word is lower-cased, freed of accents and reduced to its Portuguese stem (Snowball), so that
`Projetos`, `projeto` and `PROJETO` are one term; `c++` and `c#` stay themselves. Stop words, bare
numbers and single letters are dropped. A term is one such word, or two in a row.
"""

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import Stemmer

WORD = (
    r"[a-z0-9\u00aa\u00b5\u00ba\u00df-\u00f6\u00f8-\u017f\u0300-\u036f\ufb00-\ufb06]+(?:\+\+|#)?"
)
"""A word in lower-cased text."""

STOP_WORDS = frozenset(
    """a ao aos aquela aquele as ate com como da das de dela dele deles depois do dos e ela elas ele
    eles em entre era eram essa essas esse esses esta estas este estes estou eu foi foram ha isso
    isto ja la lhe lhes mais mas me mesmo meu meus minha minhas muito na nao nas nem no nos nossa
    nossas nosso nossos num numa o os ou para pela pelas pelo pelos per por qual quando que quem se
    sem ser sera seu seus so sob sobre sua suas tambem te tem um uma umas uns voce voces
    an and are as at be by for from in is it of on or our that the their this to we will with you
    your br div nbsp www http https""".split()
)
LONGEST_WORD = 40
BESIDE_WORDS = " \t\n\v\f\r.,;:!?()[]{}<>\"'`/\\|*=&%$@_•·–—“”‘’…-"
"""Signs that no word holds, and that often stand beside one."""
PLAIN = rf"^[a-z]{{2,{LONGEST_WORD}}}$"
"""A text that is one word, whose term is easily had."""
_FAR = 30  # words of a term further apart than this are shown with … between them
_CONNECTORS = frozenset("/-–.,;:&+|")
_REMEMBERED = 500_000

_token = re.compile(WORD)
_stemmer = Stemmer.Stemmer("portuguese", 0)  # its own cache of 10,000 words costs more than stems
_stemmer_lock = threading.Lock()
_terms: dict[str, str] = {}


def term_of(word: str) -> str:
    """The term of one lower-case word as `WORD` finds it; empty where it carries no meaning."""
    term = _terms.get(word)
    if term is None:
        term = _make_term(word)
        if len(_terms) >= _REMEMBERED:  # hostile input must not grow the memory without end
            _terms.clear()
        _terms[word] = term
    return term


def _make_term(word: str) -> str:
    if len(word) > LONGEST_WORD:
        return ""
    bare = word.rstrip("+#")
    folded = _fold(bare)
    if len(folded) == 1:
        return folded + word[len(bare):] if word != bare and folded.isalpha() else ""
    if folded in STOP_WORDS or not (folded.isalpha() or any(map(str.isalpha, folded))):
        return ""
    with _stemmer_lock:
        stem = _stemmer.stemWord(unicodedata.normalize("NFC", bare))
    return _fold(stem)


def terms_of(words: Sequence[str]) -> list[str]:
    """`term_of` for many distinct words at once, not remembered."""
    plain = [word for word in words  # those that match `PLAIN`, in half of the time
             if word.isascii() and word.isalpha() and 1 < len(word) <= LONGEST_WORD]
    known = dict(zip(plain, terms_of_plain(plain), strict=True))
    return [known[word] if word in known else _make_term(word) for word in words]


def terms_of_plain(texts: Sequence[str]) -> list[str]:
    """The term of each text that matches `PLAIN`: `term_of` for many at once, not remembered."""
    with _stemmer_lock:
        stems = _stemmer.stemWords(texts)
    return ["" if word in STOP_WORDS else stem for word, stem in zip(texts, stems, strict=True)]


def _fold(word: str) -> str:
    if word.isascii():
        return word
    return "".join(s for s in unicodedata.normalize("NFKD", word) if not unicodedata.combining(s))


def words_as_written(text: str) -> list[str]:
    """The words of a text in lower case, in order, with those that are no terms."""
    return _token.findall(text.lower())


def words(text: str) -> list[str]:
    """The single-word terms of a text, in order."""
    found = words_as_written(text)
    terms: list[str | None] = list(map(_terms.get, found))
    if None in terms:
        terms = list(map(term_of, found))
    return list(filter(None, terms))


def count_terms(text: str) -> Counter[str]:
    """How often each term (a word, or two words in a row) occurs in a text."""
    single = words(text)
    counts = Counter(single)
    counts.update(f"{a} {b}" for a, b in pairwise(single))
    return counts


def written_terms(text: str) -> dict[str, str]:
    """Each term of a text as the text writes it where it first occurs, such as
    `gest projet` → `gestão de projetos`. What stands between two words and is no part of the term
    may be a phone number: it is shown as `…`."""
    lowered = text.lower()
    written: dict[str, str] = {}
    previous: tuple[str, int, int] | None = None
    for term, start, end in _found(lowered):
        written.setdefault(term, lowered[start:end])
        if previous:
            first, first_start, first_end = previous
            between = _shown(lowered[first_end:start])
            span = lowered[first_start:first_end] + between + lowered[start:end]
            written.setdefault(f"{first} {term}", " ".join(span.split()))
        previous = term, start, end
    return written


def _shown(gap: str) -> str:
    """What is between two words, where it is but stop words and at most one connector."""
    if len(gap) > _FAR:
        return " … "
    other = "".join(_token.sub(_unless_stop_word, gap).split())
    return gap if not other or other in _CONNECTORS else " … "


def _unless_stop_word(word: re.Match[str]) -> str:
    return "" if _fold(word.group()) in STOP_WORDS else word.group()


def _found(lowered: str) -> Iterator[tuple[str, int, int]]:
    for match in _token.finditer(lowered):
        term = term_of(match.group())
        if term:
            yield term, match.start(), match.end()


def body(activities: str, requirements: str) -> tuple[str, ...]:
    """The texts of a vacancy's body: a third of the vacancies carry the same text in both fields,
    which counts once."""
    return (activities,) if activities == requirements else (activities, requirements)
