"""Terms of many texts at once, as `text.count_terms` finds them one text at a time.

Texts are cut behind spaces, each distinct piece, such as `(Projetos, `, is looked up once for the
words that it holds (no word crosses a space), and the rest is arithmetic on the numbers of words.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from threading import Lock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray

from jobmatch_pyfunc.text import BESIDE_WORDS, PLAIN, terms_of_plain, words

Document = tuple[str, ...]
"""Texts whose terms count together; no term runs from one into the next."""

BLOCK_CHARACTERS = 4_000_000
"""Documents are counted in blocks of about this size, which bounds the memory."""
_REMEMBERED, _REMEMBERED_SEVERAL, _LONGEST_REMEMBERED = 1_000_000, 200_000, 24
_NONE, _NEW = -1, np.iinfo(np.int32).min


class BatchCounter:
    """Counts the terms of a vocabulary: words, and two words in a row."""

    def __init__(self, terms: Sequence[str]) -> None:
        self._terms = len(terms)
        known = dict.fromkeys(word for term in terms for word in term.split(" "))
        self._number = {word: i for i, word in enumerate(known)}
        self._other = len(known)  # the number of every word that no term holds
        self._words = len(known) + 1
        self._column = np.full(self._words, -1, np.int32)
        self._begins, self._ends = (np.zeros(self._words, bool) for _ in range(2))
        pairs: dict[int, int] = {}
        for column, term in enumerate(terms):
            first, *second = (self._number[word] for word in term.split(" "))
            if second:
                self._begins[first] = self._ends[second] = True
                pairs[first * self._words + second[0]] = column
            else:
                self._column[first] = column
        self._pairs = pd.Index(list(pairs), dtype=np.int64)
        self._pair_column = np.fromiter(pairs.values(), np.int32, len(pairs))
        self._number[""] = _NONE
        self._known = _Known()

    def count(self, documents: Sequence[Document]) -> sp.csr_matrix:
        """How often each term occurs in each document: (documents × terms), float32, columns in
        ascending order."""
        return sp.vstack([self._block(block) for block in _blocks(documents)], format="csr")

    def _block(self, documents: Sequence[Document]) -> sp.csr_matrix:
        texts = [text for document in documents for text in document]
        word, sizes = self._words_of(texts)
        document = np.arange(len(documents), dtype=np.int32)
        text = np.repeat(document, [len(document) for document in documents])
        row = np.repeat(text, sizes)
        column = self._column[word]
        single = column >= 0
        may_follow = self._begins[word[:-1]] & self._ends[word[1:]]
        last = np.cumsum(sizes)[:-1] - 1  # of each text but the last one; −1 where all are empty
        may_follow[last[(last >= 0) & (last < len(may_follow))]] = False
        pair = np.flatnonzero(may_follow)
        at = self._pairs.get_indexer(word[pair] * np.int64(self._words) + word[pair + 1])
        pair, at = pair[at >= 0], at[at >= 0]
        rows = np.concatenate([row[single], row[pair]])
        columns = np.concatenate([column[single], self._pair_column[at]])
        # by column first: two passes over them, where sorting each row's would take many
        by_term = sp.csc_matrix((np.ones(len(rows), np.float32), (rows, columns)),
                                shape=(len(documents), self._terms))
        return by_term.tocsr()

    def _words_of(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Numbers of the words of the texts, one text after the other, and how many each has."""
        pieces, bounds = _cut(_as_arrow(texts))
        distinct = pieces.dictionary_encode()
        # `Java, ` and `java ` hold the same
        bare = pc.ascii_lower(pc.utf8_trim(distinct.dictionary, BESIDE_WORDS)).dictionary_encode()
        codes, known = self._codes(bare.dictionary)
        code = codes[np.asarray(bare.indices)][np.asarray(distinct.indices)]
        sizes = (code > _NONE).astype(np.int32)
        several = np.flatnonzero(code < _NONE)
        held = [known.several[_NONE - 1 - one] for one in code[several].tolist()]
        sizes[several] = list(map(len, held))
        word = np.repeat(code, sizes)
        word[word < _NONE] = list(chain.from_iterable(held))
        ends = np.append(0, np.cumsum(sizes))
        return word, np.diff(ends[bounds])

    def _codes(self, bare: pa.LargeStringArray) -> "tuple[NDArray[np.int32], _Known]":
        """What each of the distinct texts holds, as codes, and what those of several words mean."""
        known = self._known
        if known.many:  # hostile input must not grow the memory without end
            known = self._known = _Known()
        codes = np.fromiter(map(known.codes.get, bare.to_pylist(), repeat(_NEW)), np.int32,
                            len(bare))
        new = np.flatnonzero(codes == _NEW)
        codes[new] = self._codes_of_new(bare.take(pa.array(new)), known)
        return codes, known

    def _codes_of_new(self, bare: pa.LargeStringArray, known: "_Known") -> NDArray[np.int32]:
        codes = np.full(len(bare), _NONE, np.int32)
        texts = bare.to_pylist()
        # most are one plain word, which needs no search for words
        plain = np.flatnonzero(pc.match_substring_regex(bare, PLAIN))
        terms = terms_of_plain([texts[at] for at in plain.tolist()])
        codes[plain] = list(map(self._number.get, terms, repeat(self._other)))
        # a number holds no word, and texts have many different ones
        digits = np.asarray(pc.ascii_is_decimal(bare))
        for at in np.setdiff1d(np.flatnonzero(~digits), plain).tolist():
            codes[at] = known.code([self._number.get(word, self._other)
                                    for word in words(texts[at])])
        short = np.asarray(pc.less_equal(pc.binary_length(bare), _LONGEST_REMEMBERED))
        worth = np.flatnonzero(~digits & short & (codes != self._other))
        known.codes.update((texts[at], code) for at, code in
                           zip(worth.tolist(), codes[worth].tolist(), strict=True))
        return codes


