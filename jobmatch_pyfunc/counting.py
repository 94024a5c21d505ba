"""Terms of many texts at once, as `text.count_terms` finds them one text at a time.

Texts are cut at spaces, each distinct piece, such as `(Projetos,`, is looked up once for the words
that it holds (no word crosses a space), and the rest is arithmetic on the numbers of words.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray

from jobmatch_pyfunc.text import words

Document = tuple[str, ...]
"""Texts whose terms count together; no term runs from one into the next."""

BLOCK_CHARACTERS = 4_000_000
"""Documents are counted in blocks of about this size, which bounds the memory."""
_REMEMBERED, _LONGEST_REMEMBERED = 1_000_000, 24


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
        self._pieces: dict[str, tuple[int, ...]] = {}

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
        cut = pc.ascii_split_whitespace(_as_arrow(texts))
        encoded = cut.flatten().dictionary_encode()
        held = self._look_up(encoded.dictionary.to_pylist())
        ends = np.fromiter(accumulate(map(len, held), initial=0), np.int32, len(held) + 1)
        numbers = np.fromiter(chain.from_iterable(held), np.int32, int(ends[-1]))
        found = pa.ListArray.from_arrays(ends, numbers).take(encoded.indices)
        return (np.asarray(found.flatten()),
                np.diff(np.asarray(found.offsets)[np.asarray(cut.offsets)]))

    def _look_up(self, pieces: list[str]) -> list[tuple[int, ...]]:
        """The numbers of the words that each piece holds."""
        known, number = self._pieces, self._number.get
        if len(known) > _REMEMBERED:  # hostile input must not grow the memory without end
            known = self._pieces = {}
        held = list(map(known.get, pieces))
        new = [at for at, found in enumerate(held) if found is None]
        for at in new:
            piece = pieces[at]
            if piece.isdigit():  # holds no word, and texts have many different ones
                held[at] = ()
                continue
            held[at] = found = tuple([number(word, self._other) for word in words(piece)])
            if len(piece) <= _LONGEST_REMEMBERED:
                known[piece] = found
        return held  # type: ignore[return-value]  # nothing is None any more


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
