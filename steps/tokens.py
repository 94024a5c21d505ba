"""Terms of many texts at once.

The same words as `jobmatch_pyfunc.text` finds one text at a time, but in columns: texts are cut as
`jobmatch_pyfunc.counting` does it, each distinct word is made a term once, and counts are sparse
matrices. The vectoriser is scikit-learn's in all but the tokenising: `TfidfVectorizer` with an
analyzer of terms gives the same vocabulary, idf and weights (a test compares them).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise, repeat
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from jobmatch_pyfunc.counting import (
    LONGEST_REMEMBERED,
    NEW,
    NONE,
    TOGETHER,
    Pieces,
    bare_pieces,
    blocks,
    cut,
    words_of,
)
from jobmatch_pyfunc.scoring import with_data
from jobmatch_pyfunc.text import terms_of, words_as_written

CHUNK_WORDS = 2_000_000
"""Words are counted in chunks of about this size: only their pairs are in memory together."""


@dataclass(frozen=True)
class Tokens:
    """The words of many texts: those of text i are `ids[offsets[i]:offsets[i + 1]]`."""

    offsets: NDArray[np.int64]
    ids: NDArray[np.int32]
    terms: list[str]
    written: list[str]
    """The most frequent way in which each term is written."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, begin: int, end: int) -> NDArray[np.int32]:
        """The words of texts begin..end, one text after the other."""
        return self.ids[self.offsets[begin]:self.offsets[end]]

    def lengths(self, begin: int, end: int) -> NDArray[np.int64]:
        """How many words each of the texts begin..end has."""
        return np.diff(self.offsets[begin:end + 1])


def tokenise(
    texts: pl.Series, report: Callable[[float], None] = lambda _: None
) -> Tokens:
    """Split every text into words. `report` is told the share done (0..1)."""
    numbers = _Numbers()
    found, done = [], 0
    every = blocks(texts.str.len_bytes().to_numpy())
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # arrow lets go of the interpreter's lock
        def cut_next() -> list[Future[Pieces]]:
            return [threads.submit(lambda block: cut(texts[block].to_arrow()), block)
                    for block in islice(every, TOGETHER)]

        cutting = cut_next()
        while cutting:
            some = [future.result() for future in cutting]
            cutting = cut_next()  # while the words of these are numbered
            bare, of_blocks = bare_pieces(some)
            codes = numbers.codes(bare.to_pylist())
            for block, number in zip(some, of_blocks, strict=True):
                found.append(threads.submit(
                    _terms_only, block, codes[number], numbers.several, numbers.term_of_word))
                done += len(block.bounds) - 1
            report(done / len(texts) if len(texts) else 1)
        parts = [future.result() for future in found]
    per_text, ids, words, frequency = zip(*parts, strict=True)
    return Tokens(np.concatenate([[0], np.cumsum(np.concatenate(per_text))]), np.concatenate(ids),
                  list(numbers.terms),
                  numbers.written(np.concatenate(words), np.concatenate(frequency)))


