"""Turn the tables into numbers: split, tokens, vocabularies, latent space.

Reads   the tables of ingest (brought about if they are not there yet)
Writes  arrays.npz, names.json   records, pairs and tokens, numbered
        holdout/, final/         vocabulary, idf and latent space of the two parts
Logs    split date, sizes, seconds

The split is by time and by vacancy: the latest vacancies, holding about `test_size` of the pairs
with a CV, are held out. `holdout` is fitted on nothing that belongs to them only.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse.linalg import LinearOperator, eigsh
from threadpoolctl import threadpool_limits

from jobmatch_pyfunc.model import HOLDOUT, SHIPPED
from jobmatch_pyfunc.scoring import (
    Floats,
    Space,
    lengths,
    tf_idf,
    unit_rows,
    vacancy_vectors,
    with_data,
)
from steps import features as feature_files
from steps import ingest, reuse
from steps.beside import beside
from steps.corpus import (
    Corpus,
    Pairs,
    candidates_seen,
    corpus_of,
    drawn,
    has_cv,
    pairs_of,
    row_batches,
)
from steps.failure import StepError
from steps.features import Features
from steps.ingest import IngestParameters
from steps.leaks import require_allowed
from steps.parameters import NgramRange, select
from steps.progress import Progress
from steps.session import run_step
from steps.tokens import (
    TermCounts,
    columns_of,
    count_all,
    fit_vocabulary,
    tokenise,
)

SLOPE = 0.75
"""Slope of the pivoted length normalisation (docs/experiments.md)."""
LATENT_POWER = 0.3
"""Dimensions weigh as their singular values to this power (docs/experiments.md)."""
EIGEN_TOLERANCE = 1e-3
"""Of ARPACK: the cosine of its eigenvectors with the exact ones is then at least 1 − 1e-6, as
with 0."""
NO_DIMENSION = 1e-3
"""Singular values below this share of the largest are rounding: the histories have fewer
dimensions."""
LATENT_DOCUMENTS = 6_000
"""At most so many histories are drawn to fit the latent space, more than the real records hold:
more change nothing on made-up ones (docs/experiments.md)."""


class FeaturizeParameters(IngestParameters):
    test_size: float = Field(gt=0, lt=1)
    random_state: int = Field(ge=0, lt=2**32)
    tfidf_job_description_max_features: int = Field(ge=1)
    tfidf_job_description_ngram_range: NgramRange
    tfidf_job_requirements_max_features: int = Field(ge=1)
    tfidf_job_requirements_ngram_range: NgramRange
    tfidf_candidate_cv_max_features: int = Field(ge=1)
    tfidf_candidate_cv_ngram_range: NgramRange
    min_df: int = Field(ge=1)
    max_df: float = Field(gt=0, le=1)
    vocabulary_max_features: int = Field(ge=1)
    vocabulary_ngram_range: NgramRange
    latent_dimensions: int = Field(ge=1, le=500)


def split_by_time(
    dates: NDArray[np.datetime64], pairs: Pairs, test_size: float
) -> tuple[NDArray[np.bool_], np.datetime64]:
    """The held-out vacancies: the latest, from that day on which makes their share of the dated
    joined pairs come closest to `test_size`. A day is never divided, and the earliest is not held
    out, so where many pairs share a day the share may be far from it. Vacancies without a date are
    never held out.

    Raises StepError where one side would hold no pair or only one class.
    """
    joined = pairs.where(pairs.joined)
    days = dates[joined.vacancy]
    distinct, pairs_of_day = np.unique(days[~np.isnat(days)], return_counts=True)
    if not len(distinct):
        raise StepError("vagas.json: no vacancy with a candidate has a valid data_requicisao; "
                        "the split by time needs dates (dd-mm-yyyy)")
    share = np.cumsum(pairs_of_day[::-1])[::-1] / pairs_of_day.sum()
    distance = np.abs(share - test_size)
    distance[0] = np.inf  # the earliest day is to be learned from
    first_day = distinct[distance.argmin()]
    held_out = ~np.isnat(dates) & (dates >= first_day)
    for name, side in (("before", ~held_out), ("from", held_out)):
        classes = set(joined.hired[side[joined.vacancy]])
        if len(classes) < 2:
            raise StepError(
                f"prospects.json: {name} {first_day} (the split at test_size {test_size:g}) the "
                f"pairs with a CV are {'none' if not classes else 'of one class only'}; "
                "give more data or another test_size"
            )
    return held_out, first_day


def latent_space(
    counts: sp.csr_matrix, text_of_cv: NDArray[np.int64], pairs: Pairs, space: Space,
    bodies_and_titles: sp.csr_matrix, dimensions: int, seed: int,
) -> Floats:
    """The latent space: (terms × dimensions), fitted on people's histories.

    counts: (texts × terms); text_of_cv: each candidate's; bodies_and_titles: (vacancies × terms).

    A history is the sum of the vacancies that one person was put forward for, plus their CV where
    there is one, so that terms of jobs and of CVs that lead to each other lie close (LSA:
    Deerwester et al., 1990; by ARPACK: Lehoucq, Sorensen & Yang, 1998).
    """
    n_people = int(pairs.person.max()) + 1
    put_forward = sp.csr_matrix(
        (np.ones(len(pairs), np.float32), (pairs.person, pairs.vacancy)),
        shape=(n_people, bodies_and_titles.shape[0]),
    )
    cv_of = np.full(n_people, -1)
    cv_of[pairs.person] = pairs.candidate
    several = np.diff(put_forward.indptr) > 1
    generator = np.random.default_rng(seed)
    told = drawn(np.flatnonzero(several | (cv_of >= 0)), LATENT_DOCUMENTS, generator)
    jobs = put_forward[told] @ _single(bodies_and_titles)
    with_cv = np.flatnonzero(cv_of[told] >= 0)
    placed = sp.csr_matrix((np.ones(len(with_cv), np.float32), (with_cv, np.arange(len(with_cv)))),
                           shape=(len(told), len(with_cv)))
    cvs = placed @ _single(unit_rows(tf_idf(counts[text_of_cv[cv_of[told[with_cv]]]], space.idf)))
    # a person with a CV and several vacancies tells both what jobs and what CVs belong together
    extra = unit_rows(jobs[np.flatnonzero(several[told] & (cv_of[told] >= 0))])
    documents = sp.vstack([unit_rows((jobs + cvs).tocsr()), extra]).tocsr()
    dimensions = min(dimensions, min(documents.shape) - 1)
    if dimensions < 1 or not documents.nnz:
        return np.zeros((counts.shape[1], 1))
    return weighted_dimensions(documents, *largest_singular(documents, dimensions, generator))


def largest_singular(
    documents: sp.csr_matrix, dimensions: int, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The largest singular values, ascending, and their left singular vectors (rows ×
    dimensions): the eigenvectors of documents · documentsᵀ, which is the sum over two halves of the
    columns, each multiplied in a thread.

    To convergence: a randomised SVD that stops early ranks worse (docs/experiments.md). BLAS should
    have one thread: those of its own would wait busily on the core that scipy's need.
    """
    entries = np.cumsum(np.bincount(documents.indices, minlength=documents.shape[1]))
    middle = int(np.searchsorted(entries, documents.nnz / 2))
    first, second = documents[:, :middle], documents[:, middle:]
    first_t, second_t = first.T, second.T
    with ThreadPoolExecutor(1) as other:
        def gram(vector: NDArray[np.float32]) -> NDArray[np.float32]:
            beside = other.submit(lambda: second @ (second_t @ vector))
            mapped = first @ (first_t @ vector)
            mapped += beside.result()
            return mapped

        rows = documents.shape[0]
        values, vectors = eigsh(
            LinearOperator((rows, rows), gram, dtype=np.float32), dimensions,
            v0=generator.random(rows, np.float32), tol=EIGEN_TOLERANCE, rng=generator)
        told = values > 0
        return np.sqrt(values[told]), vectors[:, told]


