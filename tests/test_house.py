"""The house: what is defined, and that loading it loads no engine."""

import subprocess
import sys

import pytest

from asr_assets.definitions import defs

HEAVY = (
    "torch",
    "transformers",
    "faster_whisper",
    "ctranslate2",
    "ray",
    "kubernetes",
    "dagster_k8s",
    "pocketsphinx",
    "opentelemetry",
)


def test_what_the_ui_shows() -> None:
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    shown = {
        node.key.to_user_string(): (
            node.group_name,
            sorted(node.kinds),
            node.partitions_def.name if node.partitions_def else None,  # type: ignore[attr-defined]
            sorted(key.name for key in node.check_keys),
            sorted(parent.to_user_string() for parent in node.parent_keys),
        )
        for node in graph.asset_nodes
        if node.description
    }
    checks = [
        "every_video_accounted_for",
        "every_word_timed",
        "inside_the_video",
        "probabilities_in_range",
        "times_monotonic",
    ]
    below = ("batch", checks, ["extracted_audio"])
    assert shown == {
        "reconciliation": ("ingestion", ["s3"], None, [], []),
        "raw_videos": ("ingestion", ["video"], "batch", [], []),
        "extracted_audio": ("ingestion", ["ffmpeg", "flac"], "batch", [], ["raw_videos"]),
        "transcripts/pocketsphinx": ("transcripts", ["parquet", "pocketsphinx"], *below),
        "transcripts/micro_whisper": ("transcripts", ["parquet", "whisper"], *below),
        "word_timings": (
            "warehouse",
            ["duckdb"],
            None,
            ["champion_as_crowned", "videos_known", "words_match_transcripts", "words_on_time"],
            ["transcripts/micro_whisper", "transcripts/pocketsphinx"],
        ),
        "model_comparison": ("warehouse", ["duckdb"], None, [], ["word_timings"]),
    }
    assert {job.name for job in repository.get_all_jobs()} >= {
        "process_batch",
        "load_words",
        "compare_models",
        "reconcile",
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "new_videos",
        "new_batches",
        "videos_to_retry",
        "published_words",
        "loaded_words",
        "late_words",
    }
    assert {schedule.name for schedule in repository.schedule_defs} == {"reconcile_hourly"}
    # Batches come when videos come: only what is due by the clock may grow old.
    assert [node.key.to_user_string() for node in graph.asset_nodes if node.freshness_policy] == [
        "reconciliation"
    ]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("asr_assets.definitions", HEAVY),
        # Every command waits for what is loaded here.
        ("asr_assets.cli", (*HEAVY, "dagster_aws", "scipy", "matplotlib")),
    ],
)
def test_what_is_heavy_is_loaded_when_it_is_used(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import {module}, sys; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