class _Known:
    """What pieces hold, as codes: the number of their one word, _NONE, or which of `several`."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.several: list[tuple[int, ...]] = []
        self._lock = Lock()  # a model may be asked by several threads

    @property
    def many(self) -> bool:
        return len(self.codes) > _REMEMBERED or len(self.several) > _REMEMBERED_SEVERAL

    def code(self, numbers: list[int]) -> int:
        """The code of a piece that holds words of these numbers."""
        if len(numbers) < 2:
            return numbers[0] if numbers else _NONE
        with self._lock:
            self.several.append(tuple(numbers))
            return _NONE - len(self.several)


def _cut(texts: pa.LargeStringArray) -> tuple[pa.LargeStringArray, NDArray[np.int64]]:
    """Pieces of the texts, which each end with the spaces behind them, and where each text's begin
    (texts + 1). Nothing is copied: the pieces lie where the texts do."""
    _, offsets, buffer = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64, len(texts) + 1)
    if not bounds[-1]:
        return texts[:0], np.zeros(len(texts) + 1, np.int64)
    space = np.frombuffer(buffer, np.uint8, bounds[-1]) <= ord(" ")
    begins = np.empty(len(space), bool)
    np.greater(space[:-1], space[1:], out=begins[1:])
    begins[bounds[bounds < len(space)]] = True
    at = np.append(np.flatnonzero(begins), len(space))
    pieces = pa.LargeStringArray.from_buffers(len(at) - 1, pa.py_buffer(at), buffer)
    return pieces, np.searchsorted(at, bounds)


def _as_arrow(texts: Sequence[str]) -> pa.Array:
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError:  # halves of surrogate pairs, which end a word as `?` does
        whole = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        return pa.array(whole, pa.large_string())


def _blocks(documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
    """At least one, which may be empty."""
    begin, size = 0, 0
    for end, document in enumerate(documents, 1):
        size += sum(map(len, document))
        if size >= BLOCK_CHARACTERS:
            yield documents[begin:end]
            begin, size = end, 0
    if begin < len(documents) or not documents:
        yield documents[begin:]
