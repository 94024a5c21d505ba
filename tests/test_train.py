"""`mlflow run . -e train` as a user meets it: a registered, described and aliased version."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
import yaml

from steps.parameters import command
from tests.conftest import PROJECT, QUICK, SAMPLE, Ended, Store, Trained, arguments, use

pytestmark = pytest.mark.xdist_group("trained")

ROWS = [
    {"titulo_vaga": "Desenvolvedor Java", "principais_atividades": "APIs em Java e Spring",
     "competencia_tecnicas_e_comportamentais": "Java, Spring Boot, SQL",
     "cv_pt": "Desenvolvedor Java, Spring Boot e SQL há 6 anos"},
    {"titulo_vaga": "", "principais_atividades": "APIs em Java e Spring",
     "competencia_tecnicas_e_comportamentais": "Java, Spring Boot, SQL", "cv_pt": ""},
]  # fmt: skip

METRICS = {
    "hire_auc", "hire_average_precision", "hire_brier", "hire_ece", "hire_f1", "hire_precision",
    "hire_recall", "hire_accuracy", "true_positives", "false_positives", "true_negatives",
    "false_negatives", "pool_auc", "pool_recall_at_10", "pool_recall_at_50", "pool_mrr", "best_c",
    "cv_mean", "cv_deviation", "threshold", "held_out_hired_share", "training_hired_share",
    "rows_training", "rows_held_out", "peak_memory_mb", "seconds_fitting", "seconds_judging",
}  # fmt: skip
PLOTS = {"roc", "precision_recall", "calibration", "confusion_matrix", "score_distribution"}


@pytest.fixture(autouse=True)
def _store(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    use(trained.store, monkeypatch)


@pytest.fixture(scope="module")
def artifacts(trained: Trained) -> Path:
    return Path(trained.run.info.artifact_uri.removeprefix("file://"))


def test_version_is_registered_with_both_aliases(trained: Trained) -> None:
    assert 1 in trained.store.versions()
    assert trained.run.data.tags["jobmatch.version"] == "1"
    version = trained.store.client.get_model_version("jobmatch", "1")
    assert version.tags["gate"] == "passed"
    assert version.status == "READY"
    assert version.run_id == trained.run.info.run_id
    assert version.tags["promoted_by"]
    assert version.tags["replaced_version"] == "none"


def test_run_is_finished_and_says_how_far_it_came(trained: Trained) -> None:
    assert trained.run.info.status == "FINISHED"
    tags = trained.run.data.tags
    assert (tags["jobmatch.stage"], tags["jobmatch.percent"]) == ("done", "100")
    assert tags["jobmatch.gate"].startswith("passed")


def test_every_metric_is_logged(trained: Trained) -> None:
    metrics = trained.run.data.metrics
    assert METRICS - set(metrics) == set()
    counts = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    assert sum(metrics[name] for name in counts) == metrics["rows_held_out"]
    assert metrics["hire_auc_low"] <= metrics["hire_auc"] <= metrics["hire_auc_high"]
    assert metrics["best_c"] in (0.1, 1)


def test_every_parameter_is_logged(trained: Trained) -> None:
    project = yaml.safe_load((PROJECT / "MLproject").read_text(encoding="utf-8"))
    declared = project["entry_points"]["train"]["parameters"]
    assert set(trained.run.data.params) == set(declared)
    assert trained.run.data.params["grid_search_cv"] == QUICK["grid_search_cv"]


def test_plots_are_images(artifacts: Path) -> None:
    drawn = {path.stem: path.read_bytes() for path in (artifacts / "plots").iterdir()}
    assert PLOTS - set(drawn) == set()
    assert any(name.startswith("strongest_terms") for name in drawn)
    assert all(image.startswith(b"\x89PNG") for image in drawn.values())


def test_model_card_and_tables_are_logged(artifacts: Path) -> None:
    card = (artifacts / "model_card.md").read_text(encoding="utf-8")
    assert "random" in card
    assert "described" in card
    grid = json.loads((artifacts / "grid_search.json").read_text(encoding="utf-8"))
    assert grid["hire"]["c"] == [0.1, 1]
    assert len(grid["hire"]["scores_by_fold"]) == 3


def test_earlier_steps_are_nested_runs_with_their_seconds(trained: Trained) -> None:
    client, store = trained.store.client, trained.store
    parents = {}
    for run in store.runs():
        parent = run.data.tags.get("mlflow.parentRunId")
        if parent:
            parents[run.info.run_name] = client.get_run(parent).info.run_id
    featurize = store.runs("featurize")[-1]
    assert parents["featurize"] == trained.run.info.run_id
    assert parents["ingest"] == featurize.info.run_id
    assert "seconds_tokenising" in featurize.data.metrics
    assert "seconds_reading" in store.runs("ingest")[-1].data.metrics
    read, used = (run.inputs.dataset_inputs for run in (
        store.runs("ingest")[-1], client.get_run(trained.run.info.run_id)))
    assert {d.dataset.digest for d in used} == {d.dataset.digest for d in read}
    assert {d.dataset.name for d in used} == {"vacancies", "candidates", "pairs"}


def test_model_has_signature_example_and_exact_requirements(trained: Trained) -> None:
    folder = Path(mlflow.artifacts.download_artifacts("models:/jobmatch/1"))
    info = mlflow.models.get_model_info("models:/jobmatch/1")
    assert info.signature.inputs.input_names() == [
        "titulo_vaga", "principais_atividades", "competencia_tecnicas_e_comportamentais", "cv_pt"]
    assert info.signature.inputs.required_input_names() == [
        "principais_atividades", "competencia_tecnicas_e_comportamentais"]
    assert info.signature.outputs.input_names() == [
        "probability", "prediction", "confidence", "match", "model_version"]
    assert {param.name for param in info.signature.params} == {"threshold", "reasons", "top_k"}
    assert info.saved_input_example_info
    listed = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in listed), listed
    ours = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert set(listed) <= set(ours)


def test_nothing_in_the_model_is_a_pickle_or_knows_this_machine(trained: Trained) -> None:
    folder = Path(mlflow.artifacts.download_artifacts("models:/jobmatch/1"))
    files = [path for path in folder.rglob("*") if path.is_file()]
    suffixes = {Path(name).suffix for name in trained.model_files}
    assert ".npy" in suffixes
    assert suffixes & {".pkl", ".pickle", ".joblib", ".pyc"} == set()
    written = [path for path in files if path.suffix in ("", ".json", ".yaml", ".txt", ".py")]
    assert [p.name for p in written if str(PROJECT).encode() in p.read_bytes()] == []


def test_no_text_of_a_cv_is_in_the_model(trained: Trained) -> None:
    """The pool ships codes and numbers; the vocabulary holds words, never a sentence."""
    folder = Path(mlflow.artifacts.download_artifacts("models:/jobmatch/1"))
    people = json.loads((SAMPLE / "applicants.json").read_text(encoding="utf-8"))
    starts = [one["cv_pt"][:60].encode() for one in people.values() if len(one["cv_pt"]) > 60]
    names = [one["infos_basicas"]["nome"].encode() for one in people.values()]
    content = b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert [text for text in (*starts, *names) if len(text) > 8 and text in content] == []


def test_the_user_is_told_what_to_do_next(trained: Trained) -> None:
    assert "version 1 of jobmatch is registered, alias staging and production" in trained.output
    following = trained.output.partition("next:")[2]
    assert "mlflow server" in following
    assert "-e serve" in following


def test_progress_is_plain_lines_where_there_is_no_terminal(trained: Trained) -> None:
    lines = re.findall(r"^\[ *(\d+)%\] (.+) \((\d+) s\)$", trained.output, re.MULTILINE)
    assert ("100", "done") in [line[:2] for line in lines]
    assert "fitting" in [name for _, name, _ in lines]
    assert "\r" not in trained.output


def test_progress_is_a_bar_on_a_terminal(trained: Trained, tmp_path: Path) -> None:
    if not Path("/usr/bin/script").exists():
        pytest.skip("no script(1) to make a terminal with")
    log = tmp_path / "terminal"
    command = f"{sys.executable} -m steps.ingest --data_dir {SAMPLE}"
    subprocess.run(["script", "-qec", command, str(log)], cwd=PROJECT, check=True,
                   env=trained.store.environment() | {"TERM": "xterm"}, timeout=120,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # fmt: skip
    assert "100%|█" in log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def second(trained: Trained) -> Iterator[tuple[Ended, Store]]:
    """A second training with another grid of C, in a process of its own."""
    done = trained.store.run(
        "-m", "steps.train", "--data_dir", str(SAMPLE),
        *arguments(QUICK | {"grid_search_c_values": "0.5,2"}), cwd=trained.project)  # fmt: skip
    assert done.returncode == 0, done.stdout
    yield Ended(done.returncode, done.stdout), trained.store


def test_another_grid_of_c_parses_and_tokenises_nothing_again(
    trained: Trained, second: tuple[Ended, Store]
) -> None:
    ended, store = second
    assert "featurize: reused from run" in ended.output
    assert "tokenising" not in ended.output
    run = store.runs("train")[0]
    assert run.data.tags["jobmatch.reused.featurize"] == store.runs("featurize")[0].info.run_id
    assert len(store.runs("featurize")) == 1
    assert run.data.metrics["best_c"] in (0.5, 2)


def test_a_later_version_gets_staging_and_leaves_production(
    second: tuple[Ended, Store],
) -> None:
    ended, store = second
    assert store.aliases()["production"] == 1
    number = store.runs("train")[0].data.tags["jobmatch.version"]
    assert store.aliases()["staging"] == int(number)
    tags = store.client.get_model_version("jobmatch", number).tags
    assert tags["gate"] in ("passed", "failed")
    assert command("promote", version=number) in ended.output


ELSEWHERE = """
import importlib.util, json, sys
assert not any(importlib.util.find_spec(name) for name in ("steps", "jobmatch_pyfunc", "tests"))
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = pd.DataFrame(json.loads(sys.argv[2]))
scored = model.predict(rows)
reasons = model.predict(rows, params={"reasons": 3})["reasons"].tolist()
ranked = model.predict(rows.drop(columns="cv_pt"), params={"top_k": 4})
print("ANSWER" + json.dumps({"scored": scored.to_dict("records"), "reasons": reasons,
                             "ranked": ranked.to_dict("records")}))
