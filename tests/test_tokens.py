"""Terms of many texts at once: the same as one text at a time, and as scikit-learn counts them."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from jobmatch_pyfunc import counting
from jobmatch_pyfunc.text import count_terms, words
from steps import tokens as columnar
from steps.tokens import (
    Tokens,
    Vocabulary,
    columns_of,
    count_all,
    count_matrix,
    fit_vocabulary,
    vocabulary_of,
)

UNLIMITED = 10**9
WORDS = ["java", "x" * 41, "k", "é", "Gestão", "gestao", "gestões", "c++", "C#", "sql",
         "projetos", "projeto", "de", "a", "2019", "s/4hana", ".net", "análise", "SAP", "•", "\n",
         "ação"]  # fmt: skip
plausible = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)
anything = st.text(max_size=40)
awkward = st.text(alphabet="aÃãéÇçßİıſKΣσ\u0301ﬁªº+#_-.,0129 \n\t\u00a0\u2028😀", max_size=40)
texts = st.lists(plausible | anything | awkward, max_size=12)


def tokenise(
    some: Sequence[str], report: Callable[[float], None] = lambda _: None
) -> Tokens:
    return columnar.tokenise(pl.Series(some, dtype=pl.String), report)


def terms_of(tokens: Tokens, text: int) -> list[str]:
    return [tokens.terms[i] for i in tokens.ids[tokens.offsets[text]:tokens.offsets[text + 1]]]


def each_a_document(tokens: Tokens) -> sp.csr_matrix:
    return sp.eye(len(tokens), dtype=np.float32, format="csr")


def fitted_on(
    tokens: Tokens, documents: sp.csr_matrix, **limits: Any
) -> tuple[Vocabulary, NDArray[np.float64]]:
    counted = count_all(tokens, documents, limits["min_df"])
    vocabulary, idf = fit_vocabulary(counted, documents, **limits)
    chosen, counts = columns_of(counted, vocabulary), count_matrix(tokens, vocabulary)
    np.testing.assert_array_equal(chosen.toarray(), counts.toarray())
    return vocabulary, idf


def vocabulary_from(tokens: Tokens, documents: sp.csr_matrix, **limits: Any) -> Vocabulary:
    return fitted_on(tokens, documents, **limits)[0]


def pairs_too(text: str) -> list[str]:
    """The terms of a text: an analyzer for scikit-learn."""
    return list(count_terms(text).elements())


@given(texts)
def test_words_are_those_of_one_text_at_a_time(some: list[str]) -> None:
    tokens = tokenise(some)
    assert [terms_of(tokens, i) for i in range(len(tokens))] == [words(text) for text in some]


@given(texts)
def test_blocks_change_nothing(some: list[str]) -> None:
    whole = tokenise(some)
    with pytest.MonkeyPatch().context() as small:
        small.setattr(counting, "BLOCK_BYTES", 1)
        parts = tokenise(some)
    assert parts.terms == whole.terms
    assert parts.written == whole.written
    np.testing.assert_array_equal(parts.ids, whole.ids)
    np.testing.assert_array_equal(parts.offsets, whole.offsets)


@settings(deadline=None)
@given(texts, st.integers(1, 5))
def test_chunks_of_words_change_no_count(some: list[str], size: int) -> None:
    tokens = tokenise(some)
    with pytest.MonkeyPatch().context() as small:
        small.setattr(os, "cpu_count", lambda: 1)
        whole = count_all(tokens, each_a_document(tokens), 1)
        small.setattr(columnar, "CHUNK_WORDS", size)
        parts = count_all(tokens, each_a_document(tokens), 1)
    np.testing.assert_array_equal(parts.keys, whole.keys)
    np.testing.assert_array_equal(parts.matrix.toarray(), whole.matrix.toarray())


def test_progress_is_reported_up_to_the_whole() -> None:
    told: list[float] = []
    tokenise(["java sql", "", "python"], told.append)
    assert told[-1] == 1


def test_a_term_is_written_as_most_texts_write_it() -> None:
    tokens = tokenise(["gestao gestão", "gestão", "Gestao gestão"])
    assert tokens.written == ["gestão"]


@settings(deadline=None)
@given(texts, st.integers(1, 3), st.sampled_from([0.4, 0.8, 1.0]))
def test_vocabulary_idf_and_weights_are_those_of_scikit_learn(
    some: list[str], min_df: int, max_df: float
) -> None:
    tokens = tokenise(some)
    vocabulary, idf = fitted_on(tokens, each_a_document(tokens), ngrams=(1, 2), min_df=min_df,
                                max_df=max_df, max_features=UNLIMITED)  # fmt: skip
    try:
        theirs = TfidfVectorizer(analyzer=pairs_too, min_df=min_df, max_df=max_df).fit(some)
    except ValueError:  # scikit-learn will not have an empty vocabulary
        assert vocabulary.terms == []
        return
    names = theirs.get_feature_names_out()
    assert sorted(vocabulary.terms) == sorted(names)
    columns = [vocabulary.terms.index(name) for name in names]
    counts = count_matrix(tokens, vocabulary)
    np.testing.assert_allclose(idf[columns], theirs.idf_, rtol=1e-12)
    assert_counts(counts, vocabulary.terms, some)


@pytest.mark.parametrize("ngrams", [(1, 1), (2, 2), (1, 2)])
def test_ngram_range_chooses_words_and_pairs(ngrams: tuple[int, int]) -> None:
    tokens = tokenise(["java sql python", "sql python"])
    vocabulary = vocabulary_from(tokens, each_a_document(tokens), ngrams=ngrams, min_df=1,
                                max_df=1.0, max_features=UNLIMITED)  # fmt: skip
    theirs = TfidfVectorizer(ngram_range=ngrams, analyzer="word").fit(
        [" ".join(words(text)) for text in ["java sql python", "sql python"]])  # fmt: skip
    assert sorted(vocabulary.terms) == sorted(theirs.get_feature_names_out())


@given(st.lists(plausible, min_size=1, max_size=12), st.integers(1, 12))
def test_max_features_keeps_the_most_frequent(some: list[str], size: int) -> None:
    tokens = tokenise(some)
    vocabulary = vocabulary_from(tokens, each_a_document(tokens), ngrams=(1, 2), min_df=1,
                                max_df=1.0, max_features=size)  # fmt: skip
    total = Counter(term for text in some for term in count_terms(text).elements())
    assert len(vocabulary.terms) == min(size, len(total))
    kept = sorted((total[term] for term in vocabulary.terms), reverse=True)
    assert kept == sorted(total.values(), reverse=True)[:size]


def test_a_document_of_several_texts_counts_once_but_pairs_do_not_cross_texts() -> None:
    tokens = tokenise(["java sql", "sql java", "python"])
    documents = sp.csr_matrix(np.array([[1, 1, 0], [0, 0, 1]], np.float32))
    vocabulary = vocabulary_from(tokens, documents, ngrams=(1, 2), min_df=1, max_df=1.0,
                                max_features=UNLIMITED)  # fmt: skip
    assert sorted(vocabulary.terms) == ["jav", "jav sql", "python", "sql", "sql jav"]
    once = vocabulary_from(tokens, documents, ngrams=(1, 1), min_df=2, max_df=1.0,
                          max_features=UNLIMITED)  # fmt: skip
    assert once.terms == []


@given(texts, texts)
def test_another_corpus_vocabulary_counts_the_same(some: list[str], others: list[str]) -> None:
    other = tokenise(others)
    terms = vocabulary_from(other, each_a_document(other), ngrams=(1, 2), min_df=1, max_df=1.0,
                           max_features=UNLIMITED).terms  # fmt: skip
    tokens = tokenise(some)
    assert_counts(count_matrix(tokens, vocabulary_of(tokens, terms)), terms, some)


def assert_counts(counts: sp.csr_matrix, terms: Sequence[str], some: Sequence[str]) -> None:
    assert counts.shape == (len(some), len(terms))
    for row, text in zip(counts.toarray(), some, strict=True):
        one = count_terms(text)
        assert row.tolist() == [one[term] for term in terms]
