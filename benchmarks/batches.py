"""A platform that has seen very many batches: its ingest log, and Dagster's database.

Through Dagster's own API the events of a batch take seconds. Here SQL writes the rows of one real run again
for each other batch, with batch, run and numbers replaced; :func:`differences` says whether that is what
another real run writes. Of its rows those are copied that questions about assets, batches and runs go
through: the run and its tags, what was planned and materialized, data versions. Its other rows, of steps,
resources and checks, are found by a run's id, or are the newest of their kind; they would be 10 GB.
"""

import re
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import sqlalchemy
from dagster import DagsterInstance, RunsFilter
from sqlalchemy.engine import Connection

from resources import layout
from resources.ingest_log import CHECKPOINT_ENTRIES
from resources.observations import IngestEntry, Video, as_table, batch_key, encode
from resources.store import Store
from sensors.batches import BATCHES, PARTITION_TAG, PROCESS_BATCH

AT_ONCE = 5000
NOT_RUN, FAILED = 0, 1
"""Of 25 batches the first has had no run yet; of 100 the second has failed: 95 of 100 are materialized."""

# SQLite takes the tables of a CROSS JOIN in the order in which they are named, and no index for what is no
# column alone: each run's events are few, each asset's are not.
_RUNS = (
    """
    INSERT INTO runs (run_id, snapshot_id, pipeline_name, status, run_body, partition, partition_set,
                      create_timestamp, update_timestamp, start_time, end_time)
    SELECT c.run_id, snapshot_id, pipeline_name, c.status,
           replace(replace(replace(run_body, :run, c.run_id), :quoted, '"' || c.batch || '"'),
                   'PipelineRunStatus.SUCCESS', 'PipelineRunStatus.' || c.status),
           replace(partition, :batch, c.batch), partition_set, :long_ago, :long_ago, start_time, end_time
    FROM copied c CROSS JOIN runs WHERE runs.run_id = :run ORDER BY c.batch
    """,
    """
    INSERT INTO run_tags (run_id, key, value)
    SELECT c.run_id, key, CASE value WHEN :batch THEN c.batch ELSE value END
    FROM copied c CROSS JOIN run_tags t WHERE t.run_id = :run ORDER BY c.batch, t.id
    """,
)
_EVENTS = (
    """
    INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
    SELECT c.run_id, replace(replace(event, :run, c.run_id), :quoted, '"' || c.batch || '"'),
           dagster_event_type, timestamp, step_key, asset_key, c.batch
    FROM copied c CROSS JOIN event_logs e
    WHERE e.run_id = :run AND (dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED'
        OR dagster_event_type = 'ASSET_MATERIALIZATION' AND c.status = 'SUCCESS')
    ORDER BY c.batch, e.id
    """,
    """
    INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp)
    SELECT e.id, t.asset_key, t.key, t.value, t.event_timestamp
    FROM event_logs seed CROSS JOIN asset_event_tags t CROSS JOIN copied c CROSS JOIN event_logs e
    WHERE seed.run_id = :run AND t.event_id = seed.id AND e.run_id = c.run_id
        AND e.asset_key || '' = t.asset_key AND e.dagster_event_type || '' = seed.dagster_event_type
    ORDER BY e.id
    """,
)
_COMPARED = {
    "runs": "SELECT status, run_body, partition, partition_set, snapshot_id FROM runs WHERE run_id = :run",
    "tags": "SELECT key, value FROM run_tags WHERE run_id = :run",
    "events": "SELECT event, dagster_event_type, step_key, asset_key, partition FROM event_logs "
    "WHERE run_id = :run AND dagster_event_type IN "
    "('ASSET_MATERIALIZATION_PLANNED', 'ASSET_MATERIALIZATION')",
    "versions": "SELECT t.asset_key, key, value FROM asset_event_tags t JOIN event_logs e ON e.id = event_id "
    "WHERE run_id = :run",
}
# What no two runs share: hashes, times, processes, numbers of other events, ids of videos.
_OWN = re.compile(
    r'[0-9a-f]{64}|"(timestamp|pid|storage_id)": [\d.]+'
    r'|"dagster/input_event_pointer/\w+": "\d+"|"video": "[0-9a-f]{8}"'
)


