"""The machine fails: a full disk, a damaged file, a broken device, somebody who hangs; and nobody speaks."""

import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRunStatus

from asr_assets.definitions import build
from asr_assets.running import INSTANCE_CONFIG
from asr_assets.transcription import _outcome
from resources import snapshot
from resources.aws import S3
from resources.observations import Video
from resources.published import Status
from resources.settings import Settings
from resources.source import Source
from resources.store import Store
from resources.warehouse import Warehouse
from sensors.batches import PARTITION_TAG, PROCESS_BATCH
from sensors.offering import to_retry
from speech.engines import Asked, Hardware
from speech.errors import EngineError, ModelError, Reason, SourceUnavailable, WarehouseError, WorkerBroken
from speech.models import ModelVersion, read_models
from speech.pipeline import Heard, Transcriber
from speech.reading import Recording
from speech.types import SAMPLE_RATE, HeardWindow, Transcript, Window
from speech.voice import windows as cut
from speech.workers import Apart, Crew, Here
from tests.conftest import FAST_MODEL, KNOWN, ROOT, SAMPLES, Platform
from tests.resources.published import add_batch, load, rows
from tests.speech.test_pipeline import mono_of

pytestmark = pytest.mark.xdist_group("machine")

ONE = Hardware(device="cpu", threads=1, batch_size=8)
CHECKPOINT = ROOT / "micro_whisper" / "checkpoint"
MICRO = ModelVersion("micro", "whisper", weights=str(CHECKPOINT), max_window_s=5.0)


@contextmanager
def nearly_full(folder: Path, left_kb: int, mb: int = 48) -> Iterator[Callable[[], None]]:
    """A small disk at ``folder``, with so little room left; yields what makes room on it."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mb}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk of our own cannot be mounted")
    try:
        disk, ballast = os.statvfs(folder), folder / ".ballast"
        ballast.write_bytes(bytes(disk.f_bavail * disk.f_frsize - (left_kb << 10)))
        yield ballast.unlink
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# Case 34: a disk that is full


class Place(NamedTuple):
    """What lies on the disk that is full, how much of that is left, and what is said of the path there."""

    variable: str
    below: str
    left_kb: int
    says: str


PLACES = [
    Place("ASR_STORE_URL", "data", 0, "cannot write file://{}/ingest/"),
    Place("ASR_STORE_URL", "data", 24, "cannot write file://{}/"),
    Place("ASR_STORE_URL", "data", 400, "cannot write file://{}/snapshots/"),
    Place("ASR_WAREHOUSE", "w.duckdb", 0, "{}: DuckDB cannot work on it"),
    Place("ASR_WAREHOUSE", "w.duckdb", 200, "{}: DuckDB cannot work on it"),
    Place("TMPDIR", "tmp", 24, "cannot write {}/"),
    Place("DAGSTER_HOME", "home", 0, "{}: Dagster's home cannot be written"),
    Place("DAGSTER_HOME", "home", 64, "{}: Dagster cannot keep its own state there"),
    Place("DAGSTER_HOME", "home", 600, "{}: Dagster cannot keep its own state there"),
]
FULL = ("no space left", "disk is full", "disk i/o error")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: a video's id is part of the tables, and the source is part of its id."""
    origin = Platform(tmp_path_factory.mktemp("source"))
    origin.add("delayed_audio.mp4", "silent.mp4")
    (origin.root / "models.toml").write_text(FAST_MODEL)
    return origin.root


def platform_on(source: Path, root: Path) -> Platform:
    env = {"ASR_SOURCE_URL": str(source / "videos"), "ASR_MODELS": str(source / "models.toml")}
    here = {"ASR_WAREHOUSE": str(root / "w.duckdb"), "DAGSTER_HOME": str(root / "home")}
    return Platform(root, env | here)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    platform = platform_on(source, tmp_path_factory.mktemp("undisturbed"))
    platform.must("run", "--workers", "1")
    return platform.tables()


