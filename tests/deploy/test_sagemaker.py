"""What SageMaker is given: a template, an image, and a server that ends when it can hear nothing more."""

import json
import re
import subprocess
import sys
import threading
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.sagemaker.serve import TOLD, Server
from resources.backends import Job
from resources.backends.sagemaker import Endpoint
from resources.store import Store
from speech.engines import Hardware
from speech.errors import WorkerBroken
from speech.media import LocalFile, MediaDecoder
from speech.models import ModelVersion, read_models
from speech.pipeline import Transcriber
from speech.serving import Told
from tests.conftest import FAST_MODEL, ROOT, SAMPLES

HOME = ROOT / "deploy" / "sagemaker"


class Template(yaml.SafeLoader):  # type: ignore[misc]  # it has no types
    """Reads CloudFormation's own tags, too."""


Template.add_multi_constructor("!", lambda loader, tag, node: {tag: loader.construct_scalar(node)})


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((HOME / "endpoint.yaml").read_text(), Template)  # a SafeLoader
    return found


def test_the_template_has_the_names_by_which_it_is_asked(
    template: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    parameters, resources = template["Parameters"], template["Resources"]
    example = dict(
        re.findall(r"(\w+)=(\S+)", (HOME / "endpoint.yaml").read_text().partition("Parameters:")[0])
    )
    assert example.keys() == parameters.keys() - {"InstanceType", "MostInstances"}
    model = read_models(ROOT / "models.toml")[example["Model"]]
    job = Job(model, Store(url="s3://bucket/platform"), "00000001", Hardware(), 0, "asr")
    assert Endpoint(job).name == example["Endpoint"]
    container = resources["ModelVersion"]["Properties"]["PrimaryContainer"]
    assert container["Environment"] == {"ASR_MODEL": {"Ref": "Model"}}
    assert 'os.environ.get("ASR_MODEL"' in (HOME / "serve.py").read_text()
    configuration = resources["Configuration"]["Properties"]
    answers = configuration["AsyncInferenceConfig"]["OutputConfig"]
    policy = json.loads((ROOT / "deploy" / "security" / "sagemaker.json").read_text())
    (below,) = (said["Resource"][0] for said in policy["Statement"] if "s3:DeleteObject" in said["Action"])
    for place in ("S3OutputPath", "S3FailurePath"):
        path = answers[place]["Sub"].replace("s3://${Bucket}", "arn:aws:s3:::answers-bucket")
        assert path.startswith(below.rstrip("*"))
    (variant,) = configuration["ProductionVariants"]
    scaled = resources["Scaling"]["Properties"]["ResourceId"]["Sub"]
    assert scaled == f"endpoint/${{Endpoint}}/variant/{variant['VariantName']}"


def test_the_image_serves_though_it_is_told_to_serve() -> None:
    (line,) = re.findall(r"^ENTRYPOINT (.*)$", (HOME / "Dockerfile").read_text(), re.MULTILINE)
    entry = [part.replace("/opt/asr", str(ROOT)) for part in json.loads(line)]
    done = subprocess.run(
        [*entry, "serve"],
        env={"PATH": str(Path(sys.executable).parent) + ":/usr/bin:/bin", "ASR_MODEL": "nobody"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "unknown model 'nobody'" in done.stderr


@pytest.fixture
def model(tmp_path: Path) -> ModelVersion:
    (tmp_path / "models.toml").write_text(FAST_MODEL)
    return read_models(tmp_path / "models.toml")["pocketsphinx_fast"]


def test_one_that_can_hear_nothing_more_says_so_and_ends(model: ModelVersion, tmp_path: Path) -> None:
    flac = tmp_path / "a.flac"
    with MediaDecoder() as decoder, LocalFile(SAMPLES / "school.mp4") as video:
        decoder.extract(video, "school.mp4", flac)
    with Transcriber(model) as transcriber, Server(("127.0.0.1", 0), transcriber) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()

        def ask(told: str) -> tuple[int, str]:
            with closing(HTTPConnection("127.0.0.1", server.server_port)) as connection:
                connection.request("POST", "/invocations", flac.read_bytes(), {TOLD: told})
                answer = connection.getresponse()
                return answer.status, answer.read().decode()

        assert ask("nonsense") == (400, f"{TOLD} does not say how to listen")
        assert ask(Told(model.fingerprint).encode())[0] == 200
        crew = transcriber._crew
        worker = crew._idle.get()
        assert worker
        crew._retire(worker, WorkerBroken("its device is gone"))
        assert ask(Told(model.fingerprint).encode()) == (503, "no worker is left: its device is gone")
        serving.join(20)
        assert not serving.is_alive()
        assert str(server.broken) == "no worker is left: its device is gone"
