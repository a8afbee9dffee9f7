"""The pod of a model version's step, as models.toml says it."""

from pathlib import Path

import pytest

from resources.pods import Pod, Toleration
from speech.errors import ModelError
from speech.models import read_models
from tests.conftest import FAST_MODEL, ROOT


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def test_a_pod_is_as_the_table_says_and_the_words_fingerprint_does_not_know_it(models: Path) -> None:
    models.write_text(FAST_MODEL)
    before = read_models(models)["pocketsphinx_fast"].fingerprint
    assert Pod.read(models, "pocketsphinx_fast") == Pod(gpus=0, cpus=2, memory="4Gi")
    models.write_text(
        f"{FAST_MODEL}\n[pocketsphinx_fast.kubernetes]\ngpus = 1\nmemory = '500Mi'\n"
        "tolerations = [{ key = 'gpu' }]\n"
    )
    assert read_models(models)["pocketsphinx_fast"].fingerprint == before
    taint = Toleration(key="gpu", operator="Exists", effect="NoSchedule")
    assert Pod.read(models, "pocketsphinx_fast") == Pod(gpus=1, memory="500Mi", tolerations=(taint,))


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("gpus = -1", "gpus"),
        ("memory = '12GB'", "memory"),
        ("memory = 12", "memory"),
        ("image = 'other'", "image"),
        ("tolerations = [{ operator = 'Exists' }]", "key"),
    ],
)
def test_what_no_pod_can_be_is_refused_with_the_models_name(models: Path, said: str, complaint: str) -> None:
    models.write_text(f"{FAST_MODEL}\n[pocketsphinx_fast.kubernetes]\n{said}\n")
    with pytest.raises(ModelError, match=rf"\[pocketsphinx_fast.kubernetes\] is wrong: .*{complaint}"):
        Pod.read(models, "pocketsphinx_fast")


def test_the_clones_models_have_pods_and_the_large_whispers_a_gpu() -> None:
    file = ROOT / "models.toml"
    pods = {name: Pod.read(file, name) for name in read_models(file)}
    assert {name for name, pod in pods.items() if pod.gpus} == {
        *("distil_large_v3_5", "parakeet_ctc", "whisper_large_v3", "whisper_large_v3_turbo"),
    }
