"""Terms of many texts at once.

The same words as `jobmatch_pyfunc.text` finds one text at a time, but in columns: polars' regex
splits the texts, each distinct word is made a term once, and counting is a grouped sum. The
vectoriser is scikit-learn's in all but the tokenising: `TfidfVectorizer` with an analyzer of terms
gives the same vocabulary, idf and weights (a test compares them).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from jobmatch_pyfunc.text import WORD, term_of

CHUNK_CHARACTERS = 8_000_000
"""Texts are handled in chunks of about this size, which bounds the memory."""


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


def tokenise(texts: Sequence[str], report: Callable[[float], None] = lambda _: None) -> Tokens:
    """Split every text into words. `report` is told the share done (0..1)."""
    words: dict[str, int] = {}
    counts, ids = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    for begin, end in _chunks(texts):
        lowered = pl.Series(texts[begin:end], dtype=pl.String).str.to_lowercase()
        found = lowered.str.extract_all(WORD)
        counts.append(found.list.len().to_numpy().astype(np.int64))
        flat = found.explode(empty_as_null=False).to_arrow().dictionary_encode()
        local = flat.dictionary.to_pylist()
        numbers = np.fromiter(
            (words.setdefault(word, len(words)) for word in local), np.int64, len(local)
        )
        ids.append(numbers[np.asarray(flat.indices)].astype(np.int32))
        report(end / len(texts))
    return _as_terms(words, np.concatenate(counts), np.concatenate(ids))


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    begin, size = 0, 0
    for end, text in enumerate(texts, 1):
        size += len(text)
        if size >= CHUNK_CHARACTERS or end == len(texts):
            yield begin, end
            begin, size = end, 0


def _as_terms(words: dict[str, int], counts: NDArray, ids: NDArray) -> Tokens:
    """From words to terms: stop words fall away, forms of one stem become one."""
    frequency = np.bincount(ids.astype(np.int64), minlength=len(words))
    terms: dict[str, int] = {}
    written: list[str] = []
    best: list[int] = []
    term_of_word = np.full(len(words), -1, np.int32)
    for number, word in enumerate(words):
        term = term_of(word)
        if not term:
            continue
        at = terms.setdefault(term, len(terms))
        if at == len(written):
            written.append(word)
            best.append(frequency[number])
        elif frequency[number] > best[at]:
            written[at], best[at] = word, frequency[number]
        term_of_word[number] = at
    found = term_of_word[ids.astype(np.int64)]
    text = np.repeat(np.arange(len(counts)), counts.astype(np.int64))
    kept = found >= 0
    lengths = np.bincount(text[kept], minlength=len(counts))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Tokens(offsets, found[kept], list(terms), written)


@dataclass(frozen=True)
class Vocabulary:
    """The terms that a vectoriser knows, in the order of its columns."""

    terms: list[str]
    written: list[str]
    keys: NDArray[np.int64]
    """A word's number, or (first + 1) · 2³¹ + second for two in a row; one a column."""


def fit_vocabulary(
    tokens: Tokens,
    documents: sp.csr_matrix,
    *,
    ngrams: tuple[int, int],
    min_df: int,
    max_df: float,
    max_features: int,
) -> Vocabulary:
    """The most frequent terms of some documents, as scikit-learn's CountVectorizer chooses them.

    documents: (documents × texts) 0/1; a document is the texts it names, one after the other.
    min_df: number of documents a term must be in; max_df: share of documents it may be in.
    """
    totals = _totals(tokens, documents, (1, 1), np.arange(len(tokens.terms)))
    allowed = _within(totals, documents.shape[0], min_df, max_df)
    if ngrams[1] > 1:
        # A pair is in no more documents, and no more often, than either of its words: with at
        # least max_features words above a count, no pair of a rarer word can be chosen.
        frequent = totals.filter(pl.col("documents") >= min_df).sort("count", descending=True)
        least = frequent["count"][min(max_features, frequent.height) - 1] if frequent.height else 0
        kept = frequent.filter(pl.col("count") >= least)["key"].to_numpy()
        pairs = _totals(tokens, documents, (2, 2), np.sort(kept))
        pairs = _within(pairs, documents.shape[0], min_df, max_df)
        allowed = pl.concat([allowed, pairs]) if ngrams[0] == 1 else pairs
    chosen = (
        allowed.sort(["count", "key"], descending=[True, False])
        .head(max_features)["key"].sort().to_numpy()
    )
    return Vocabulary(
        [_name(key, tokens.terms) for key in chosen],
        [_name(key, tokens.written) for key in chosen],
        chosen,
    )


_PAIR = 1 << 31


def _name(key: int, names: list[str]) -> str:
    first, second = divmod(int(key), _PAIR)
    return f"{names[first - 1]} {names[second]}" if first else names[second]