def write_log(store: Store, source: str, batches: int, videos: int) -> None:
    """An ingest log of so many batches of so many videos each, and its checkpoints."""
    when = datetime(2026, 1, 1, tzinfo=UTC)
    entries = []
    for number in range(1, batches + 1):
        keys = [f"talks/{number:08d}/{n:02d}.mp4" for n in range(videos)]
        taken = tuple(Video(source=source, key=k, version="1", size_bytes=1, modified_at=when) for k in keys)
        entries.append(IngestEntry(number=number, observed_at=when, videos=taken))
        store.put(layout.numbered(layout.INGEST, number), entries[-1].model_dump_json().encode())
        if number % CHECKPOINT_ENTRIES == 0:
            store.put(layout.checkpoint(number), encode(as_table(entries)))
            entries = []


def copy_run(instance: DagsterInstance, original: str, first: int, last: int) -> None:
    """Write what the run of a batch has left again, for batches from number ``first`` to ``last``."""
    assert BATCHES.name is not None
    batch = {"run": run_of(instance, original), "batch": original, "quoted": f'"{original}"'}
    long_ago = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=30)
    for begin in range(first, last + 1, AT_ONCE):
        numbers = range(begin, min(begin + AT_ONCE, last + 1))
        instance.add_dynamic_partitions(BATCHES.name, list(map(batch_key, numbers)))
        copied = [
            {
                "batch": batch_key(number),
                "run_id": str(uuid.uuid5(uuid.NAMESPACE_OID, batch["run"] + batch_key(number))),
                "status": "FAILURE" if number % 100 == FAILED else "SUCCESS",
            }
            for number in numbers
            if number % 25 != NOT_RUN
        ]
        with instance.run_storage.connect() as connection:
            _copy(connection, _RUNS, copied, batch | {"long_ago": long_ago})
        with instance.event_log_storage.index_connection() as connection:
            _copy(connection, _EVENTS, copied, batch)


def _copy(
    connection: Connection,
    statements: tuple[str, ...],
    copied: list[dict[str, str]],
    values: dict[str, object],
) -> None:
    connection.execute(sqlalchemy.text("CREATE TEMP TABLE copied (batch TEXT, run_id TEXT, status TEXT)"))
    connection.execute(sqlalchemy.text("INSERT INTO copied VALUES (:batch, :run_id, :status)"), copied)
    for statement in statements:
        if connection.dialect.name == "postgresql":
            connection.execute(sqlalchemy.text("ANALYZE"))  # nobody has counted yet
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        connection.execute(sqlalchemy.text(statement), used)
    connection.execute(sqlalchemy.text("DROP TABLE copied"))


def run_of(instance: DagsterInstance, batch: str) -> str:
    """The id of the one run that a batch has had."""
    of_batch = RunsFilter(job_name=PROCESS_BATCH, tags={PARTITION_TAG: batch})
    (run,) = instance.get_runs(of_batch)
    return run.run_id


def differences(instance: DagsterInstance, one: str, other: str) -> int:
    """Rows that only one of two batches' runs has, but for what no two runs share."""
    rows, others = (Counter(_rows(instance, batch)) for batch in (one, other))
    return ((rows - others) + (others - rows)).total()


def _rows(instance: DagsterInstance, batch: str) -> Iterator[str]:
    run = run_of(instance, batch)
    with (
        instance.run_storage.connect() as runs,
        instance.event_log_storage.index_connection() as events,
    ):
        for name, query in _COMPARED.items():
            connection = runs if name in ("runs", "tags") else events
            for row in connection.execute(sqlalchemy.text(query), {"run": run}):
                told = str(tuple(row)).replace(run, "RUN").replace(batch, "BATCH")
                yield f"{name} {_OWN.sub('', told)}"