def weighted_dimensions(
    documents: sp.csr_matrix, singular: NDArray[np.float32], left: NDArray[np.float32]
) -> Floats:
    """Right singular vectors (columns × dimensions), the strongest first, each times its singular
    value's share of the largest to the power of `LATENT_POWER`. singular, left: as
    `largest_singular` finds them; what is rounding is left out."""
    told = singular > NO_DIMENSION * singular.max()
    singular, left = singular[told][::-1], left[:, told][:, ::-1]
    # the right vectors are documentsᵀ · left / singular: weighted on the side that is small
    weighted = left * ((singular / singular.max()) ** LATENT_POWER / singular)
    latent = np.empty((documents.shape[1], len(singular)))

    def place(columns: slice) -> None:
        latent[:, columns] = documents.T @ weighted[:, columns]

    half = len(singular) // 2
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(place, (slice(half), slice(half, None))))  # raises what they raise
    return latent


def documents_of(corpus: Corpus, vacancies: NDArray, candidates: NDArray) -> sp.csr_matrix:
    """(documents × texts) 0/1: a document is a vacancy's title and body, or a CV."""
    texts = len(corpus.tokens)
    title_of = _one_hot(corpus.title[vacancies], texts)
    return sp.vstack(
        [((title_of + corpus.bodies[vacancies]) > 0).astype(np.float32),
         _one_hot(corpus.cv[candidates], texts)]
    ).tocsr()