@pytest.mark.case(34)
@pytest.mark.long
@pytest.mark.parametrize("place", PLACES, ids=lambda p: f"{p.variable}-{p.left_kb}")
def test_on_a_full_disk_a_run_says_what_is_full_and_goes_on_when_there_is_room(
    place: Place, source: Path, undisturbed: dict[str, list[str]], tmp_path: Path
) -> None:
    platform, disk = platform_on(source, tmp_path), tmp_path / "disk"
    with nearly_full(disk, place.left_kb) as make_room:
        full = disk / place.below
        if place.variable == "TMPDIR":
            full.mkdir()
        platform.env[place.variable] = str(full)
        done = platform.asr("run", "--workers", "1")
        assert done.returncode == 1, done.stderr
        assert place.says.format(full) in done.stderr
        assert any(sign in done.stderr.lower() for sign in FULL)
        assert "Traceback" not in done.stderr
        make_room()
        platform.must("run", "--workers", "1")
        assert platform.tables() == undisturbed
        home = Path(platform.environment["DAGSTER_HOME"])
        assert (home / "dagster.yaml").read_text() == INSTANCE_CONFIG.read_text()


@pytest.mark.case(34)
@pytest.mark.parametrize("left_kb", [0, 8, 300, 1000, 2500])
@pytest.mark.parametrize("loaded", [0, 2], ids=["the first load", "a later one"])
def test_a_load_on_a_full_disk_damages_nothing(
    left_kb: int, loaded: int, store: Store, tmp_path: Path
) -> None:
    """At 0 not even a header can be written, then no log, no checkpoint; the readers' copy is elsewhere."""
    disk = tmp_path / "disk"
    warehouse, control = (Warehouse(path=str(path / "w.duckdb"), wait_s=1.0) for path in (disk, tmp_path))
    video = " ".join(f"w{n}" for n in range(4000))
    for number in range(loaded):
        add_batch(store, f"{number}.mp4", video)
    if loaded:
        load(control, store)
        Path(control.path).rename(tmp_path / "former")
    for number in range(loaded, loaded + 6):
        add_batch(store, f"{number}.mp4", video)
    load(control, store)
    with nearly_full(disk, left_kb + (4000 if loaded else 0)) as make_room:
        if loaded:
            shutil.copy(tmp_path / "former", warehouse.path)
        with pytest.raises(WarehouseError, match=r"w\.duckdb.*[Nn]o space left"):
            load(warehouse, store)
        with pytest.raises(WarehouseError, match=r"w\.duckdb.*[Nn]o space left"), warehouse.exclusive():
            warehouse.rebuild(store, lambda *_: None)
        assert rows(store, "SELECT count(*) FROM videos") == [(loaded + 6,)]  # as it was published
        make_room()
        load(warehouse, store)
        assert warehouse.contents() == control.contents()


@pytest.mark.case(34)
@pytest.mark.parametrize("left_kb", [0, 100])
def test_a_reader_whose_cache_is_full_is_told_so(left_kb: int, bucket: str, tmp_path: Path) -> None:
    store = Store(url=f"s3://{bucket}")
    add_batch(store, "a.mp4", "one two three")
    load(Warehouse(path=str(tmp_path / "w.duckdb")), store)
    disk = tmp_path / "disk"
    with nearly_full(disk, left_kb) as make_room:
        cache = disk / "cache"
        full = rf"^{cache}: there must be room for a copy of the words \(No space left on device\)"
        with pytest.raises(WarehouseError, match=full), snapshot.read(store, cache):
            pass
        make_room()
        with snapshot.read(store, cache) as connection:
            assert connection.execute("SELECT count(*) FROM words").fetchall() == [(3,)]


# Case 35: see also tests/resources/test_damage.py


@pytest.mark.case(35)
def test_a_copy_that_is_damaged_is_told_so(store: Store, tmp_path: Path) -> None:
    add_batch(store, "a.mp4", " ".join(f"w{n}" for n in range(5000)))
    load(Warehouse(path=str(tmp_path / "w.duckdb")), store)
    (copy,) = (tmp_path / "store" / "snapshots").glob("*.duckdb")
    whole, said = np.fromfile(copy, np.uint8), list[str]()
    for block in range(3 * 4096, len(whole), 1 << 18):
        data = whole.copy()
        data[block + 4096] ^= 0xFF
        data.tofile(copy)
        try:
            with snapshot.read(store, tmp_path) as reader:
                reader.execute("SELECT max(start_s + end_s), max(word || '.') FROM words").fetchall()
        except WarehouseError as error:
            said.append(str(error))
    assert any("the snapshot cannot be read: Corrupt" in sentence for sentence in said), said


