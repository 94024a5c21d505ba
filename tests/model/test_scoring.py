"""The two scores: equal to scikit-learn's arithmetic, matching for real, finite whatever comes."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from jobmatch_pyfunc import scoring
from jobmatch_pyfunc.columns import Texts, VacancyTexts
from jobmatch_pyfunc.contract import VACANCY_TEXTS
from jobmatch_pyfunc.model import HOLDOUT, SHIPPED, FittedModel
from jobmatch_pyfunc.scoring import (
    Candidates,
    Floats,
    Ints,
    Space,
    Vacancies,
    Weights,
    best_first,
    candidate_vectors,
    map_to_latent,
    projected,
    take,
)
from jobmatch_pyfunc.storage import read_pool, read_space, write_json, write_pool, write_space
from jobmatch_pyfunc.text import body, count_terms
from steps import fitting
from steps.corpus import Pairs
from steps.described import Vectoriser, fit_described
from steps.evaluate import judge_all
from steps.failure import StepError
from steps.featurize import (
    LATENT_POWER,
    FeaturizeParameters,
    features_of,
    largest_singular,
    latent_space,
    weighted_dimensions,
)
from steps.fitting import (
    GATE_QUANTILE,
    PROJECTION_RIDGE,
    Data,
    fit,
    fit_match,
    hire_rows,
    match_features,
    out_of_fold,
    projection,
    unseen_logits,
)
from steps.judging import Contender, Held, cosine_contender, held, judge, pool_of
from steps.progress import Progress
from steps.train import data_of, fit_baseline, fit_everything
from tests.model.conftest import Trained

pytestmark = pytest.mark.xdist_group("model")

SAP = {
    "titulo_vaga": "Consultor SAP FI/CO Sênior",
    "principais_atividades": "Implantação e sustentação dos módulos SAP FI e CO em S/4HANA.",
    "competencia_tecnicas_e_comportamentais": "SAP FI/CO, S/4HANA, contas a pagar e a receber.",
}
COOK = ("Cozinheiro com dez anos de experiência em restaurantes. Preparo de carnes, massas e "
        "molhos, controle de estoque da cozinha, boas práticas de manipulação de alimentos.")
CONSULTANT = ("Consultor SAP FI/CO com doze anos de experiência. Implantação de S/4HANA, contas a "
              "pagar e a receber, fechamento contábil. Certificação SAP FI.")


def unit(vectors: Floats) -> Floats:
    """Each row divided by its length; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def vectoriser(model: FittedModel, **options: Any) -> TfidfVectorizer:
    fitted = TfidfVectorizer(
        analyzer=lambda text: list(count_terms(text).elements()), sublinear_tf=True,
        vocabulary={term: i for i, term in enumerate(model.terms)}, **options)
    fitted.idf_ = model.space.idf
    return fitted


class BodyVectoriser:
    """Counts of both job texts, added where they differ, then TF-IDF."""

    def __init__(self, model: FittedModel) -> None:
        self.vectoriser = vectoriser(model, norm="l2")

    def transform(self, jobs: list[tuple[str, str]]) -> sp.csr_matrix:
        # an analyzer of the two texts together: terms must not run across their border
        texts = ["\x00".join(body(*job)) for job in jobs]
        self.vectoriser.set_params(analyzer=lambda text: [
            term for part in text.split("\x00") for term in count_terms(part).elements()])
        return self.vectoriser.transform(texts)