def _terms_only(
    pieces: Pieces, codes: NDArray[np.int32], several: Sequence[tuple[int, ...]],
    term_of_word: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """How many words of each text are terms, and the numbers of those terms; the words that occur,
    and how often. Words without a term fall away. `codes` are those of the distinct pieces."""
    word, per_text = words_of(codes[pieces.number], pieces.bounds, several)
    found = term_of_word[word]
    kept = found >= 0
    before = np.concatenate([[0], np.cumsum(kept)])
    ends = np.concatenate([[0], np.cumsum(per_text)])
    frequency = np.bincount(word)
    told = np.flatnonzero(frequency)
    return np.diff(before[ends]), found[kept], told, frequency[told]


class _Numbers:
    """Numbers of words and of their terms, in the order in which they are met."""

    def __init__(self) -> None:
        self.terms: dict[str, int] = {}
        self.several: list[tuple[int, ...]] = []
        self.term_of_word = np.zeros(0, np.int32)
        """−1 where the word carries no meaning. Another array after each call of `codes`."""
        self._words: dict[str, int] = {}
        self._codes: dict[str, int] = {}

    def codes(self, pieces: list[str]) -> NDArray[np.int32]:
        """What each of some distinct pieces holds, as `words_of` reads it."""
        codes = np.fromiter(map(self._codes.get, pieces, repeat(NEW)), np.int32, len(pieces))
        new = np.flatnonzero(codes == NEW)
        known = len(self._words)
        codes[new] = [self._code(pieces[at]) for at in new.tolist()]
        terms = terms_of(list(islice(self._words, known, None)))
        found = [self.terms.setdefault(term, len(self.terms)) if term else -1 for term in terms]
        self.term_of_word = np.append(self.term_of_word, np.array(found, np.int32))
        return codes

    def _code(self, piece: str) -> int:
        """The code of a piece that is not known."""
        if piece.isalpha() and piece.isascii():  # in lower case: it is one word
            code = self._words.setdefault(piece, len(self._words))
        elif piece.isdecimal():  # it holds no word, and texts have many different ones
            code = NONE
        else:
            held = [self._words.setdefault(word, len(self._words))
                    for word in words_as_written(piece)]
            if len(held) > 1:
                self.several.append(tuple(held))
            code = NONE - len(self.several) if len(held) > 1 else held[0] if held else NONE
        if len(piece) <= LONGEST_REMEMBERED:
            self._codes[piece] = code
        return code

    def written(self, told: NDArray[np.int64], frequency: NDArray[np.int64]) -> list[str]:
        """The most frequent word of each term; of equals the one met first. told, frequency: words,
        and how often each occurs, which may come several times."""
        total = np.bincount(told, frequency, len(self._words))
        words = list(self._words)
        order = np.lexsort((np.arange(len(words)), -total))
        order = order[self.term_of_word[order] >= 0]
        first = np.unique(self.term_of_word[order], return_index=True)[1]
        return [words[number] for number in order[first]]


@dataclass(frozen=True)
class Vocabulary:
    """The terms that a vectoriser knows, in the order of its columns."""

    terms: list[str]
    keys: NDArray[np.int64]
    """A word's number, or (first + 1) · 2³¹ + second for two in a row; one a column. Negative
    where no text holds the term."""


@dataclass(frozen=True)
class TermCounts:
    """How often each word, and each two words in a row, occurs in each text."""

    terms: list[str]
    """Of the words."""
    keys: NDArray[np.int64]
    """Of the columns, ascending, as in `Vocabulary`."""
    matrix: sp.csr_matrix
    """(texts × keys), float32."""


def count_all(tokens: Tokens, documents: sp.csr_matrix, min_df: int) -> TermCounts:
    """Counts of everything that a vocabulary of these documents, or of some of them, can hold.

    documents: (documents × texts) 0/1; a document is the texts it names, one after the other.
    Counted once, so that choosing a vocabulary is a sum over rows and counting it a choice of
    columns.
    """
    used_in = np.bincount(documents.indices, minlength=len(tokens)).astype(np.float64)
    chunks, words = list(_token_chunks(tokens)), len(tokens.terms)
    occurrences = np.zeros(words)
    for chunk in chunks:
        weights = np.repeat(used_in[slice(*chunk)], tokens.lengths(*chunk))
        occurrences += np.bincount(tokens.of(*chunk), weights, words)
    known = occurrences >= min_df  # what is in so many documents occurs at least so often

    def pairs(chunk: tuple[int, int]) -> tuple[_Pairs, pl.DataFrame]:
        found = _pairs(tokens, *chunk, known)
        weight = np.bincount(found.code, used_in[chunk[0] + found.row], len(found.distinct))
        return found, pl.DataFrame({"key": found.distinct, "weight": weight.astype(np.float64)})

    def counts(chunk: tuple[int, int], found: _Pairs) -> sp.csr_matrix:
        row, column = _in_columns(found, keys, words + np.arange(len(keys)))
        return _csr(np.concatenate([_rows(tokens, *chunk), row]),
                    np.concatenate([tokens.of(*chunk), column]),
                    (chunk[1] - chunk[0], words + len(keys)))

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # as in `tokenise`, and so does scipy
        every, weighted = zip(*threads.map(pairs, chunks), strict=True)
        totals = pl.concat(weighted).group_by("key").agg(pl.col("weight").sum())
        keys = totals.filter(pl.col("weight") >= min_df)["key"].sort().to_numpy()
        return TermCounts(tokens.terms, np.concatenate([np.arange(words), keys]),
                          sp.vstack(list(threads.map(counts, chunks, every)), format="csr"))


def fit_vocabulary(
    counted: TermCounts,
    documents: sp.csr_matrix,
    *,
    ngrams: tuple[int, int],
    min_df: int,
    max_df: float,
    max_features: int,
) -> tuple[Vocabulary, NDArray[np.float64]]:
    """The most frequent terms of some documents, as scikit-learn's CountVectorizer chooses them,
    and the smoothed inverse document frequency of each, ln((1 + n) / (1 + df)) + 1, as in its
    TfidfTransformer.

    documents: as for `count_all`, or some of them; min_df: number of documents a term must be in;
    max_df: share of documents it may be in.
    """
    used_in = np.bincount(documents.indices, minlength=documents.shape[1]).astype(np.float64)
    total = counted.matrix.T @ used_in
    in_documents = _document_frequency(counted.matrix, documents)
    is_pair = counted.keys >= _PAIR
    wanted = np.where(is_pair, ngrams[1] == 2, ngrams[0] == 1)
    allowed = np.flatnonzero(
        wanted & (in_documents >= min_df) & (in_documents <= max_df * documents.shape[0])
        & (in_documents > 0))
    chosen = np.sort(allowed[np.argsort(-total[allowed], kind="stable")[:max_features]])
    keys = counted.keys[chosen]
    idf = np.log((1 + documents.shape[0]) / (1 + in_documents[chosen])) + 1
    return Vocabulary(_names(keys, counted.terms), keys), idf


def _document_frequency(counts: sp.csr_matrix, documents: sp.csr_matrix) -> NDArray[np.int64]:
    """In how many of the documents each column occurs."""
    several = np.diff(documents.indptr) > 1
    found = np.bincount((documents[several] @ counts).indices, minlength=counts.shape[1])
    # most documents are one text, as every CV is: a sum instead of a product
    alone = np.bincount(documents[~several].indices, minlength=documents.shape[1])
    return found + with_data(counts, np.ones(counts.nnz, np.int8)).T @ alone


def columns_of(counted: TermCounts, vocabulary: Vocabulary) -> sp.csr_matrix:
    """Counts of a vocabulary that was fitted on them: (texts × terms), float32."""
    return counted.matrix[:, np.searchsorted(counted.keys, vocabulary.keys)]


_PAIR = 1 << 31


def _names(keys: NDArray[np.int64], words: list[str]) -> list[str]:
    """The terms with these keys."""
    firsts, seconds = np.divmod(keys, _PAIR)
    return [f"{words[first - 1]} {words[second]}" if first else words[second]
            for first, second in zip(firsts.tolist(), seconds.tolist(), strict=True)]


class _Pairs(NamedTuple):
    """Every two known words in a row in some texts."""

    row: NDArray[np.int32]
    """The text that holds each, counted from the first."""
    code: NDArray[np.int32]
    """Which of the distinct ones it is."""
    distinct: NDArray[np.int64]
    """Keys."""


def _pairs(tokens: Tokens, begin: int, end: int, known: NDArray[np.bool_]) -> _Pairs:
    """Those in texts begin..end."""
    ids, row = tokens.of(begin, end), _rows(tokens, begin, end)
    kept = (row[1:] == row[:-1]) & known[ids[1:]] & known[ids[:-1]]
    key = (ids[:-1][kept].astype(np.int64) + 1) * _PAIR + ids[1:][kept]
    told_apart = pa.array(key).dictionary_encode()
    return _Pairs(row[1:][kept], np.asarray(told_apart.indices), np.asarray(told_apart.dictionary))


def _rows(tokens: Tokens, begin: int, end: int) -> NDArray[np.int32]:
    """The text of each word in texts begin..end, counted from the first."""
    return np.repeat(np.arange(end - begin, dtype=np.int32), tokens.lengths(begin, end))


def _in_columns(
    pairs: _Pairs, keys: NDArray[np.int64], columns: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Row and column of those pairs that are among the keys; columns: one a key."""
    of_key = pl.DataFrame({"key": keys, "column": columns.astype(np.int32)})
    of_distinct = (
        pl.DataFrame({"key": pairs.distinct})
        .join(of_key, on="key", how="left", maintain_order="left")["column"].fill_null(-1)
    )
    column = of_distinct.to_numpy()[pairs.code]
    kept = column >= 0
    return pairs.row[kept], column[kept]


def _token_chunks(tokens: Tokens) -> Iterator[tuple[int, int]]:
    """Texts with about as many words each, a chunk for each core where they are few: every chunk
    looks its pairs up anew. At least one, which may be empty."""
    words = min(CHUNK_WORDS, 1 + len(tokens.ids) // (os.cpu_count() or 1))
    starts = np.searchsorted(tokens.offsets, np.arange(words, len(tokens.ids), words))
    yield from pairwise([0, *np.unique(starts[starts < len(tokens)]).tolist(), len(tokens)])


def _csr(
    rows: NDArray[np.int32], columns: NDArray[np.int32], shape: tuple[int, int]
) -> sp.csr_matrix:
    """How often each row and column is listed, float32: by column first, as two passes over them
    are faster than sorting each row's."""
    ones = np.ones(len(rows), np.float32)
    return sp.csc_matrix((ones, (rows, columns)), shape=shape).tocsr()


def vocabulary_of(tokens: Tokens, terms: list[str]) -> Vocabulary:
    """A given vocabulary, such as a fitted version's, over these tokens.

    A term that no text holds keeps its column; it never occurs.
    """
    number = {term: i for i, term in enumerate(tokens.terms)}
    keys = np.full(len(terms), -1, np.int64)
    for column, term in enumerate(terms):
        found = [number.get(word, -1) for word in term.split(" ")]
        if -1 not in found:
            keys[column] = found[0] if len(found) == 1 else (found[0] + 1) * _PAIR + found[1]
    return Vocabulary(terms, keys)


def count_matrix(tokens: Tokens, vocabulary: Vocabulary) -> sp.csr_matrix:
    """How often each term of the vocabulary occurs in each text: (texts × terms), float32."""
    keys, width = vocabulary.keys, len(vocabulary.keys)
    single, double = np.flatnonzero((keys >= 0) & (keys < _PAIR)), np.flatnonzero(keys >= _PAIR)
    column_of_word = np.full(len(tokens.terms), -1, np.int32)
    column_of_word[keys[single]] = single
    known = np.zeros(len(tokens.terms), bool)
    firsts, seconds = np.divmod(keys[double], _PAIR)
    known[firsts - 1] = known[seconds] = True

    def counts(chunk: tuple[int, int]) -> sp.csr_matrix:
        column = column_of_word[tokens.of(*chunk)]
        kept = column >= 0
        row, of_pair = _in_columns(_pairs(tokens, *chunk, known), keys[double], double)
        return _csr(np.concatenate([_rows(tokens, *chunk)[kept], row]),
                    np.concatenate([column[kept], of_pair]), (chunk[1] - chunk[0], width))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return sp.vstack(list(threads.map(counts, _token_chunks(tokens))), format="csr")
