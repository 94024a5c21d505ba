"""A model trained once on the sample, in a store of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from jobmatch_pyfunc.model import SHIPPED, FittedModel
from steps import featurize
from steps.features import Features
from steps.featurize import FeaturizeParameters
from steps.fitting import TrainParameters
from steps.parameters import parse, select
from steps.train import train
from steps.versions import Version, load_version
from tests.conftest import Store, use


@dataclass(frozen=True)
class Trained:
    store: Store
    run_id: str
    version: Version
    features: Features
    parameters: TrainParameters

    @property
    def model(self) -> FittedModel:
        return self.version.part(SHIPPED)


@pytest.fixture(scope="session")
def trained(new_store: Callable[[], Store]) -> Trained:
    store = new_store()
    with pytest.MonkeyPatch.context() as patch:
        use(store, patch)
        parameters = parse(TrainParameters, "train", ["--grid_search_cv", "3"])
        with mlflow.start_run() as run:
            train(parameters)
            features = featurize.features_of(select(FeaturizeParameters, parameters))
        return Trained(store, run.info.run_id, load_version("1"), features, parameters)


@pytest.fixture(scope="session")
def pyfunc(trained: Trained) -> mlflow.pyfunc.PyFuncModel:
    with pytest.MonkeyPatch.context() as patch:
        use(trained.store, patch)
        return mlflow.pyfunc.load_model(f"models:/jobmatch/{trained.version.number}")


@pytest.fixture(autouse=True)
def _store(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test here works in the trained model's store."""
    use(trained.store, monkeypatch)


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    """Rows of the sample: real vacancies with real candidates, matched and not."""
    import json

    data = Path(__file__).resolve().parents[2] / "data" / "sample"
    jobs = list(json.loads((data / "vagas.json").read_text(encoding="utf-8")).values())[:12]
    cvs = [p["cv_pt"] for p in json.loads(
        (data / "applicants.json").read_text(encoding="utf-8")).values()][:15]
    return pd.DataFrame([
        {
            "titulo_vaga": job["informacoes_basicas"]["titulo_vaga"],
            "principais_atividades": job["perfil_vaga"]["principais_atividades"],
            "competencia_tecnicas_e_comportamentais":
                job["perfil_vaga"]["competencia_tecnicas_e_comportamentais"],
            "cv_pt": cv,
        }
        for job in jobs for cv in cvs
    ])