# Cases 36 and 37: a device


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    folder = tmp_path_factory.mktemp("recordings")
    return [Recording(name, mono_of(SAMPLES / name, folder)) for name in KNOWN[:4]]


def said(heard: Heard) -> list[tuple[str, float, float]]:
    """Words and times; in a batch of another size probabilities are others in their last digits."""
    assert isinstance(heard.outcome, Transcript), heard.outcome
    return [(word.text, word.start_s, word.end_s) for word in heard.outcome.words]


def all_said(transcriber: Transcriber, recordings: list[Recording]) -> dict[str, Any]:
    return {heard.id: said(heard) for heard in transcriber.run(recordings)}


@pytest.fixture(scope="module")
def as_ever(recordings: list[Recording]) -> dict[str, Any]:
    with Transcriber(MICRO, ONE) as transcriber:
        words = all_said(transcriber, recordings)
    assert all(len(found) > 15 for found in words.values())
    return words


def loaded(transcriber: Transcriber) -> tuple[Here, Any]:
    """The worker in this process, and its network."""
    worker = transcriber._crew._workers[0]
    assert isinstance(worker, Here)
    engine: Any = worker.listener.engine
    return worker, engine._network


def at_call(module: Any, number: int, act: Callable[[Any, Any], Any]) -> None:
    """``act`` on what this part of a network gets and gives, from its call of this number on."""
    calls = 0

    def hook(_: Any, given: Any, out: Any) -> Any:
        nonlocal calls
        calls += 1
        return act(given, out) if calls >= number else None

    module.register_forward_hook(hook)