@dataclass(frozen=True)
class WeightedTerms:
    """A vocabulary and the weights of its terms."""

    terms: list[str]
    counts: sp.csr_matrix
    """(texts × terms)."""
    space: Space
    """Without latent dimensions."""
    bodies_and_titles: sp.csr_matrix
    """Each vacancy's, weighted: (vacancies × terms)."""


def weigh_terms(
    corpus: Corpus, counted: TermCounts, vacancies: NDArray, candidates: NDArray,
    p: FeaturizeParameters,
) -> WeightedTerms:
    """Vocabulary and idf from the given vacancies and candidates."""
    documents = documents_of(corpus, vacancies, candidates)
    vocabulary, idf = fit_vocabulary(
        counted, documents, ngrams=p.vocabulary_ngram_range, min_df=p.min_df,
        max_df=p.max_df, max_features=p.vocabulary_max_features,
    )
    _require_terms(vocabulary.terms)
    distinct = columns_of(counted, vocabulary)
    corpus.remember_counts(vocabulary.terms, distinct)
    cvs = corpus.cv[candidates]
    pivot = float(np.concatenate([
        lengths(tf_idf(distinct[cvs[some]], idf)) for some in row_batches(len(cvs))]).mean())
    without = Space(idf, np.zeros((len(idf), 1)), np.eye(1), SLOPE, pivot)
    jobs = vacancy_vectors(distinct[corpus.title], corpus.bodies @ distinct, without)
    return WeightedTerms(vocabulary.terms, distinct, without, jobs.title + jobs.body)


def fit_space(
    weighted: WeightedTerms, corpus: Corpus, pairs: Pairs, p: FeaturizeParameters
) -> tuple[list[str], Space]:
    """Vocabulary, idf and, fitted on these pairs, the latent space."""
    latent = latent_space(
        weighted.counts, corpus.cv, pairs, weighted.space, weighted.bodies_and_titles,
        p.latent_dimensions, p.random_state)
    return weighted.terms, replace(  # `fit` learns the projection
        weighted.space, latent=latent, projection=np.eye(latent.shape[1]))


def described_vectorisers(
    corpus: Corpus, counted: TermCounts, pairs: Pairs, p: FeaturizeParameters
) -> dict[str, tuple[list[str], list[float]]]:
    """Terms and idf of the described model's three vectorisers, fitted on the texts of the
    training pairs."""
    fields = {
        "activities": (corpus.activities[pairs.vacancy], p.tfidf_job_description_max_features,
                       p.tfidf_job_description_ngram_range),
        "requirements": (corpus.requirements[pairs.vacancy], p.tfidf_job_requirements_max_features,
                         p.tfidf_job_requirements_ngram_range),
        "cv": (corpus.cv[pairs.candidate], p.tfidf_candidate_cv_max_features,
               p.tfidf_candidate_cv_ngram_range),
    }
    fitted = {}
    for name, (texts, size, ngrams) in fields.items():
        used = np.unique(texts)
        vocabulary, idf = fit_vocabulary(
            counted, _one_hot(used, len(corpus.tokens)), ngrams=ngrams, min_df=p.min_df,
            max_df=p.max_df, max_features=size)
        corpus.remember_counts(vocabulary.terms, columns_of(counted, vocabulary))
        fitted[name] = (vocabulary.terms, idf.tolist())
    _require_terms(fitted["cv"][0])  # a job's text may be missing everywhere
    return fitted


def result_digest(p: FeaturizeParameters) -> str:
    return reuse.step_digest("featurize", p, ingest.input_digests(p.data_dir))


