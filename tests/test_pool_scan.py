"""The pools that the benchmark of ranking makes, and its table."""

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks.pool_scan import Figures, peak_bytes, resized, sizes, table, vectors_bytes
from jobmatch_pyfunc.scoring import Pool, Query


def made(size: int) -> Pool:
    rng = np.random.default_rng(1)
    terms = sp.random(size, 30, 0.3, "csc", np.float32, rng)
    terms.sort_indices()
    return Pool([f"c{i}" for i in range(size)], terms.indptr.astype(np.int64), terms.indices,
                terms.data, rng.random((size, 4), np.float32), rng.random(size))


def dense(pool: Pool) -> np.ndarray:
    return sp.csc_matrix((pool.data, pool.indices, pool.indptr),
                         shape=(pool.size, len(pool.indptr) - 1)).toarray()


@pytest.mark.parametrize("size", [3, 10, 20, 27])
def test_a_pool_of_any_size_repeats_the_first_candidates(size: int) -> None:
    own = made(10)
    pool = resized(own, size)
    some = {3: 3, 10: 10, 20: 10, 27: 9}[size]
    assert pool.size == size
    same = np.arange(size) % some
    np.testing.assert_array_equal(dense(pool), dense(own)[same])
    np.testing.assert_array_equal(pool.latent, own.latent[same])
    np.testing.assert_array_equal(pool.candidate_part, own.candidate_part[same])
    assert pool.codes == [own.codes[i] for i in same]


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_a_scan_is_the_product_of_the_query_with_the_pool(index: type) -> None:
    own = made(50)
    terms = np.array([2, 7, 8, 29], np.int32)
    empty = sp.csc_matrix(dense(own) * (np.arange(30) != 7), dtype=np.float32)
    arrays = (empty.indptr.astype(np.int64), empty.indices.astype(index), empty.data)
    for array in arrays:
        array.flags.writeable = False  # as a mapped file is
    pool = Pool(own.codes, *arrays, own.latent, own.candidate_part)
    weights = np.array([0.5, 3.0, -1.25, 1e-3])
    asked = np.zeros(30)
    asked[terms] = weights
    np.testing.assert_allclose(pool.crossed(Query(terms, weights)), dense(pool) @ asked, atol=1e-12)
    assert not pool.crossed(Query(terms[:0], weights[:0])).any()


def test_bytes_are_those_of_the_arrays() -> None:
    pool = made(10)
    assert vectors_bytes(pool) == len(pool.data) * 8 + 31 * 8 + 10 * (4 * 4 + 8)
    assert 8_000_000 <= peak_bytes(lambda: np.ones(1_000_000)) < 8_100_000


def test_the_table_has_a_column_for_each_pool() -> None:
    one = Figures(1_000, 2_000, 62.0, 4e5, 900_000, cpu=1e-4, wall=2e-4, mean_cpu=3e-4,
                  mean_system=1e-4)
    lines = table([one, one]).splitlines()
    assert {line.count("|") for line in lines} == {4}
    assert "| ns of CPU a candidate | 100 | 100 |" in lines
    assert sizes("100,2000") == [100, 2000]
    with pytest.raises(ValueError):
        sizes("100,2")
