"""Splits, leak guard, gate, and the entry points evaluate and rank, for real."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from mlflow import MlflowClient

from jobmatch_pyfunc.scoring import Candidates, Vacancies
from steps import generate
from steps.corpus import Pairs
from steps.evaluate import EvaluateParameters, evaluate
from steps.failure import StepError
from steps.featurize import split_by_time
from steps.fitting import Data, TrainParameters, require_no_leak, require_plausible
from steps.judging import verdict
from steps.leaks import require_allowed
from steps.parameters import parse
from steps.promote import PromoteParameters, promote
from steps.rank import RankParameters, rank
from steps.records import HIRED, OUTCOMES
from steps.scores import Estimate, Judgement
from steps.train import register, train
from tests.conftest import Store, use
from tests.model.conftest import Trained

pytestmark = pytest.mark.xdist_group("model")


def pairs(vacancy: list[int], hired: list[int]) -> Pairs:
    n = len(vacancy)
    return Pairs(np.array(vacancy), np.arange(n), np.arange(n), np.array(hired),
                 np.zeros(n, bool), np.ones(n, bool))


def test_held_out_vacancies_are_the_latest_and_share_no_day_with_the_others() -> None:
    dates = np.array([f"2021-01-{d:02}" for d in (5, 1, 3, 3, 2, 4)] + ["NaT"],
                     dtype="datetime64[D]")
    put_forward = pairs([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6], [1, 0] * 7)
    held_out, first_day = split_by_time(dates, put_forward, 0.4)
    assert dates[held_out].min() == first_day
    assert dates[~held_out & ~np.isnat(dates)].max() < first_day
    assert not held_out[np.isnat(dates)].any()


def test_a_split_with_one_class_on_a_side_is_refused() -> None:
    dates = np.array(["2021-01-01", "2021-01-02"], dtype="datetime64[D]")
    with pytest.raises(StepError, match="one class only"):
        split_by_time(dates, pairs([0, 0, 1, 1], [1, 0, 0, 0]), 0.5)


def test_training_uses_nothing_of_the_held_out_part(trained: Trained) -> None:
    features = trained.features
    mine = features.training_pairs("holdout")
    assert not features.held_out[mine.vacancy].any()
    only_held_out = set(features.terms["final"]) - set(features.terms["holdout"])
    assert only_held_out  # held-out texts bring words that the holdout part does not know


def test_a_column_off_the_allow_list_stops_with_its_name() -> None:
    table = pl.DataFrame({"codigo": ["1"], "cv_pt": ["java"], "ultima_atualizacao": ["x"]})
    with pytest.raises(StepError, match="ultima_atualizacao"):
        require_allowed("candidates", table)


def test_a_column_that_knows_the_outcome_stops_with_its_name() -> None:
    n, p = 200, parse(TrainParameters, "train", [])
    hired = (np.arange(n) % 5 == 0).astype(int)
    nothing, empty = sp.csr_matrix((n, 3)), np.zeros((n, 1))

    def look(cvs: np.ndarray) -> None:
        cv = sp.csr_matrix(cvs.astype(float))
        vacancies = Vacancies(nothing, nothing, empty)
        candidates = Candidates(cv, np.ones(n), empty)
        require_no_leak(
            Data(vacancies, candidates, None,  # type: ignore[arg-type]
                 pairs(list(range(n)), hired.tolist()), np.arange(n), np.zeros(n), np.arange(n)), p)

    with pytest.raises(StepError, match=r"cv_pt alone predicts.*AUC of 1\.000"):
        look(np.column_stack([hired, 1 - hired, np.ones(n)]))
    look(np.random.default_rng(0).random((n, 3)))


def test_chance_among_a_few_hires_is_no_leak() -> None:
    few, many = np.repeat([1, 0], [4, 40]), np.repeat([1, 0], [100, 1000])
    with pytest.raises(StepError, match=r"cv_pt alone predicts.*AUC of 0\.860"):
        require_plausible(0.86, many, "cv_pt")
    require_plausible(0.86, few, "cv_pt")
    with pytest.raises(StepError):
        require_plausible(1.0, few, "cv_pt")


def judged(name: str, **figures: float) -> Judgement:
    samples = np.linspace(-0.01, 0.01, 300)
    return Judgement(name, {
        key: Estimate(value, value - 0.01, value + 0.01, tuple(value + samples))
        for key, value in figures.items()
    }, np.zeros(1))


@pytest.mark.parametrize(("new", "production", "passed", "why"), [
    ({"pool_auc": 0.9, "hire_auc": 0.7}, None, True, "no production"),
    ({"pool_auc": 0.45, "hire_auc": 0.9}, None, False, "no better than chance"),
    ({"pool_auc": 0.9, "hire_auc": 0.7}, {"pool_auc": 0.9, "hire_auc": 0.7}, True, "not worse"),
    ({"pool_auc": 0.899, "hire_auc": 0.7}, {"pool_auc": 0.9, "hire_auc": 0.7}, True, "-0.001"),
    ({"pool_auc": 0.88, "hire_auc": 0.7}, {"pool_auc": 0.9, "hire_auc": 0.7}, False, "pool_auc"),
    ({"pool_auc": 0.95, "hire_auc": 0.6}, {"pool_auc": 0.9, "hire_auc": 0.7}, False, "hire_auc"),
])
def test_the_gate_says_why(new: dict, production: dict | None, passed: bool, why: str) -> None:
    theirs = judged("production", **production) if production else None
    said, reason = verdict(judged("new", **new), theirs)
    assert said is passed
    assert why in reason


def test_a_fall_within_the_noise_passes_and_a_deep_one_does_not() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 300)

    def doubtful(value: float) -> Judgement:
        samples = tuple(value + np.random.default_rng(int(value * 1000)).permutation(noise))
        return Judgement("production (version 1)", {
            "pool_auc": Estimate(0.9, 0.89, 0.91, (0.9,) * 300),
            "hire_auc": Estimate(value, value - 0.2, value + 0.2, samples)}, np.zeros(1))

    assert verdict(doubtful(0.76), doubtful(0.82))[0]
    passed, reason = verdict(doubtful(0.6), doubtful(0.82))
    assert not passed
    assert "worse than production (version 1): hire_auc 0.600 against 0.820" in reason


def test_a_title_that_tells_the_outcome_stops_training(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Path(__file__).resolve().parents[2] / "data" / "sample"
    jobs, put_forward = (json.loads((sample / name).read_text(encoding="utf-8"))
                         for name in ("vagas.json", "prospects.json"))
    for code, listed in put_forward.items():
        if code in jobs and any(OUTCOMES.get(row["situacao_candidado"]) == HIRED
                                for row in listed["prospects"]):
            jobs[code]["informacoes_basicas"]["titulo_vaga"] += " fechada"
    shutil.copytree(sample, tmp_path / "told")
    (tmp_path / "told" / "vagas.json").write_text(json.dumps(jobs), encoding="utf-8")
    told = parse(TrainParameters, "train", ["--data_dir", str(tmp_path / "told")])
    with pytest.raises(StepError, match="titulo_vaga alone predicts"), mlflow.start_run():
        train(told)


def test_a_worse_version_fails_its_gate_and_needs_force(trained: Trained) -> None:
    client = MlflowClient()
    poor = parse(TrainParameters, "train", [
        "--grid_search_cv", "3", "--vocabulary_max_features", "12", "--latent_dimensions", "1"])
    with mlflow.start_run() as run:
        train(poor)
    number = mlflow.get_run(run.info.run_id).data.tags["jobmatch.version"]
    version = client.get_model_version("jobmatch", number)
    assert version.tags["gate"] == "failed"
    assert "worse than production (version 1): " in version.tags["gate_reason"]
    assert version.tags["gate_against"] == "1"
    assert client.get_model_version_by_alias("jobmatch", "staging").version == version.version
    assert int(client.get_model_version_by_alias("jobmatch", "production").version) == 1
    with pytest.raises(StepError, match="failed its gate"), mlflow.start_run():
        promote(PromoteParameters(version=number, force=False))
    with mlflow.start_run():
        promote(PromoteParameters(version=number, force=True))
    assert client.get_model_version("jobmatch", number).tags["forced"] == "true"
    with mlflow.start_run():
        promote(PromoteParameters(version="previous", force=True))
    assert int(client.get_model_version_by_alias("jobmatch", "production").version) == 1


def test_a_production_version_that_cannot_be_read_stops_no_training(
    trained: Trained, new_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(new_store(), monkeypatch)
    client, source = MlflowClient(), trained.version.folder / "holdout"
    client.create_registered_model("jobmatch")
    client.create_model_version("jobmatch", source.as_uri())
    client.set_registered_model_alias("jobmatch", "production", "1")
    with mlflow.start_run():
        train(trained.parameters)
    version = client.get_model_version_by_alias("jobmatch", "staging")
    assert int(version.version) == 2
    assert (version.tags["gate"], version.tags["gate_against"]) == ("failed", "none")
    assert "(version 1) cannot be read" in version.tags["gate_reason"]


def test_a_version_promoted_meanwhile_stays_in_production(
    trained: Trained, new_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(new_store(), monkeypatch)
    client = MlflowClient()

    def with_another_live(*arguments: object) -> str:
        number = register(*arguments)  # type: ignore[arg-type]
        first = client.get_model_version("jobmatch", number)
        client.create_model_version("jobmatch", first.source)
        for alias in ("production", "staging"):
            client.set_registered_model_alias("jobmatch", alias, "2")
        return number

    monkeypatch.setattr("steps.train.register", with_another_live)
    with mlflow.start_run():
        train(trained.parameters)
    for alias in ("production", "staging"):
        assert int(client.get_model_version_by_alias("jobmatch", alias).version) == 2


def test_evaluate_judges_a_version_on_later_records_beside_the_baselines(
    trained: Trained, tmp_path: Path
) -> None:
    generate.generate(200, 250, 800, seed=7, out=tmp_path)
    later(tmp_path / "vagas.json", years=3)
    with mlflow.start_run() as run:
        evaluate(EvaluateParameters(data_dir=tmp_path, version="1", random_state=1))
    logged = mlflow.get_run(run.info.run_id).data
    assert logged.tags["jobmatch.part"] == "final"
    assert 0.75 < logged.metrics["pool_auc"] <= 1
    assert logged.metrics["pool_auc_low"] < logged.metrics["pool_auc"]
    judgement = json.loads(mlflow.artifacts.load_text(
        f"runs:/{run.info.run_id}/judgement.json"))
    assert list(judgement) == ["random", "cosine", "described model", "version 1"]
    assert judgement["described model"]["pool_auc"][0] < 0.7
    card = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/model_card.md")
    assert "supports a recruiter's decision" in card
    plots = {a.path for a in MlflowClient().list_artifacts(run.info.run_id, "plots")}
    assert "plots/page.png" in plots


def later(path: Path, years: int) -> None:
    """Move every vacancy of a file some years on."""
    records = json.loads(path.read_text(encoding="utf-8"))
    for record in records.values():
        basics = record["informacoes_basicas"]
        key = next(name for name in basics if name.startswith("data_req"))
        day, month, year = basics[key].split("-")
        if year.isdigit() and int(year) > 1990:
            basics[key] = f"{day}-{month}-{int(year) + years}"
    path.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")


def test_evaluate_on_the_training_files_judges_the_holdout_part(trained: Trained) -> None:
    with mlflow.start_run() as run:
        evaluate(EvaluateParameters(
            data_dir=trained.parameters.data_dir, version="1", random_state=42))
    logged = mlflow.get_run(run.info.run_id).data
    assert logged.tags["jobmatch.part"] == "holdout"
    own = mlflow.get_run(trained.run_id).data.metrics
    for name in ("hire_auc", "pool_auc", "hire_ece"):
        assert logged.metrics[name] == pytest.approx(own[name], abs=1e-9)


def test_evaluate_of_a_version_that_does_not_exist_says_so(trained: Trained) -> None:
    with pytest.raises(StepError, match="no version 99"), mlflow.start_run():
        evaluate(EvaluateParameters(
            data_dir=trained.parameters.data_dir, version="99", random_state=1))


def ranked(trained: Trained, **parameters: object) -> pl.DataFrame:
    given = {"data_dir": trained.parameters.data_dir, "version": "1", "by": "vacancy",
             "codes": "open", "top_k": 5, "reasons": 3} | parameters
    with mlflow.start_run() as run:
        rank(RankParameters(**given))
    folder = mlflow.artifacts.download_artifacts(run_id=run.info.run_id)
    assert (Path(folder) / "ranking.csv").is_file()
    return pl.read_parquet(Path(folder) / "ranking.parquet")


def test_rank_lists_the_best_candidates_of_each_open_vacancy(trained: Trained) -> None:
    table = ranked(trained)
    assert table.group_by("vaga").len()["len"].unique().to_list() == [5]
    for _, places in table.group_by("vaga"):
        assert places["match"].to_list() == sorted(places["match"], reverse=True)
    assert table["match_reasons"].str.contains(r" [+-]\d").all()


def test_rank_the_other_way_round_agrees_on_the_scores(trained: Trained) -> None:
    by_vacancy = ranked(trained, codes="all", top_k=400, reasons=0)
    code = by_vacancy["candidato"][0]
    by_candidate = ranked(trained, by="candidate", codes=code, top_k=400, reasons=0)
    both = by_vacancy.filter(candidato=code).join(by_candidate, on=["vaga", "candidato"])
    assert both.height > 100
    np.testing.assert_allclose(both["match"], both["match_right"], atol=1e-12)
    np.testing.assert_allclose(both["probability"], both["probability_right"], atol=1e-12)


def test_rank_names_codes_that_are_not_there(trained: Trained) -> None:
    with pytest.raises(StepError, match="no vacancy with code nope"):
        ranked(trained, codes="nope")
