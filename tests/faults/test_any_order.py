"""Whatever happens to the platform, in whatever order, and killed wherever it writes: once it may end its
work, source, ingest log, Parquet and DuckDB say the same.

The graph, the sensors' decisions, store, log, decoder and DuckDB are the real ones, in this process. What
costs seconds and has tests of its own is kept between runs (decoder and engines, and what those have heard)
or left out (pictures).
"""

import os
import shutil
import tempfile
import wave
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from dagster import AssetKey, DagsterInstance, SensorResult, build_sensor_context
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from asr_assets.definitions import build
from asr_assets.launchers import Launcher, _bury
from asr_assets.promoting import Evidence
from asr_assets.verifying import WRONG, verify
from resources import layout, snapshot
from resources.champions import reigning
from resources.ingest_log import IngestLog, shared_log
from resources.models import SpeechModels
from resources.published import WORD_SCHEMA, Outcome, PublishedTranscripts, Status
from resources.retries import TRIES, all_pending, revived
from resources.settings import Settings
from resources.store import Store
from resources.warehouse import Warehouse
from resources.warehouse import contents as contents_of
from sensors.batches import BATCHES
from sensors.listing import look_on
from sensors.reconciling import reconcile
from sensors.retrying import due
from speech.engines import Hardware
from speech.errors import AsrError, Reason
from speech.listening import Listener
from speech.media import LocalFile, MediaDecoder, read_flac
from speech.models import ModelVersion
from speech.pipeline import Transcriber
from speech.types import SAMPLE_RATE, Samples
from tests.conftest import SAMPLES
from tests.faults.mortal import Desk, Kept, Killed, Reaper, Remembering

EXAMPLES = int(os.environ.get("ASR_ANY_ORDER_EXAMPLES", "4"))

STEPS = int(os.environ.get("ASR_ANY_ORDER_STEPS", "20"))

SEED = os.environ.get("ASR_ANY_ORDER_SEED")  # any: other orders than the ones of every day

KEYS = ("a.wav", "b.wav", "in/c.wav")

ENDS = {
    "please": (Status.OK, None),
    "market": (Status.OK, None),
    "silence": (Status.EMPTY, Reason.NO_SPEECH),
    "damage": (Status.FAILED, Reason.UNREADABLE_MEDIA),
}
"""How a video ends, by what is in it."""

MODELS = ("first", "second")

BEAMS = (3000, 1000)

HAPPENS = {
    "upload": 4,
    "go_back_to_old_bytes": 2,
    "delete": 1,
    "add_a_model_version": 1,
    "change_a_definition": 1,
    "list_the_folder": 3,
    "reconcile": 1,
    "offer_batches": 3,
    "process_a_batch": 6,
    "try_again_what_is_due": 1,
    "load": 2,
    "promote": 1,
    "roll_back": 1,
    "lose_the_warehouse": 1,
    "lose_what_dagster_knows": 1,
    "settle": 1,
}
"""What may happen, and how often beside the rest."""

MOMENTS = (None, *range(10), None, *range(10, 24))
"""Before or after which write a process is killed; None, or one that it does not come to: not at all."""


def as_wav(samples: Samples) -> bytes:
    file = BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE)
        wav.writeframes(samples.tobytes())
    return file.getvalue()


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A second of two samples, a second of nothing, and what is no media."""
    flac = tmp_path_factory.mktemp("clips") / "audio.flac"
    clips = {}
    with MediaDecoder() as decoder:
        for name, sample in (("please", "school.mp4"), ("market", "market.mp4")):
            with LocalFile(SAMPLES / sample) as video:
                decoder.extract(video, sample, flac)
            clips[name] = read_flac(flac)[: int(1.2 * SAMPLE_RATE)]
    clips["silence"] = clips["please"] * 0
    return {name: as_wav(clip) for name, clip in clips.items()} | {"damage": b"no media\n" * 1000}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Real decoders and engines, started once."""
    loaded: dict[str, Listener] = {}

    def load(model: ModelVersion, hardware: Hardware) -> Listener:
        if model.fingerprint not in loaded:
            loaded[model.fingerprint] = Remembering(model, hardware)
        return loaded[model.fingerprint]

    monkeypatch.setattr("speech.workers.Listener", load)
    monkeypatch.setattr(SpeechModels, "load", lambda _, model, *__: Transcriber(model))
    monkeypatch.setattr("asr_assets.transcription.DRAWN", 0)
    monkeypatch.setattr("asr_assets.word_timings.growth", lambda _: 0)
    decoder = Kept()
    for asset in ("raw_videos", "extracted_audio"):
        monkeypatch.setattr(f"asr_assets.{asset}.MediaDecoder", lambda: decoder)
    yield monkeypatch
    decoder.close()
    shared_log.cache_clear()


