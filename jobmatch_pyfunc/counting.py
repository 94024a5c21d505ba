"""Terms of many texts at once, as `text.count_terms` finds them one text at a time.

Texts are cut behind spaces, each distinct piece, such as `(Projetos, `, is looked up once for the
words that it holds (no word crosses a space), and the rest is arithmetic on the numbers of words.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice, repeat
from threading import Lock
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray

from jobmatch_pyfunc.text import BESIDE_WORDS, PLAIN, terms_of_plain, words

BLOCK_BYTES, TOGETHER = 4_000_000, 16
"""Texts are counted in blocks of about this size, and the pieces of so many blocks looked up
together; both bound the memory."""
_REMEMBERED, _REMEMBERED_SEVERAL = 1_000_000, 200_000
LONGEST_REMEMBERED = 24
"""Longer pieces, such as addresses of pages, hardly come again."""
NONE, NEW = -1, np.iinfo(np.int32).min
"""Codes of a piece without a word, and of one that has not been met."""


class BatchCounter:
    """Counts the terms of a vocabulary: words, and two words in a row."""

    def __init__(self, terms: Sequence[str]) -> None:
        self._terms = len(terms)
        parts = pc.split_pattern(pa.array(terms, pa.large_string()), " ")
        flat = parts.flatten().dictionary_encode()
        known, part = flat.dictionary.to_pylist(), np.asarray(flat.indices)
        self._number = dict(zip(known, range(len(known)), strict=True))
        self._other = len(known)  # the number of every word that no term holds
        self._words = len(known) + 1
        self._column = np.full(self._words, -1, np.int32)
        self._begins, self._ends = (np.zeros(self._words, bool) for _ in range(2))
        begin, two = np.asarray(parts.offsets)[:-1], np.asarray(pc.list_value_length(parts)) == 2
        self._column[part[begin[~two]]] = np.flatnonzero(~two)
        first, second = part[begin[two]], part[begin[two] + 1]
        self._begins[first] = self._ends[second] = True
        self._pairs = pd.Index(first * np.int64(self._words) + second)
        self._pair_column = np.flatnonzero(two).astype(np.int32)
        self._number[""] = NONE
        self._known = _Known()

    def count(self, texts: pa.LargeStringArray) -> sp.csr_matrix:
        """How often each term occurs in each text: (texts × terms), float32, columns in ascending
        order."""
        some_blocks = blocks(pc.binary_length(texts).to_numpy())
        counts: list[sp.csr_matrix] = []
        while some := [cut(texts[block]) for block in islice(some_blocks, TOGETHER)]:
            counts += self._counts(some)
        return sp.vstack(counts, format="csr")

    def _counts(self, some: Sequence["Pieces"]) -> Iterator[sp.csr_matrix]:
        bare, numbers = bare_pieces(some)
        codes, known = self._codes(bare)
        for block, number in zip(some, numbers, strict=True):
            yield self._matrix(
                *words_of(codes[number][block.number], block.bounds, known.several))

    def _matrix(self, word: NDArray[np.int32], sizes: NDArray[np.int32]) -> sp.csr_matrix:
        """Counts in texts of so many words each, given the number of every word."""
        row = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
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
                                shape=(len(sizes), self._terms))
        return by_term.tocsr()

    def _codes(self, bare: pa.LargeStringArray) -> "tuple[NDArray[np.int32], _Known]":
        """What each of the distinct texts holds, as codes, and what those of several words mean."""
        known = self._known
        if known.many:  # hostile input must not grow the memory without end
            known = self._known = _Known()
        codes = np.fromiter(map(known.codes.get, bare.to_pylist(), repeat(NEW)), np.int32,
                            len(bare))
        new = np.flatnonzero(codes == NEW)
        codes[new] = self._codes_of_new(bare.take(pa.array(new)), known)
        return codes, known

    def _codes_of_new(self, bare: pa.LargeStringArray, known: "_Known") -> NDArray[np.int32]:
        codes = np.full(len(bare), NONE, np.int32)
        texts = bare.to_pylist()
        # most are one plain word, which needs no search for words
        plain = np.asarray(pc.match_substring_regex(bare, PLAIN))
        terms = terms_of_plain([texts[at] for at in np.flatnonzero(plain).tolist()])
        codes[plain] = list(map(self._number.get, terms, repeat(self._other)))
        # a number holds no word, and texts have many different ones
        digits = np.asarray(pc.ascii_is_decimal(bare))
        for at in np.flatnonzero(~(plain | digits)).tolist():
            codes[at] = known.code([self._number.get(word, self._other)
                                    for word in words(texts[at])])
        short = np.asarray(pc.less_equal(pc.binary_length(bare), LONGEST_REMEMBERED))
        worth = np.flatnonzero(~digits & short & (codes != self._other))
        known.codes.update((texts[at], code) for at, code in
                           zip(worth.tolist(), codes[worth].tolist(), strict=True))
        return codes


class _Known:
    """What pieces hold, as codes: the number of their one word, NONE, or which of `several`."""

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
            return numbers[0] if numbers else NONE
        with self._lock:
            self.several.append(tuple(numbers))
            return NONE - len(self.several)


class Pieces(NamedTuple):
    """Texts cut into pieces, which each end with the spaces behind them."""

    distinct: pa.LargeStringArray
    number: NDArray[np.int32]
    """Which of the distinct ones each piece is, one text after the other."""
    bounds: NDArray[np.int64]
    """The first piece of each text, and how many there are (texts + 1)."""


def cut(texts: pa.LargeStringArray) -> Pieces:
    """The pieces of texts; they are not copied to be told apart."""
    _, offsets, buffer = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset:texts.offset + len(texts) + 1]
    first, last = (int(ends[0]), int(ends[-1])) if len(texts) else (0, 0)
    if first == last:
        return Pieces(texts[:0], np.zeros(0, np.int32), np.zeros(len(texts) + 1, np.int64))
    space = np.frombuffer(buffer, np.uint8)[first:last] <= ord(" ")
    begins = np.empty(len(space), bool)
    np.greater(space[:-1], space[1:], out=begins[1:])
    begins[ends[ends < last] - first] = True
    at = np.append(np.flatnonzero(begins), len(space)) + first
    pieces = pa.LargeStringArray.from_buffers(len(at) - 1, pa.py_buffer(at), buffer)
    told_apart = pieces.dictionary_encode()
    return Pieces(told_apart.dictionary, np.asarray(told_apart.indices), np.searchsorted(at, ends))


def bare_pieces(
    some: Sequence[Pieces]
) -> tuple[pa.LargeStringArray, list[NDArray[np.int32]]]:
    """The distinct pieces of some blocks without what is beside words and in lower case, in the
    order in which they are met, and which of those each block's distinct ones are: `Java, ` and
    `java ` hold the same."""
    pieces = pa.concat_arrays([block.distinct for block in some])
    bare = pc.ascii_lower(pc.utf8_trim(pieces, BESIDE_WORDS)).dictionary_encode()
    ends = np.cumsum([len(block.distinct) for block in some])
    return bare.dictionary, np.split(np.asarray(bare.indices), ends[:-1])


def words_of(
    code: NDArray[np.int32], bounds: NDArray[np.int64], several: Sequence[tuple[int, ...]]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Numbers of the words of texts, one text after the other, and how many each has, given the
    code of every piece (the number of its one word, `NONE`, or `NONE − 1 − i` for those in
    `several[i]`) and where each text's begin."""
    sizes = (code > NONE).astype(np.int32)
    at = np.flatnonzero(code < NONE)
    held = [several[NONE - 1 - one] for one in code[at].tolist()]
    sizes[at] = list(map(len, held))
    word = np.repeat(code, sizes)
    word[word < NONE] = list(chain.from_iterable(held))
    ends = np.append(0, np.cumsum(sizes))
    return word, np.diff(ends[bounds])


def blocks(sizes: NDArray) -> Iterator[slice]:
    """Texts of these sizes (bytes), about `BLOCK_BYTES` at a time: at least one block, which may
    be empty."""
    ends = np.cumsum(sizes)
    begin = 0
    while begin == 0 or begin < len(ends):
        before = ends[begin - 1] if begin else 0
        end = max(int(np.searchsorted(ends, before + BLOCK_BYTES)), begin + 1)
        yield slice(begin, end)
        begin = end