"""


def answer_elsewhere(store: Store, uri: str, folder: Path) -> dict[str, Any]:
    done = store.run("-c", ELSEWHERE, uri, json.dumps(ROWS), cwd=folder,
                     MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false")  # fmt: skip
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout.partition("ANSWER")[2].splitlines()[0])


def assert_contract(rows: list[dict[str, Any]], version: int) -> None:
    assert len(rows) == len(ROWS)
    for row in rows:
        assert list(row) == ["probability", "prediction", "confidence", "match", "model_version"]
        assert 0 <= row["probability"] <= 1
        assert 0 <= row["match"] <= 1
        assert row["confidence"] == pytest.approx(abs(2 * row["probability"] - 1))
        assert row["prediction"] in ("Contratado", "Não contratado")
        assert row["model_version"] == version
        assert isinstance(row["model_version"], int)
    assert rows[0]["match"] > rows[1]["match"]


def test_model_answers_from_another_folder_where_the_project_is_not(
    trained: Trained, tmp_path: Path
) -> None:
    answer = answer_elsewhere(trained.store, "models:/jobmatch/1", tmp_path)
    assert_contract(answer["scored"], version=1)
    assert [row["rank"] for row in answer["ranked"]] == [1, 2, 3, 4] * len(ROWS)
    assert [row["vacancy"] for row in answer["ranked"]] == [0] * 4 + [1] * 4
    for reason in answer["reasons"]:
        for part in (reason["match"], reason["probability"]):
            total = sum(term["contribution"] for term in part["terms"])
            assert part["intercept"] + total + part["other"] == pytest.approx(part["logit"])


def test_mlflow_models_predict_answers(trained: Trained, tmp_path: Path) -> None:
    given, answer = tmp_path / "rows.json", tmp_path / "answer.json"
    given.write_text(json.dumps({"dataframe_records": ROWS}), encoding="utf-8")
    done = trained.store.run(
        "-m", "mlflow", "models", "predict", "-m", "models:/jobmatch@production",
        "--env-manager", "local", "-i", str(given), "-o", str(answer), "-t", "json",
        cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stdout
    rows = json.loads(answer.read_text(encoding="utf-8"))
    assert_contract(rows["predictions"] if isinstance(rows, dict) else rows, version=1)


@pytest.fixture
def address(trained: Trained, tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = trained.store.start(
        "-m", "mlflow", "models", "serve", "-m", "models:/jobmatch@production", "--env-manager",
        "local", "--port", str(port), cwd=tmp_path)  # fmt: skip
    try:
        wait_for(lambda: requests.get(f"http://127.0.0.1:{port}/ping", timeout=2).ok, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        # MLflow's own command does not always pass the signal on to its server
        subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=False)
        process.terminate()
        try:
            process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            subprocess.run(["pkill", "-KILL", "-P", str(process.pid)], check=False)
            process.kill()
            process.communicate()


def wait_for(answers: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        assert process.poll() is None, process.communicate()[0]
        try:
            if answers():
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    raise TimeoutError("the server did not answer")


def test_mlflow_models_serve_answers(address: str) -> None:
    done = requests.post(f"{address}/invocations", json={"dataframe_records": ROWS}, timeout=30)
    assert done.status_code == 200, done.text
    assert_contract(done.json()["predictions"], version=1)