@pytest.mark.case(36)
@pytest.mark.parametrize(
    ("part", "number"), [("encoder", 1), ("encoder", 2), ("encoder", 3), ("decoder", 1), ("decoder", 30)]
)
def test_out_of_memory_halves_the_batch_and_the_text_is_the_same(
    part: str, number: int, recordings: list[Recording], as_ever: dict[str, Any]
) -> None:
    """Before a batch, or in the midst of its text: each token is a call of the decoder's last layer."""
    import torch

    batches: list[int] = []

    def runs_out(given: Any, out: Any) -> None:
        batches.append(len(out[0]) if part == "encoder" else len(out))
        if batches[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with Transcriber(MICRO, replace(ONE, batch_size=4)) as transcriber:
        worker, network = loaded(transcriber)
        at_call(network.get_encoder() if part == "encoder" else network.proj_out, number, runs_out)
        assert all_said(transcriber, recordings) == as_ever
    assert max(batches) > 1, "it never ran out"
    assert worker.listener.fits == 1


def not_a_number(given: Any, out: Any) -> Any:
    return out * float("nan")


def device_error(given: Any, out: Any) -> Any:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.mark.case(37)
@pytest.mark.parametrize("number", [1, 30])
@pytest.mark.parametrize("act", [not_a_number, device_error])
def test_a_device_that_breaks_is_done_without(
    act: Callable[[Any, Any], Any], number: int, recordings: list[Recording], as_ever: dict[str, Any]
) -> None:
    """Two workers on real networks, one of which breaks for good."""
    with Transcriber(MICRO, ONE) as transcriber:
        well, broken = Here(MICRO, ONE), transcriber._crew._workers[0]
        _, network = loaded(transcriber)
        at_call(network.proj_out, number, act)
        transcriber._crew = Crew([broken, well])
        assert all_said(transcriber, recordings) == as_ever


@pytest.mark.case(37)
@pytest.mark.parametrize("act", [not_a_number, device_error])
def test_when_every_device_is_broken_the_run_fails(
    act: Callable[[Any, Any], Any], recordings: list[Recording]
) -> None:
    with Transcriber(MICRO, ONE) as transcriber:
        _, network = loaded(transcriber)
        at_call(network.proj_out, 1, act)
        with pytest.raises(ModelError, match=r"^no worker is left: .*(no numbers|device failed)"):
            list(transcriber.run(recordings))


@pytest.mark.case(37)
@pytest.mark.parametrize("act", [not_a_number, device_error])
def test_a_recording_that_breaks_the_device_fails_alone(
    act: Callable[[Any, Any], Any], recordings: list[Recording], as_ever: dict[str, Any], tmp_path: Path
) -> None:
    """As a float16 that overflows for one sound, and is well again for the next."""
    bad, *good = recordings
    bad_sound = mono_of(SAMPLES / bad.id, tmp_path)
    with Transcriber(MICRO, ONE) as transcriber:
        worker, _ = loaded(transcriber)
        engine: Any = worker.listener.engine
        features, marked = engine._features, {w.samples.tobytes() for w in cut(bad_sound, MICRO.max_window_s)}

        def overflows(windows: Sequence[Window]) -> Any:
            spectra = features(windows)
            is_bad = any(window.samples.tobytes() in marked for window in windows)
            return act(None, spectra) if is_bad else spectra

        engine._features = overflows
        heard = {one.id: one for one in transcriber.run(recordings)}
    assert {recording.id: said(heard[recording.id]) for recording in good} == {
        recording.id: as_ever[recording.id] for recording in good
    }
    assert isinstance(heard[bad.id].outcome, EngineError)
    outcome, words, message = _outcome(heard[bad.id], "")
    assert (outcome.status, outcome.reason, words) == (Status.FAILED, Reason.ENGINE_FAILED, ())
    assert message


def with_a_nan(folder: Path) -> Path:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.decoder.layers.2.fc2.weight"].reshape(-1)[7] = np.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class Repaired(Apart):
    """A process whose weights are in order again when it is started anew."""

    def close(self) -> None:
        super().close()
        shutil.copy(CHECKPOINT / "model.safetensors", str(self._model.weights))


@pytest.mark.case(37)
def test_a_process_that_says_no_numbers_is_replaced(tmp_path: Path) -> None:
    model = replace(MICRO, weights=str(with_a_nan(shutil.copytree(CHECKPOINT, tmp_path / "copy"))))
    crew, window = Crew([Repaired(model, ONE)]), Window(mono_of(SAMPLES / KNOWN[0], tmp_path), 0.0)
    try:
        (answer,) = crew.submit([window], Asked()).result(120).answers
        assert isinstance(answer, HeardWindow)
        assert len(answer.words) > 15
    finally:
        crew.close()


@pytest.mark.case(37)
def test_no_numbers_of_a_whisper_of_ctranslate2_are_no_silence(tmp_path: Path) -> None:
    from benchmarks.corpus import converted

    folder = with_a_nan(shutil.copytree(CHECKPOINT, tmp_path / "copy"))
    model = ModelVersion("ct2", "faster_whisper", weights=str(converted(folder, tmp_path / "ct2")))
    worker = Here(model, ONE)
    with pytest.raises(WorkerBroken, match="no numbers"):
        worker.hear([Window(mono_of(SAMPLES / KNOWN[0], tmp_path), 0.0)], Asked())


# Case 38: somebody who hangs; a worker in tests/speech/test_listening.py, a decoder in test_media.py


@pytest.mark.case(38)
def test_a_bucket_that_accepts_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.aws.ANSWER_S", 0.3)
    now = datetime.now(UTC)
    video = Video(source="s3://b", key="a.mp4", version="1", size_bytes=9, modified_at=now)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        s3 = S3(
            endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}",
            region_name="us-east-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            max_attempts=2,
        )
        source = Source(url="s3://b", s3=s3)
        for ask in (lambda: list(source.look()), lambda: source.open(video).__enter__()):
            began = time.monotonic()
            with pytest.raises(SourceUnavailable):
                ask()
            assert time.monotonic() - began < 15