def features_of(p: FeaturizeParameters) -> Features:
    """The features, from an earlier run where possible."""
    return reuse.bring_about(
        "featurize", result_digest(p), lambda: featurize(p), feature_files.read)


def featurize(p: FeaturizeParameters) -> Features:
    """Make the features and log them on the active run."""
    digest = result_digest(p)
    vacancies, candidates, listed = ingest.tables(select(IngestParameters, p))
    if result_digest(p) != digest:  # ingest may have read files that came after the digest
        raise ingest.changed(p.data_dir)
    progress = Progress({"splitting": 3, "tokenising": 25, "counting terms": 20,
                         "fitting the vectorisers": 20, "fitting the baseline vectorisers": 8,
                         "fitting ours on everything": 9, "logging the features": 15})
    progress.stage("splitting")
    for name, table in zip(ingest.TABLES, (vacancies, candidates, listed), strict=True):
        require_allowed(name, table)
    pairs = pairs_of(listed, vacancies, candidates)
    dates = vacancies["data_requicisao"].to_numpy().astype("datetime64[D]")
    held_out, first_day = split_by_time(dates, pairs, p.test_size)
    progress.stage("tokenising")
    texts, used = corpus_of(vacancies, candidates)
    filled, codes = has_cv(candidates), candidates["codigo"].to_list()
    del candidates  # its texts, once they are words
    corpus = Corpus(tokenise(texts, progress.within), **used)
    del texts
    progress.stage("counting terms")
    training = pairs.where(~held_out[pairs.vacancy])
    every = np.arange(len(dates)), np.flatnonzero(filled)
    counted = count_all(corpus.tokens, documents_of(corpus, *every), p.min_df)
    progress.stage("fitting the vectorisers")
    seen = np.flatnonzero(~held_out), candidates_seen(filled, pairs, training)
    with (
        beside(1) as other,
        threadpool_limits(1, "blas"),  # those of BLAS would take the core of the other work
    ):
        # a latent space is fitted on two cores: nothing runs beside the first, which the grid needs
        first = fit_space(weigh_terms(corpus, counted, *seen, p), corpus, training, p)
        progress.stage("fitting the baseline vectorisers")
        weighing = other.submit(weigh_terms, corpus, counted, *every, p)
        whole = other.submit(lambda: fit_space(weighing.result(), corpus, pairs, p))
        described = described_vectorisers(corpus, counted, training.where(training.joined), p)
        progress.stage("fitting ours on everything")
        parts = {HOLDOUT: first, SHIPPED: whole.result()}
    del counted
    progress.stage("logging the features")
    last_day = np.max(dates[~np.isnat(dates)])
    features = Features(
        vacancies["codigo"].to_list(), dates, held_out, codes, filled,
        pairs, str(first_day), str(last_day), corpus,
        {name: terms for name, (terms, _) in parts.items()},
        {name: space for name, (_, space) in parts.items()},
        described,
    )
    with TemporaryDirectory() as folder:
        feature_files.write(features, Path(folder))
        mlflow.log_artifacts(folder)
    mlflow.set_tag("jobmatch.split_date", str(first_day))
    mlflow.log_metrics({
        "distinct_texts": len(corpus.tokens),
        "words": len(corpus.tokens.ids),
        "vocabulary": len(parts[SHIPPED][0]),
        "held_out_vacancies": int(held_out.sum()),
        "held_out_pairs": int((held_out[pairs.vacancy] & pairs.joined).sum()),
    })
    progress.finish()
    print(f"{len(corpus.tokens):,} distinct texts, {len(corpus.tokens.ids):,} words, vacancies "
          f"from {first_day} on are held out")
    reuse.mark("featurize", digest)
    return features


def _single(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """In single precision; the matrix's own `astype` would sort its entries."""
    return with_data(matrix, matrix.data.astype(np.float32))


def _one_hot(texts: Sequence[int] | NDArray, size: int) -> sp.csr_matrix:
    ones = np.ones(len(texts), np.float32)
    return sp.csr_matrix((ones, (np.arange(len(texts)), texts)), shape=(len(texts), size))


def _require_terms(terms: list[str]) -> None:
    if not terms:
        raise StepError("featurize: no term is left; lower min_df or raise max_df")


if __name__ == "__main__":
    run_step("featurize", FeaturizeParameters, featurize)