def _occurrences(
    tokens: Tokens, begin: int, end: int, ngrams: tuple[int, int], known: NDArray[np.bool_]
) -> pl.DataFrame:
    """Every occurrence of a known word, or of two in a row, in texts begin..end: (text, key).

    The key of a word is its number, that of a pair is (first + 1) · 2³¹ + second.
    """
    ids = tokens.ids[tokens.offsets[begin]:tokens.offsets[end]].astype(np.int64)
    text = np.repeat(
        np.arange(begin, end, dtype=np.int32), np.diff(tokens.offsets[begin:end + 1])
    )
    texts, keys = [], []
    if ngrams[0] == 1:
        kept = known[ids]
        texts.append(text[kept])
        keys.append(ids[kept])
    if ngrams[1] == 2 and len(ids) > 1:
        kept = (text[1:] == text[:-1]) & known[ids[1:]] & known[ids[:-1]]
        texts.append(text[1:][kept])
        keys.append((ids[:-1][kept] + 1) * _PAIR + ids[1:][kept])
    if not texts:
        texts, keys = [text[:0]], [ids[:0]]
    return pl.DataFrame({"text": np.concatenate(texts), "key": np.concatenate(keys)})


def _token_chunks(tokens: Tokens) -> Iterator[tuple[int, int]]:
    step = max(1, int(4_000_000 * len(tokens) / max(len(tokens.ids), 1)))
    for begin in range(0, len(tokens), step):
        yield begin, min(begin + step, len(tokens))


def _totals(
    tokens: Tokens, documents: sp.csr_matrix, ngrams: tuple[int, int], words: NDArray
) -> pl.DataFrame:
    """key, count over all documents, number of documents; for the given words only."""
    known = np.zeros(len(tokens.terms), bool)
    known[words] = True
    by_text = documents.tocsc()
    membership = pl.DataFrame(
        {
            "text": np.repeat(np.arange(len(tokens), dtype=np.int32), np.diff(by_text.indptr)),
            "document": by_text.indices.astype(np.int64),
        }
    )
    parts = []
    for begin, end in _token_chunks(tokens):
        rows = _occurrences(tokens, begin, end, ngrams, known)
        counted = rows.group_by("text", "key").len("count")
        parts.append(
            counted.join(membership, on="text")
            .group_by("document", "key").agg(pl.col("count").sum())
        )
    if not parts:
        return pl.DataFrame(schema={"key": pl.Int64, "count": pl.UInt32, "documents": pl.UInt32})
    return (  # a document's texts may lie in two chunks, hence the sum over documents first
        pl.concat(parts).group_by("document", "key").agg(pl.col("count").sum())
        .group_by("key").agg(pl.col("count").sum(), documents=pl.len())
    )


def _within(totals: pl.DataFrame, documents: int, min_df: int, max_df: float) -> pl.DataFrame:
    return totals.filter(pl.col("documents").is_between(min_df, max_df * documents))


def vocabulary_of(tokens: Tokens, terms: list[str]) -> Vocabulary:
    """A given vocabulary, such as a fitted version's, over these tokens.

    A term that no text holds keeps its column; it never occurs.
    """
    number = {term: i for i, term in enumerate(tokens.terms)}
    keys = np.empty(len(terms), np.int64)
    for column, term in enumerate(terms):
        found = [number.get(word, -1) for word in term.split(" ")]
        if -1 in found:
            keys[column] = -1 - column
        else:
            keys[column] = found[0] if len(found) == 1 else (found[0] + 1) * _PAIR + found[1]
    return Vocabulary(terms, [], keys)


def count_matrix(tokens: Tokens, vocabulary: Vocabulary) -> sp.csr_matrix:
    """How often each term of the vocabulary occurs in each text: (texts × terms), float32."""
    known = np.zeros(len(tokens.terms), bool)
    firsts, seconds = np.divmod(vocabulary.keys[vocabulary.keys >= 0], _PAIR)
    ngrams = (1, 2 if firsts.any() else 1)
    known[seconds] = True
    known[firsts[firsts > 0] - 1] = True
    columns = pl.DataFrame(
        {"key": vocabulary.keys, "column": np.arange(len(vocabulary.keys), dtype=np.int32)}
    )
    blocks = []
    for begin, end in _token_chunks(tokens):
        rows = _occurrences(tokens, begin, end, ngrams, known)
        counted = rows.join(columns, on="key").group_by("text", "column").len("count")
        blocks.append(
            sp.csr_matrix(
                (
                    counted["count"].to_numpy().astype(np.float32),
                    (counted["text"].to_numpy() - begin, counted["column"].to_numpy()),
                ),
                shape=(end - begin, len(vocabulary.terms)),
            )
        )
    if not blocks:
        return sp.csr_matrix((0, len(vocabulary.terms)), dtype=np.float32)
    counts = sp.vstack(blocks, format="csr")
    counts.sort_indices()
    return counts


def document_frequency_idf(counts: sp.csr_matrix) -> NDArray[np.float64]:
    """Smoothed inverse document frequency, ln((1 + n) / (1 + df)) + 1, as in scikit-learn's
    TfidfTransformer."""
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    return np.log((1 + counts.shape[0]) / (1 + frequency)) + 1