def scikit_learn_scores(model: FittedModel, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """match and probability by scikit-learn's transforms and plain matrix arithmetic."""
    w, space = model.scorer.weights, model.space
    title = vectoriser(model).transform(rows["titulo_vaga"])
    bodies = BodyVectoriser(model).transform(list(zip(
        rows["principais_atividades"], rows["competencia_tecnicas_e_comportamentais"],
        strict=True)))
    cvs = vectoriser(model).transform(rows["cv_pt"])
    plain = vectoriser(model, norm=None).transform(rows["cv_pt"])
    length = np.sqrt(np.asarray(plain.multiply(plain).sum(axis=1))).ravel()
    pivot = (1 - space.slope) * space.pivot + space.slope * length
    pivoted = sp.diags(1 / pivot) @ plain @ sp.diags(space.idf / space.idf.mean())

    match = (w.match_intercept
             + w.match_title * np.asarray(title.multiply(pivoted).sum(axis=1)).ravel()
             + w.match_body * np.asarray(bodies.multiply(pivoted).sum(axis=1)).ravel()
             + w.match_latent * (unit((title + bodies) @ space.latent @ space.projection)
                                * unit(cvs @ space.latent)).sum(axis=1))
    raw = w.hire_intercept + title @ w.hire_title + bodies @ w.hire_body + cvs @ w.hire_cv
    gate = w.gate_slope * np.minimum(0, match - w.gate_from)
    return expit(match), expit(w.platt_scale * raw + w.platt_intercept + gate)


def test_scores_equal_scikit_learns_to_1e_9(
    trained: Trained, pyfunc: PyFuncModel, rows: pd.DataFrame
) -> None:
    match, probability = scikit_learn_scores(trained.model, rows)
    answer = pyfunc.predict(rows)
    np.testing.assert_allclose(answer["match"], match, rtol=0, atol=1e-9)
    np.testing.assert_allclose(answer["probability"], probability, rtol=0, atol=1e-9)
    assert answer["match"].std() > 0.05  # the rows are not all alike


def test_the_same_data_and_seed_give_the_same_model(trained: Trained) -> None:
    """To the bit, and whatever ran beside the fits in the training."""
    features, parameters = trained.features, trained.parameters
    first = fit(data_of(features, HOLDOUT), parameters)
    described = fit_baseline(features, parameters, HOLDOUT)
    shipped, _, described_again = fit_everything(features, parameters, first, described)
    assert described == trained.version.described(HOLDOUT)
    assert described_again == trained.version.described(SHIPPED)
    for part, again in ((HOLDOUT, first), (SHIPPED, shipped)):
        registered = trained.version.part(part)
        assert again.threshold == registered.threshold
        np.testing.assert_array_equal(again.scorer.space.projection, registered.space.projection)
        for name in Weights.__dataclass_fields__:
            np.testing.assert_array_equal(
                getattr(again.scorer.weights, name), getattr(registered.scorer.weights, name),
                f"{part}: {name}")


def test_features_that_are_read_are_to_the_bit_those_that_were_made(trained: Trained) -> None:
    other = {**trained.parameters.model_dump(), "latent_dimensions": 9}
    parameters = FeaturizeParameters(
        **{name: other[name] for name in FeaturizeParameters.model_fields})
    with mlflow.start_run() as run:
        made = features_of(parameters)
        assert "jobmatch.reused.featurize" not in mlflow.get_run(run.info.run_id).data.tags
        read = features_of(parameters)
        assert "jobmatch.reused.featurize" in mlflow.get_run(run.info.run_id).data.tags
    assert made.terms == read.terms
    assert made.described == read.described
    assert (made.split_date, made.trained_until) == (read.split_date, read.trained_until)
    assert (made.vacancy_codes, made.candidate_codes) == (read.vacancy_codes, read.candidate_codes)
    assert np.array_equal(made.vacancy_dates, read.vacancy_dates, equal_nan=True)
    assert made.corpus.tokens.terms == read.corpus.tokens.terms
    assert made.corpus.tokens.written == read.corpus.tokens.written
    arrays = [
        [each.held_out, each.candidate_filled, each.corpus.tokens.ids, each.corpus.tokens.offsets,
         *(getattr(each.pairs, name) for name in Pairs.__dataclass_fields__),
         *(getattr(each.corpus, name) for name in ("title", "activities", "requirements", "cv")),
         *(array for space in each.spaces.values()
           for array in (space.idf, space.latent, space.projection, space.slope, space.pivot)),
         *(array for terms in (*each.terms.values(), *(t for t, _ in each.described.values()))
           for counts in [each.corpus.counts(terms)]
           for array in (counts.data, counts.indices, counts.indptr))]
        for each in (made, read)]
    for one, again in zip(*arrays, strict=True):
        assert np.array_equal(one, again)
        assert np.asarray(one).dtype == np.asarray(again).dtype


def test_of_many_undecided_kinds_some_are_drawn_that_weigh_for_all(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(trained.features, HOLDOUT)
    every = hire_rows(data, trained.parameters)
    undecided = np.bincount(every.row_of, weights=~every.pairs.undecided) == 0
    monkeypatch.setattr(fitting, "UNDECIDED_KINDS", 1)
    some = hire_rows(data, trained.parameters)
    before, after = (np.bincount(r.row_of, weights=r.weight) for r in (every, some))
    assert (before > 0).all()
    drawn = undecided & (after > 0)
    assert drawn.sum() == np.sum(~undecided) // 2 < undecided.sum()
    np.testing.assert_allclose(after[drawn] / before[drawn], undecided.sum() / drawn.sum())
    np.testing.assert_array_equal(after[~undecided], before[~undecided])


def test_the_calibration_of_what_ships_sees_logits_of_models_that_have_not_seen_the_vacancy(
    trained: Trained
) -> None:
    features, pairs = trained.features, trained.features.pairs
    first = fit(data_of(features, HOLDOUT), trained.parameters)
    vacancies, candidates = features.vectors(HOLDOUT)
    held_out = features.held_out_pairs
    logits = unseen_logits(pairs, held_out, first, vacancies, candidates)
    of_known = np.full(len(pairs), np.nan)
    of_known[pairs.known] = logits
    np.testing.assert_array_equal(of_known[~held_out & pairs.known], first.out_of_fold)

    with_cv = held_out & pairs.joined
    assert with_cv.sum() > 50
    match, hire = first.scorer.score_pairs(
        vacancies, candidates, pairs.vacancy[with_cv], pairs.candidate[with_cv])
    weights = first.scorer.weights
    told = (hire - weights.platt_intercept - first.scorer.gate(match)) / weights.platt_scale
    np.testing.assert_allclose(of_known[with_cv], told, rtol=0, atol=1e-9)

    without = held_out & pairs.known & (pairs.candidate < 0)
    assert without.any()
    told = weights.hire_intercept + first.scorer.vacancy_part(vacancies)[pairs.vacancy[without]]
    np.testing.assert_allclose(of_known[without], told, rtol=0, atol=1e-12)


def test_histories_of_few_dimensions_give_the_same_space_each_time() -> None:
    random = np.random.default_rng(0)
    people = np.repeat(random.random((5, 40)), 12, axis=0)  # five people's histories, twelve times
    counts = sp.csr_matrix(np.zeros((60, 40), np.float32))
    numbers = np.arange(60)
    twice = np.concatenate([numbers, numbers])
    pairs = Pairs(twice, np.full(120, -1), np.repeat(numbers, 2), np.zeros(120, np.int64),
                  np.zeros(120, bool), np.ones(120, bool))
    space = Space(np.ones(40), np.zeros((40, 1), np.float32), np.eye(1), 0.75, 1.0)
    first, again = (latent_space(counts, numbers, pairs, space, sp.csr_matrix(people), 30, 0)
                    for _ in range(2))
    np.testing.assert_allclose(first, again, rtol=0, atol=1e-5)
    assert first.shape[1] <= 10


def matched(random: np.random.Generator, dimensions: int) -> Data:
    """Forty vacancies that draw CVs elsewhere in the latent space, three pairs each."""
    vacancies, cvs = (unit(random.standard_normal((n, dimensions))) for n in (40, 200))
    taste = np.linalg.qr(random.standard_normal((dimensions, dimensions)))[0]
    best = np.argsort(-(vacancies @ taste @ cvs.T), axis=1)[:, :3]
    none, nobody = sp.csr_matrix((40, 1)), np.zeros(120, bool)
    v = np.repeat(np.arange(40), 3)
    space = Space(np.ones(1), np.zeros((1, dimensions)), np.eye(dimensions), 0.75, 1.0)
    return Data(
        Vacancies(none, none, vacancies),
        Candidates(sp.csr_matrix((200, 1)), np.zeros(200), cvs), space,
        Pairs(v, best.ravel(), np.arange(120), nobody.astype(np.int64), nobody, ~nobody),
        np.arange(40) // 2, np.zeros(120), np.arange(200))


def test_a_vacancy_is_moved_towards_the_cvs_that_are_put_forward_for_such_vacancies() -> None:
    data = matched(np.random.default_rng(0), 4)
    found = projection(data, data.pairs)
    x = data.vacancies.latent[data.pairs.vacancy]
    y = data.candidates.latent[data.pairs.candidate]
    ridge = np.sqrt(PROJECTION_RIDGE) * np.eye(4)  # as rows of data that ask for 0
    w = np.linalg.lstsq(np.vstack([x, ridge]), np.vstack([y - y.mean(axis=0), 0 * ridge]))[0]
    np.testing.assert_allclose(found, np.eye(4) + w, rtol=0, atol=1e-9)
    before, after = (float(np.einsum("ij,ij->", moved, y)) / len(y)
                     for moved in (x, projected(x, found)))
    assert after > before + 0.1


def test_the_match_is_learned_from_vacancies_moved_by_what_was_learned_from_others() -> None:
    data = matched(np.random.default_rng(0), 4)
    whole = projection(data, data.pairs)
    moved = out_of_fold(data, data.pairs, whole, 5)
    posting = data.posting == 3  # two vacancies of one text: neither tells of the other
    own = posting[data.pairs.vacancy]
    others = np.where(own, data.pairs.candidate + 100, data.pairs.candidate) % 200
    again = out_of_fold(data, replace(data.pairs, candidate=others), whole, 5)
    changed = (again != moved).any(axis=1)
    assert not changed[posting].any()
    assert changed.sum() > len(changed) / 2
    none = out_of_fold(data, data.pairs.where(~own), whole, 5)[posting]
    np.testing.assert_array_equal(none, projected(data.vacancies.latent[posting], whole))


def test_who_was_put_forward_by_chance_teaches_the_match_nothing(trained: Trained) -> None:
    random = np.random.default_rng(0)
    data = matched(random, 16)
    by_chance = replace(data, pairs=replace(data.pairs, candidate=random.integers(0, 200, 120)))
    weight, chance = (fit_match(some, trained.parameters).scorer.weights.match_latent
                      for some in (data, by_chance))
    assert weight > 0.2  # learned from vacancies where they lie it would be below 0
    assert chance < 0.1  # and from what has seen their pairs as large as that


def test_of_many_pairs_some_teach_the_weights_of_the_match_and_all_its_projection(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(trained.features, HOLDOUT)
    with_cv = data.pairs.candidate >= 0
    every = fit_match(data, trained.parameters)
    monkeypatch.setattr(fitting, "WEIGHED_PAIRS", int(with_cv.sum()) // 2)
    some = fit_match(data, trained.parameters)
    np.testing.assert_array_equal(some.scorer.space.projection, every.scorer.space.projection)
    np.testing.assert_array_equal(some.vacancies.latent, every.vacancies.latent)
    known = data.pairs.where(with_cv)
    features = match_features(every.vacancies, data.candidates, data.space, known.vacancy,
                              known.candidate)
    logits = [features @ [w.match_title, w.match_body, w.match_latent]
              for w in (every.scorer.weights, some.scorer.weights)]
    assert not np.array_equal(*logits)
    assert np.corrcoef(*logits)[0, 1] > 0.98


def test_the_gate_opens_at_a_quantile_of_matches_with_vacancies_not_seen(trained: Trained) -> None:
    data, first = data_of(trained.features, HOLDOUT), trained.version.part(HOLDOUT).scorer
    matching = fit_match(data, trained.parameters)
    known = data.pairs.where(data.pairs.joined)
    features = match_features(matching.vacancies, data.candidates, data.space, known.vacancy,
                              known.candidate)
    w = first.weights
    match = w.match_intercept + features @ [w.match_title, w.match_body, w.match_latent]
    assert w.gate_from == pytest.approx(np.quantile(match, GATE_QUANTILE), abs=1e-9)


def test_a_space_without_dimensions_has_a_projection_that_moves_nothing() -> None:
    data = matched(np.random.default_rng(0), 1)
    data = replace(data, vacancies=replace(data.vacancies, latent=np.zeros((40, 1))),
                   candidates=replace(data.candidates, latent=np.zeros((200, 1))))
    whole = projection(data, data.pairs)
    np.testing.assert_array_equal(whole, np.eye(1))
    np.testing.assert_array_equal(out_of_fold(data, data.pairs, whole, 5), np.zeros((40, 1)))


def test_a_version_from_before_there_was_a_projection_leaves_vacancies_where_they_are(
    tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    terms = [f"termo {i}" for i in range(6)]
    space = Space(random.random(6), random.random((6, 2)), random.random((2, 2)), 0.75, 1.0)
    write_space(tmp_path, terms, space)
    np.testing.assert_array_equal(read_space(tmp_path)[1].projection, space.projection)
    np.save(tmp_path / "projection.npy", np.eye(3))
    with pytest.raises(ValueError, match="different sizes"):
        read_space(tmp_path)
    (tmp_path / "projection.npy").unlink()
    with pytest.raises(OSError):  # lost
        read_space(tmp_path)
    write_json(tmp_path / "space.json", {"slope": 0.75, "pivot": 1.0})
    np.testing.assert_array_equal(read_space(tmp_path)[1].projection, np.eye(2))


@pytest.mark.parametrize("heavy", [None, 0, -1])  # one column that holds most: a half has no other
@pytest.mark.parametrize(("rows", "columns"), [(90, 400), (400, 90)])
def test_singular_values_and_the_dimensions_made_of_them_are_those_of_an_exact_decomposition(
    rows: int, columns: int, heavy: int | None
) -> None:
    random = np.random.default_rng(3)
    strength = sp.diags(np.geomspace(1, 0.01, rows)).tocsr()
    share = 0.05 if heavy is None else 0.5 / columns
    documents = (strength @ sp.random(rows, columns, share, "csr", random_state=1)).tolil()
    if heavy is not None:
        documents[:, heavy] = random.random((rows, 1))
    documents = documents.tocsr().astype(np.float32)
    singular, left = largest_singular(documents, 8, random)
    exact_left, exact, exact_right = np.linalg.svd(documents.toarray().astype(np.float64))
    np.testing.assert_allclose(singular[::-1], exact[:8], rtol=1e-5, atol=1e-5 * exact[0])
    assert np.abs((left[:, ::-1] * exact_left[:, :8]).sum(axis=0)).min() > 1 - 1e-5
    weights = (exact[:8] / exact[0]) ** LATENT_POWER
    latent = weighted_dimensions(documents, singular, left)
    np.testing.assert_allclose(
        np.abs((latent * exact_right[:8].T).sum(axis=0)), weights, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(latent, axis=0), weights, rtol=1e-5)


def test_one_history_over_and_over_has_one_singular_value() -> None:
    row = sp.random(1, 60, 0.3, "csr", random_state=0).astype(np.float32)
    documents = sp.vstack([row] * 20).tocsr()
    singular, left = largest_singular(documents, 4, np.random.default_rng(0))
    length = np.sqrt(20) * sp.linalg.norm(row)
    assert singular[-1] == pytest.approx(length, rel=1e-5)
    assert (singular[:-1] < 1e-3 * length).all()
    latent = weighted_dimensions(documents, singular, left)
    assert latent.shape == (60, 1)
    np.testing.assert_allclose(np.abs(latent[:, 0]), row.toarray()[0] / sp.linalg.norm(row),
                               atol=1e-5)


def test_columnar_training_vectors_equal_the_served_ones(trained: Trained, rows: pd.DataFrame
                                                          ) -> None:
    model, corpus = trained.model, trained.features.corpus
    vacancies, candidates = corpus.vectors(model.terms, model.space)
    jobs, _ = model.analyser.vacancies(VacancyTexts(*(Texts.of(rows[n]) for n in VACANCY_TEXTS)))
    cvs = model.analyser.candidates(Texts.of(rows["cv_pt"]))
    for trained_on, served in ((vacancies.latent, jobs.latent), (candidates.latent, cvs.latent)):
        from_training = {tuple(np.round(row, 9)) for row in trained_on}
        assert all(tuple(np.round(row, 9)) in from_training for row in served)
    plain, _ = trained.features.vectors(SHIPPED)
    assert np.abs(plain.latent - vacancies.latent).max() > 0.05  # those are moved


def test_how_many_rows_are_mapped_at_a_time_changes_nothing(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = trained.model.space
    some = sp.random(50, len(space.idf), 0.01, "csr", random_state=0)
    at_once = map_to_latent(some, space.latent)
    monkeypatch.setattr(scoring, "LATENT_ROWS", 7)
    np.testing.assert_array_equal(map_to_latent(some, space.latent), at_once)
    np.testing.assert_allclose(at_once, some @ space.latent.astype(float), rtol=0, atol=1e-12)


def test_a_row_scores_the_same_alone_and_in_a_batch(
    pyfunc: PyFuncModel, rows: pd.DataFrame
) -> None:
    batch = pyfunc.predict(rows)
    for i in (0, 7, 100):
        alone = pyfunc.predict(rows.iloc[[i]])
        assert alone["match"].iloc[0] == pytest.approx(batch["match"].iloc[i], abs=1e-12)
        assert alone["probability"].iloc[0] == pytest.approx(
            batch["probability"].iloc[i], abs=1e-12)


def test_answer_keeps_the_contract(pyfunc: PyFuncModel, rows: pd.DataFrame) -> None:
    answer = pyfunc.predict(rows)
    assert list(answer.columns) == ["probability", "prediction", "confidence", "match",
                                    "model_version"]
    np.testing.assert_allclose(answer["confidence"], abs(2 * answer["probability"] - 1))
    assert set(answer["prediction"]) <= {"Contratado", "Não contratado"}
    assert (answer["model_version"] == 1).all()


@pytest.mark.parametrize("kind", [
    "str", "string", pd.StringDtype("python"), pd.StringDtype("pyarrow", na_value=np.nan),
    pd.ArrowDtype(pa.string()), "category"], ids=str)
@pytest.mark.parametrize("some", [3, 60], ids=["few", "many"])
def test_every_kind_of_text_column_scores_the_same(
    pyfunc: PyFuncModel, rows: pd.DataFrame, kind: Any, some: int
) -> None:
    model = pyfunc.unwrap_python_model()
    given = rows.head(some).astype(object)
    given.loc[given.index[1], ["titulo_vaga", "cv_pt"]] = None
    given.loc[given.index[2], "principais_atividades"] = \
        given.loc[given.index[2], "competencia_tecnicas_e_comportamentais"]
    expected = model.predict(None, given, {"reasons": 3})
    pd.testing.assert_frame_equal(model.predict(None, given.astype(kind), {"reasons": 3}), expected)
    empty = given.fillna("")
    pd.testing.assert_frame_equal(model.predict(None, empty, {"reasons": 3}), expected)


def test_a_column_of_other_things_than_texts_is_refused_by_its_row(
    pyfunc: PyFuncModel, rows: pd.DataFrame
) -> None:
    given = rows.head(20).astype(object)
    given.iat[17, given.columns.get_loc("cv_pt")] = ["a", "list"]
    with pytest.raises(MlflowException, match=r"'cv_pt' must hold texts \(row 17 does not\)"):
        pyfunc.unwrap_python_model().predict(None, given)


def test_prediction_follows_the_callers_threshold(pyfunc: PyFuncModel, rows: pd.DataFrame) -> None:
    own = pyfunc.predict(rows)
    cut = float(own["probability"].median())
    moved = pyfunc.predict(rows, params={"threshold": cut})
    assert ((moved["probability"] >= cut) == (moved["prediction"] == "Contratado")).all()
    assert (moved["probability"] == own["probability"]).all()


def test_a_cook_is_no_match_for_a_sap_vacancy(trained: Trained, pyfunc: PyFuncModel) -> None:
    answer = pyfunc.predict(pd.DataFrame([SAP | {"cv_pt": COOK}, SAP | {"cv_pt": CONSULTANT}]))
    joined = trained.features.pairs.where(trained.features.pairs.joined)
    assert answer["match"].iloc[0] < 0.2 < answer["match"].iloc[1]
    assert answer["probability"].iloc[0] < joined.hired.mean()


def on_held_out(trained: Trained) -> Held:
    features = trained.features
    return held(features.pairs, features.held_out, features.vacancy_dates,
                np.flatnonzero(features.candidate_filled), trained.parameters.random_state)


def test_shuffling_the_vacancies_spoils_the_ranking(trained: Trained) -> None:
    on = on_held_out(trained)
    _, _, described, own = judge_all(
        trained.features.corpus, on, trained.version, "holdout", None, Progress({"judging": 1}))
    known = np.unique(on.pairs.vacancy)
    other = dict(zip(known, np.random.default_rng(0).permutation(known), strict=True))
    fitted = trained.version.part(HOLDOUT)
    vacancies, candidates = trained.features.corpus.vectors(fitted.terms, fitted.space)
    some = take(candidates, on.pool)
    blind = judge(Contender(
        "shuffled", lambda v: fitted.scorer.match_logits(vacancies, other[v], some), own.hire,
        0.5), on)
    assert own.estimates["pool_auc"].value > 0.8
    assert blind.estimates["pool_auc"].value < own.estimates["pool_auc"].value - 0.15
    assert described.estimates["pool_auc"].value < 0.7


def test_the_cosine_baseline_is_that_of_title_and_body_with_the_cv(trained: Trained) -> None:
    on, fitted = on_held_out(trained), trained.version.part(HOLDOUT)
    vacancies, candidates = trained.features.corpus.vectors(fitted.terms, fitted.space)
    pool = pool_of(candidates, fitted.scorer, on)
    contender = cosine_contender(vacancies, candidates, on, pool, fitted.space)
    expected = cosine_similarity(vacancies.title + vacancies.body, candidates.unit)
    assert contender.hire == pytest.approx(expected[on.pairs.vacancy, on.pairs.candidate])
    for v in np.unique(on.pairs.vacancy):
        assert contender.pool_scores(v) == pytest.approx(expected[v, on.pool], abs=1e-6)


def test_scores_that_are_no_numbers_are_not_judged(trained: Trained) -> None:
    on = on_held_out(trained)
    hire, scores = np.full(len(on.pairs), 0.5), np.zeros(len(on.pool))
    scores[3] = np.nan
    with pytest.raises(StepError, match="broken gave scores that are not finite"):
        judge(Contender("broken", lambda _: scores, hire, 0.5), on)
    with pytest.raises(StepError, match="broken gave scores that are not finite"):
        judge(Contender("broken", np.zeros_like, np.full_like(hire, np.inf), 0.5), on)


def test_the_described_model_is_fitted_where_one_vacancy_made_all_hires(trained: Trained) -> None:
    features, parameters = trained.features, trained.parameters
    pairs = features.training_pairs(HOLDOUT)
    pairs = pairs.where(pairs.joined)
    posting = features.corpus.postings[pairs.vacancy]
    only = posting[np.argmax(pairs.hired)]
    pairs = pairs.where((pairs.hired == 0) | (posting == only))
    vectorisers = {name: Vectoriser(*spec) for name, spec in features.described.items()}
    fitted = fit_described(vectorisers, features.corpus, pairs, parameters)
    assert fitted.c == np.median(parameters.grid_search_c_values)


def test_the_described_model_orders_the_pool_alike_for_every_vacancy_and_the_shipped_does_not(
    trained: Trained
) -> None:
    """The ablation: a model that does not read the vacancy ranks the same for any. Both score
    the pool for one vacancy after the other, through all of their arithmetic."""
    corpus, pool = trained.features.corpus, on_held_out(trained).pool
    known = np.unique(on_held_out(trained).pairs.vacancy)
    some = np.random.default_rng(0).permutation(known)[:6]
    fitted, described = trained.version.part(HOLDOUT), trained.version.described(HOLDOUT)
    vacancies, candidates = corpus.vectors(fitted.terms, fitted.space)
    by_described = [described.logits(corpus, with_pool(v, pool)) for v in some]
    by_shipped = [
        fitted.scorer.match_logits(vacancies, v, take(candidates, pool)) for v in some]
    assert len({round(float(logits.mean()), 6) for logits in by_described}) > 1  # it reads them
    for one, other in permutations(range(len(some)), 2):
        assert in_order(by_described[one], best_first(by_described[other], len(pool)))
        assert not in_order(by_shipped[one], best_first(by_shipped[other], len(pool)))
        of_one, of_other = (set(best_first(by_shipped[i], 10)) for i in (one, other))
        assert of_one != of_other


def with_pool(vacancy: int, pool: Ints) -> Pairs:
    """Every candidate of the pool put forward for one vacancy."""
    n = len(pool)
    return Pairs(np.full(n, vacancy), pool, pool, np.zeros(n, np.int64), np.zeros(n, bool),
                 np.ones(n, bool))


def in_order(logits: Floats, order: Ints) -> bool:
    """Whether the logits fall along this order, but for rounding."""
    return bool((np.diff(logits[order]) < 1e-9).all())


def test_pool_is_ranked_as_its_candidates_are_scored(
    trained: Trained, pyfunc: PyFuncModel
) -> None:
    texts = candidate_texts()
    ranked = pyfunc.predict(pd.DataFrame([SAP]), params={"top_k": 400})
    assert list(ranked["rank"]) == list(range(1, len(ranked) + 1))
    assert ranked["match"].is_monotonic_decreasing
    assert len(ranked) == int(trained.features.candidate_filled.sum())
    scored = pyfunc.predict(pd.DataFrame(
        [SAP | {"cv_pt": texts[code]} for code in ranked["codigo"].head(40)]))
    np.testing.assert_allclose(scored["match"], ranked["match"].head(40), atol=1e-5)
    np.testing.assert_allclose(scored["probability"], ranked["probability"].head(40), atol=1e-5)


def candidate_texts() -> dict[str, str]:
    from pathlib import Path

    from steps.ingest import candidates_table
    from steps.records import Candidate, batches

    path = Path(__file__).resolve().parents[2] / "data" / "sample" / "applicants.json"
    table, _ = candidates_table(batches(path, Candidate))
    return dict(zip(table["codigo"], table["cv_pt"], strict=True))


def test_the_pool_holds_codes_and_numbers_only(trained: Trained) -> None:
    texts = candidate_texts()
    folder = trained.version.folder / "pool"
    assert {path.suffix for path in folder.iterdir()} == {".json", ".npy"}
    codes = (folder / "codes.json").read_text(encoding="utf-8")
    assert not any(text[:40] in codes for text in texts.values() if text.strip())


@pytest.mark.parametrize(
    "cut", ["codes", "indices", "data", "latent", "candidate_part"])
def test_a_pool_whose_files_are_of_different_sizes_is_refused(
    trained: Trained, cut: str, tmp_path: Path
) -> None:
    pool = read_pool(trained.version.folder / "pool")
    write_pool(tmp_path, replace(pool, **{cut: getattr(pool, cut)[:-1]}))
    with pytest.raises(ValueError, match="different sizes"):
        read_pool(tmp_path)


@pytest.mark.parametrize(("name", "at", "value", "told"), [
    ("indptr", 0, -1, "different sizes"), ("indptr", 5, 10**9, "different sizes"),
    ("indptr", -1, 10**9, "different sizes"), ("indices", 3, -1, "other candidates"),
    ("indices", 3, 10**6, "other candidates")])
def test_a_pool_that_would_be_scanned_out_of_bounds_is_refused(
    trained: Trained, name: str, at: int, value: int, told: str, tmp_path: Path
) -> None:
    pool = read_pool(trained.version.folder / "pool")
    array = getattr(pool, name).copy()
    array[at] = value
    write_pool(tmp_path, replace(pool, **{name: array}))
    with pytest.raises(ValueError, match=told):
        read_pool(tmp_path)


def test_an_empty_cv_has_vectors_of_nothing_whatever_the_space() -> None:
    space = Space(np.ones(3), np.eye(3), np.eye(3), slope=0.75, pivot=0.0)
    vectors = candidate_vectors(sp.csr_matrix(np.array([[0, 0, 0], [1, 2, 0]], np.float32)), space)
    assert vectors.scale[0] == 0
    assert np.isfinite(vectors.scale).all()


ODD_TEXTS = {
    "empty": "", "blank": " \n\t ", "missing": None, "English": "Java developer, ten years",
    "one megabyte": "java spring " * 90_000, "one long word": "x" * 1_000_000,
    "control characters": "java\x00\x07\x1b[31m spring", "emoji": "java 🚀👩‍💻 spring 🎉",
    "html": "<p>java</p><script>alert(1)</script>&nbsp;", "stop words": "de a o que e do da em",
    "numbers": "123 456 7 8 9", "no known term": "zzzqqq wwwkkk",
    "combining marks": "a" + "\u0301" * 5000,
}


@pytest.mark.parametrize("kind", ODD_TEXTS)
@pytest.mark.parametrize("column", ["titulo_vaga", "principais_atividades", "cv_pt"])
def test_odd_texts_get_finite_scores_and_honest_reasons(
    pyfunc: PyFuncModel, kind: str, column: str
) -> None:
    row = SAP | {"cv_pt": CONSULTANT} | {column: ODD_TEXTS[kind]}
    answer = pyfunc.predict(pd.DataFrame([row]), params={"reasons": 3}).iloc[0]
    assert 0 <= answer["match"] <= 1
    assert 0 <= answer["probability"] <= 1
    if column == "cv_pt" and kind in ("empty", "blank", "missing", "stop words", "numbers",
                                      "no known term"):
        assert answer["reasons"]["match"]["note"] == "no known terms"
        assert answer["reasons"]["match"]["terms"] == []


def test_a_vacancy_without_known_terms_says_so(pyfunc: PyFuncModel) -> None:
    row = {"principais_atividades": "zzzqqq", "competencia_tecnicas_e_comportamentais": "wwwkkk",
           "cv_pt": CONSULTANT}
    answer = pyfunc.predict(pd.DataFrame([row]), params={"reasons": 3}).iloc[0]
    assert answer["reasons"]["match"]["note"] == "no known terms"


@pytest.mark.parametrize("missing", ["principais_atividades",
                                     "competencia_tecnicas_e_comportamentais", "cv_pt"])
def test_a_missing_column_is_named(pyfunc: PyFuncModel, missing: str) -> None:
    row = SAP | {"cv_pt": CONSULTANT}
    del row[missing]
    with pytest.raises(MlflowException, match=missing):
        pyfunc.predict(pd.DataFrame([row]))


def test_a_column_of_another_type_is_named(pyfunc: PyFuncModel) -> None:
    with pytest.raises(MlflowException, match="cv_pt"):
        pyfunc.predict(pd.DataFrame([SAP | {"cv_pt": 3.5}]))


@pytest.mark.parametrize(("name", "value"), [("threshold", 1.5), ("reasons", -1), ("top_k", -2)])
def test_a_param_out_of_range_is_named(pyfunc: PyFuncModel, name: str, value: float) -> None:
    with pytest.raises(MlflowException, match=name):
        pyfunc.predict(pd.DataFrame([SAP | {"cv_pt": CONSULTANT}]), params={name: value})