class AskedFor(NamedTuple):
    """A run that a sensor asked for."""

    batch: str
    assets: list[AssetKey]


class Version(NamedTuple):
    """What lies or lay under a key: the same bytes later are another version."""

    content: str
    modified_at: int


class AnyOrder(RuleBasedStateMachine):
    """One platform, and what its folder holds."""

    def __init__(self, contents: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.contents, self.monkeypatch = contents, monkeypatch
        self.root = Path(tempfile.mkdtemp(prefix="any-order-"))
        self.folder = self.root / "videos"
        (self.folder / "in").mkdir(parents=True)
        (self.folder / "a folder without anything.txt").touch()  # would be taken for one that is not mounted
        self.there: dict[str, Version] = {}
        self.were: dict[str, list[Version]] = {}
        self.content_of: dict[str, str] = {}  # by video_id
        self.heard: set[str] = set()  # video_ids whose words were there when all was settled
        self.clock = 1_000_000_000
        self.beams = {MODELS[0]: BEAMS[0]}
        self.dagster = DagsterInstance.ephemeral()
        self.cursor: str | None = None
        self.asked_for: list[AskedFor] = []
        said = {
            "ASR_SOURCE_URL": str(self.folder),
            "ASR_STORE_URL": str(self.root / "data"),
            "ASR_MODELS": str(self.root / "models.toml"),
            "DAGSTER_HOME": str(self.root / "dagster"),
            "ASR_BATCH_VIDEOS": 2,
            "ASR_BATCH_WAIT_S": 0,
            "ASR_MIN_AGE_S": 0,
        }
        self.settings = Settings(**said)  # type: ignore[arg-type]  # by their aliases
        self.store = Store(url=self.settings.store_url)
        self.configure()

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for _ in range(2):
            self.upload(data)

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        """One rule, and no rule each: Hypothesis would leave half of them out of each example."""
        possible = [name for name, often in HAPPENS.items() if self.is_possible(name) for _ in range(often)]
        getattr(self, data.draw(st.sampled_from(possible)))(data)

    def is_possible(self, name: str) -> bool:
        return {
            "go_back_to_old_bytes": bool(self.were),
            "delete": bool(self.there),
            "add_a_model_version": len(self.beams) < len(MODELS),
            "process_a_batch": bool(self.asked_for),
            "promote": len(self.beams) > 1 and reigning(self.store) is not None,
            "roll_back": sum(1 for _ in self.store.list(layout.CHAMPIONS)) > 1,
        }.get(name, True)

    # What people do to the folder and to models.toml.

    def upload(self, data: st.DataObject) -> None:
        self.clock += 1
        key, content = data.draw(st.sampled_from(KEYS)), data.draw(st.sampled_from(sorted(ENDS)))
        self.put(key, Version(content, self.clock))

    def go_back_to_old_bytes(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.were)))
        self.put(key, data.draw(st.sampled_from(self.were[key])))

    def put(self, key: str, version: Version) -> None:
        path = self.folder / key
        path.write_bytes(self.contents[version.content])
        os.utime(path, (version.modified_at, version.modified_at))
        self.there[key] = version
        if version not in self.were.setdefault(key, []):
            self.were[key].append(version)
        found = self.desk.source.find(key)
        self.content_of[found.video_id] = version.content

    def delete(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.there)))
        (self.folder / key).unlink()
        del self.there[key]

    def add_a_model_version(self, _: st.DataObject) -> None:
        self.beams[MODELS[len(self.beams)]] = BEAMS[0]
        self.configure()

    def change_a_definition(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.beams)))
        self.beams[name] = BEAMS[self.beams[name] == BEAMS[0]]
        self.configure()

    def configure(self) -> None:
        entries = [
            f'[{name}]\nengine = "pocketsphinx"\nchampion = {str(name == MODELS[0]).lower()}\n'
            f"options = {{ fwdflat = false, topn = 2, ds = {number}, maxhmmpf = {beam} }}\n"
            for number, (name, beam) in enumerate(self.beams.items(), start=2)
        ]
        self.settings.models.write_text("\n".join(entries))
        self.restart()

    def restart(self) -> None:
        """Another process: whoever worked for the last one is dead, and nothing is remembered."""
        _bury(Launcher.COMMAND_LINE, self.dagster)
        shared_log.cache_clear()
        self.defs = build(self.settings)
        self.monkeypatch.setattr("asr_assets.running.defs", self.defs)
        self.desk = Desk(self.settings, dagster=self.dagster, definitions=self.defs)

    # What the platform does.

    def do(self, work: Callable[[], object], data: st.DataObject | None = None) -> None:
        """A process's work, and now and then not to its end."""
        at = data.draw(st.sampled_from(MOMENTS)) if data else None
        reaper = Reaper(at, self.settings.warehouse)
        with ExitStack() as stack:
            reaper.watch(stack)
            try:
                work()
            except Killed:
                pass
            except AsrError:
                if not reaper.dead:
                    raise
        if reaper.dead:
            reaper.leave_what_was_there()
            self.restart()

    def list_the_folder(self, data: st.DataObject | None = None) -> None:
        desk = self.desk
        self.do(lambda: look_on(desk.source, desk.store, shared_log(desk.store.url), desk.limits), data)

    def reconcile(self, data: st.DataObject) -> None:
        desk = self.desk
        self.do(lambda: reconcile(desk.source, shared_log(desk.store.url), desk.limits), data)

    def offer_batches(self, _: st.DataObject) -> None:
        sensor = self.defs.get_repository_def().get_sensor_def("new_batches")
        resources = {"store": self.desk.store, "speech_models": self.desk.models}
        with build_sensor_context(self.dagster, self.cursor, resources=resources) as context:
            result = sensor(context)
        if isinstance(result, SensorResult):
            self.cursor = result.cursor
            for request in result.dynamic_partitions_requests or ():
                self.dagster.add_dynamic_partitions(str(BATCHES.name), list(request.partition_keys))
            self.asked_for += [
                AskedFor(str(request.partition_key), list(request.asset_selection or ()))
                for request in result.run_requests or ()
            ]

    def process_a_batch(self, data: st.DataObject) -> None:
        batch, assets = self.asked_for.pop(0)
        self.do(lambda: self.desk.process(batch, assets), data)

    def try_again_what_is_due(self, data: st.DataObject) -> None:
        self.do(lambda: self.try_again(datetime.now(UTC) + timedelta(days=1)), data)

    def try_again(self, now: datetime) -> None:
        """The runs that the sensor videos_to_retry asks for."""
        log = shared_log(self.store.url)
        log.catch_up()
        for request in list(due(revived(self.store, log, now), self.dagster, now)):
            batch = str(request.partition_key)
            if assets := self.desk.to_try_again(batch):
                self.desk.process(batch, assets)

    def load(self, data: st.DataObject) -> None:
        self.do(self.desk.load, data)

    def promote(self, data: st.DataObject) -> None:
        champion = reigning(self.store)
        assert champion
        name = data.draw(st.sampled_from([name for name in self.beams if name != champion.model]))
        evidence = Evidence(champion.model, name, {}, (), {})
        self.do(lambda: self.desk.promote(self.desk.models.get(name), champion, evidence), data)

    def roll_back(self, data: st.DataObject) -> None:
        def back() -> None:
            try:
                self.desk.roll_back()
            except AsrError as error:
                if "nobody was before" not in str(error) and "no words yet" not in str(error):
                    raise

        self.do(back, data)

    def lose_the_warehouse(self, _: st.DataObject) -> None:
        for path in self.settings.warehouse.parent.glob("warehouse.duckdb*"):
            path.unlink()

    def lose_what_dagster_knows(self, _: st.DataObject) -> None:
        self.dagster.dispose()
        self.dagster = DagsterInstance.ephemeral()
        self.cursor, self.asked_for = None, []
        self.restart()

    def settle(self, data: st.DataObject | None = None) -> None:
        if data:
            self.do(self._settle, data)
        self.do(self._settle)
        self.check()

    def _settle(self) -> None:
        """asr run, and then the sensors alone, for some days."""
        desk = self.desk
        for batch in desk.ingest():
            if missing := desk.missing(batch):
                desk.process(batch, missing)
        for days in range(1, TRIES + 2):
            self.try_again(datetime.now(UTC) + timedelta(days=days))
        desk.load()

    def teardown(self) -> None:
        try:
            self.settle()
            self.check_a_rebuilt_warehouse()
        finally:
            self.dagster.dispose()
            shutil.rmtree(self.root)

    # What is true then.

    def check(self) -> None:
        current = {key: self.desk.source.find(key).video_id for key in self.there}
        log = IngestLog(self.store)
        log.catch_up()
        batches = {batch: [video.video_id for video in log.batch(batch).videos] for batch in log.batches}
        everybody = [video_id for ids in batches.values() for video_id in ids]
        assert len(everybody) == len(set(everybody)), "a video was taken in twice"
        assert {
            key: video.video_id for key in KEYS if (video := log.current(self.desk.source.name, key))
        } == (current)
        counts = verify(self.settings)
        assert {name: counts[name] for name in (*WRONG, "gone")} == dict.fromkeys((*WRONG, "gone"), 0)
        assert counts["at_the_source"] == len(current)
        assert not list(self.store.list(layout.UNFINISHED))

        published = self.published(batches)
        outcomes = {
            (name, outcome.video_id): outcome
            for (name, _), transcripts in published.items()
            for outcome in transcripts.head.outcomes
        }
        self.check_outcomes(outcomes, set(current.values()))
        self.check_sql(published, outcomes, current)

    def published(self, batches: Mapping[str, list[str]]) -> dict[tuple[str, str], PublishedTranscripts]:
        """Every batch by every model version, by its present definition, each video once."""
        found = {}
        for model in self.desk.models.enabled:
            for batch, ids in batches.items():
                transcripts = PublishedTranscripts.read(self.store, layout.transcripts(model.name, batch))
                assert transcripts
                assert transcripts.head.fingerprint == model.fingerprint
                assert [outcome.video_id for outcome in transcripts.head.outcomes] == ids
                found[model.name, batch] = transcripts
        assert len(list(self.store.list(layout.TRANSCRIPTS))) == len(found)
        return found

    def check_outcomes(self, outcomes: Mapping[tuple[str, str], Outcome], current: set[str]) -> None:
        for (_, video_id), outcome in outcomes.items():
            end = outcome.status, outcome.reason
            expected = ENDS[self.content_of[video_id]]
            # Who was replaced or deleted before anybody read it can have no words.
            assert end == expected or (video_id not in current | self.heard and outcome.reason in _GONE)
            if outcome.status is Status.OK:
                self.heard.add(video_id)

    def check_sql(
        self,
        published: Mapping[tuple[str, str], PublishedTranscripts],
        outcomes: Mapping[tuple[str, str], Outcome],
        current: Mapping[str, str],
    ) -> None:
        words = [
            (name, *row)
            for (name, _), transcripts in published.items()
            for row in zip(
                *(transcripts.words[column].to_pylist() for column in WORD_SCHEMA.names), strict=True
            )
        ]
        self.check_whose_words(words)
        champion = reigning(self.store)
        columns = ", ".join(WORD_SCHEMA.names)
        with snapshot.read(self.store, self.root / "cache") as connection:

            def asked(sql: str) -> list[tuple[Any, ...]]:
                return sorted(connection.execute(sql).fetchall())

            assert asked(f"SELECT model_version, {columns} FROM words") == in_order(words)
            assert asked("SELECT model_version, video_id, status, reason, words FROM transcripts") == sorted(
                (name, video_id, o.status.value, o.reason and o.reason.value, o.words)
                for (name, video_id), o in outcomes.items()
            )
            assert asked("SELECT video_key, video_id FROM videos_current") == sorted(current.items())
            chosen = [
                row for row in words if champion and row[0] == champion.model and row[1] in current.values()
            ]
            assert asked(f"SELECT model_version, {columns} FROM words_current") == in_order(chosen)
            assert snapshot.champion(connection) == (champion.model if champion else "")

    def check_whose_words(self, words: list[tuple[Any, ...]]) -> None:
        """The same sound has the same words, and another has others."""
        said: dict[tuple[str, str], str] = {}
        by_video: dict[tuple[str, str], list[str]] = {}
        for name, video_id, *rest in words:
            by_video.setdefault((name, video_id), []).append(str(rest))
        for (name, video_id), rows in by_video.items():
            known = said.setdefault((name, self.content_of[video_id]), str(rows))
            assert known == str(rows)
        for name in self.beams:
            both = [said[name, content] for content in ENDS if (name, content) in said]
            assert len(both) == len(set(both))

    def check_a_rebuilt_warehouse(self) -> None:
        anew = Warehouse(path=str(self.root / "anew.duckdb"))
        with anew.exclusive(), Warehouse(path=str(self.settings.warehouse)).connect() as connection:
            anew.rebuild(self.store, lambda *_: None)
            assert contents_of(connection) == anew.contents()


_GONE = {Reason.SUPERSEDED, Reason.MISSING}


def in_order(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=lambda row: row[:4])


def test_a_video_that_was_given_up_is_heard_when_its_bytes_are_back(
    contents: dict[str, bytes], quick: pytest.MonkeyPatch
) -> None:
    life = AnyOrder(contents, quick)
    first, second = Version("please", 1_000_000_001), Version("market", 1_000_000_002)
    life.put("a.wav", first)
    life.list_the_folder()
    life.put("a.wav", second)  # nobody has read the first
    life.settle()
    assert [pending.due_at for pending in all_pending(life.store)] == [None]
    life.put("a.wav", first)
    life.teardown()


@pytest.mark.long
def test_whatever_happens_in_whatever_order_all_of_it_agrees_at_the_end(
    contents: dict[str, bytes], quick: pytest.MonkeyPatch
) -> None:
    run_state_machine_as_test(
        lambda: AnyOrder(contents, quick),  # type: ignore[arg-type]  # whatever makes one will do
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=SEED is None,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