@pytest.mark.case(38)
@pytest.mark.parametrize("tagged", [True, False], ids=["a job of ours", "one that the UI made up"])
def test_a_run_that_never_ends_is_ended_and_its_batch_tried_again(
    tagged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hung where nothing of ours watches: in a read of a mount that is dead."""
    from dagster._daemon.monitoring.run_monitoring import check_run_timeout

    monkeypatch.setenv("ASR_MAX_RUN_S", "1")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    config = INSTANCE_CONFIG.read_text()
    if not tagged:
        assert "max_runtime_seconds: 86400" in config
        config = config.replace("max_runtime_seconds: 86400", "max_runtime_seconds: 1")
    (tmp_path / "dagster.yaml").write_text(config)
    job = build(Settings.from_env()).resolve_job_def(PROCESS_BATCH)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_monitoring_enabled
        tags = {PARTITION_TAG: "00000001"} | (dict(job.run_tags) if tagged else {})
        run_id = instance.create_run_for_job(job, tags=tags).run_id
        started = DagsterEvent(DagsterEventType.PIPELINE_START.value, job.name)
        instance.report_dagster_event(started, run_id)
        assert run_of(instance, run_id).dagster_run.status is DagsterRunStatus.STARTED

        def look() -> None:
            default = float(instance.run_monitoring_max_runtime_seconds)
            check_run_timeout(instance, run_of(instance, run_id), logging.getLogger(), default)

        look()
        assert not list(to_retry(instance, datetime.now(UTC)))
        time.sleep(1.1)
        look()
        assert run_of(instance, run_id).dagster_run.status is DagsterRunStatus.FAILURE
        assert [asked.partition_key for asked in to_retry(instance, datetime.now(UTC))] == ["00000001"]


def run_of(instance: DagsterInstance, run_id: str) -> Any:
    return instance.get_run_record_by_id(run_id)


# Case 39: nobody speaks

COUNT = 10 * SAMPLE_RATE
TIME = np.arange(COUNT) / SAMPLE_RATE
Sound = npt.NDArray[np.float64]


def silence() -> Sound:
    return np.zeros(COUNT)


def white_noise() -> Sound:
    return np.random.default_rng(1).standard_normal(COUNT)


def pink_noise() -> Sound:
    spectrum = np.fft.rfft(white_noise())
    noise: Sound = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), COUNT)
    return noise


def hum() -> Sound:
    return sum((np.sin(2 * np.pi * 50 * k * TIME) / k for k in (1, 2, 3, 5)), start=silence())


def tune() -> Sound:
    """Four notes a second, each plucked, with overtones."""
    scale = np.array([0, 4, 7, 12, 7, 4, 0, 5, 9, 12, 9, 5, 7, 11, 14, 11])
    pitch = 220 * 2 ** (scale / 12)
    phase = 2 * np.pi * np.cumsum(pitch[(TIME * 4).astype(int) % len(scale)]) / SAMPLE_RATE
    plucked: Sound = np.exp(-3 * (TIME * 4 % 1)) * sum(np.sin(k * phase) / k for k in (1, 2, 3, 4))
    return plucked


FAST = ModelVersion("fast", "pocketsphinx", options={"fwdflat": False, "maxhmmpf": 3000, "topn": 2, "ds": 2})
ENGINES = {"pocketsphinx": FAST, "micro_whisper": read_models(ROOT / "models.toml")["micro_whisper"]}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Transcriber]:
    with Transcriber(ENGINES[request.param], ONE) as transcriber:
        yield transcriber


@pytest.mark.case(39)
@pytest.mark.parametrize("level_db", [-60, -40, -20, -3])
@pytest.mark.parametrize("sound", [silence, white_noise, pink_noise, hum, tune])
def test_where_nobody_speaks_there_are_no_words_or_flagged_ones(
    sound: Callable[[], Sound], level_db: int, engine: Transcriber
) -> None:
    samples = sound() / (np.abs(sound()).max() or 1) * 10 ** (level_db / 20)
    heard = engine.hear(Recording("a", (samples * 32767).astype(np.int16)))
    outcome, found, _ = _outcome(heard, "")
    assert isinstance(heard.outcome, Transcript)
    if sound is tune:  # which is like a voice in some ways, at some levels: to_review(), or the column voice
        assert all(
            w.probability < 0.5 or (w.voice is not None and w.voice < 0.5) for w in heard.outcome.words
        )
    else:
        assert (outcome.status, outcome.reason, found) == (Status.EMPTY, Reason.NO_SPEECH, ())
