"""What protects from each case, taken out: the tests of that case have to notice.

Each time in a copy of the tree, in which all of them pass (:mod:`benchmarks.cases`) as long as nothing is
taken out; a case whose tests still pass then is shown by nobody.
"""

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import typer

from benchmarks.cases import CASES
from benchmarks.report import Check
from benchmarks.tree import copy_of_the_tree

AT_ONCE = 2
NOTICED_S, HANGS_S = 600, 100


class Protection(NamedTuple):
    """A piece of code that protects from a case, once in its file, and what stands there without it.

    ``also`` is what would protect as well, by file; ``ends`` says whether the case's tests come to an end
    without all that.
    """

    case: int
    code: str
    without: str
    also: tuple[tuple[str, str, str], ...] = ()
    ends: bool = True


# No playlist, no script and no description of a session passes these.
_ALLOWED = (
    'options = {"format_whitelist": CONTAINERS, "codec_whitelist": CODECS, "protocol_whitelist": "none"}',
    "options: dict[str, str] = {}",
)
_NAMED = 'self.name = "list.m3u8"\n        self._pipe, self.size, self._at ='
_UNREADABLE = "as error:\n        raise MediaError(\n            Reason.UNREADABLE_MEDIA"
PROTECTIONS = {
    "speech/media_child.py": [
        Protection(
            1,
            f"except (av.FFmpegError, ValueError, MemoryError) {_UNREADABLE}",
            f"except ZeroDivisionError {_UNREADABLE}",
        ),
        *(Protection(case, *_ALLOWED) for case in (4, 5)),
        Protection(7, "if container.streams.audio and (best is None or", "if False and (best is None or"),
        Protection(10, 'container.streams.best("audio")', "next(iter(container.streams.audio), None)"),
        Protection(11, "if ABSOLUTE in names:\n        return 0.0", "if False:\n        return 0.0"),
        # Nothing of the picture is looked at.
        Protection(13, "if packet.stream is not stream:", "if False:"),
        Protection(15, "LOST_SHARE = 0.5", "LOST_SHARE = 2.0"),
        Protection(16, "if encrypted:", "if False:"),
        Protection(17, 'metadata_errors="replace", ', ""),
    ],
    "speech/cut_short.py": [Protection(2, "return rule is not None and rule(file, size)", "return False")],
    "speech/confined.py": [
        Protection(3, "libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)", "pass"),
        Protection(
            3,
            "libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)",
            "pass",
            also=(
                ("speech/media_child.py", *_ALLOWED),
                # A name like this makes FFmpeg believe what stands in it; it is told none.
                ("speech/media_child.py", "self._pipe, self.size, self._at =", _NAMED),
            ),
        ),
        Protection(6, "MEMORY_BYTES = 5 << 28", "MEMORY_BYTES = 4 << 30"),
        Protection(18, 'Path("/proc/self/oom_score_adj").write_text("1000")', "pass"),
        Protection(41, "libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0)", "pass"),
    ],
    "speech/timeline.py": [
        Protection(8, "if shape != self._shape or abs", "if self._resampler is None or abs"),
        Protection(12, "not self._believable(time_s, off_s):", "False:"),
    ],
    "speech/media.py": [
        Protection(6, '"max_audio_s": MAX_AUDIO_S}', '"max_audio_s": 1e9}'),
        Protection(18, "answered = not problem.spent", "answered = True"),
        Protection(18, "if self._child and self._child.poll() is not None:", "if False:"),
        Protection(41, 'env={"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},', "env=None,"),
        Protection(18, "os.killpg(self._child.pid, signal.SIGKILL)", "self._child.kill()"),
        Protection(19, "patience = min(STALL_S, left_s)", "patience = STALL_S", ends=False),
        Protection(19, "resource.prlimit(self._child.pid, resource.RLIMIT_CPU, limit)", "pass"),
    ],
    "asr_assets/raw_videos.py": [Protection(9, "if media.audio_stream is None:", "if False:")],
    "asr_assets/transcription.py": [
        Protection(14, "if some := HeardWindows.read(self.store, kept.key):", "if some := None:"),
        Protection(33, "if video and video.outcome.told == told", "if video.outcome.told == told"),
    ],
    "resources/retries.py": [Protection(20, "(self.tries - 1) if self.tries <= TRIES else None", "1")],
    "resources/source_s3.py": [
        Protection(
            21, 'self._video(found["Key"], found', 'self._video(found["Key"].replace("//", "/"), found'
        ),
        Protection(22, "            IfMatch=f'\"{self._video.version}\"',\n", ""),
        Protection(23, 'if code in ("NoSuchKey", "404"):', "if code in ():"),
        Protection(31, "if tries == 1:", "if tries:"),
        Protection(31, "not _is_passing(error) and self", "self"),
    ],
    "sensors/reconciling.py": [
        Protection(24, "record(log, _noticed(", "record(log, () and _noticed("),
    ],
    "resources/source.py": [
        Protection(25, "return\n        self.position = None", "return"),
    ],
    "sensors/offering.py": [
        # Dagster's own and ours: either is enough.
        Protection(
            26,
            'run_key=f"batch-{batch}", partition_key=batch)',
            "partition_key=batch)",
            also=(("sensors/offering.py", "if not was_started(batch, context.instance) and", "if"),),
        ),
        Protection(27, "if not 0 < len(failures) <= len(WAITS):", "if True:"),
        Protection(28, "and not is_finished(batch, steps, routing, store)", ""),
    ],
    "asr_assets/running.py": [
        Protection(29, "self.store.head(layout.extracted(batch))", "self.store.head(layout.probed(batch))"),
    ],
    "asr_assets/processing.py": [
        Protection(
            30,
            "            runner.load()\n        if not",
            "            batches and runner.load()\n        if not",
        ),
    ],
    "resources/store.py": [
        Protection(31, "except GenericError:\n", "except ZeroDivisionError:\n"),
        Protection(32, "return there == data", "return False"),
        Protection(
            41, 'its credentials"\n            ) from None', 'its credentials"\n            ) from error'
        ),
        Protection(41, 'first_line(error).partition("<")[0] +', "first_line(error) +"),
        Protection(32, "if there is None:", "if False:"),
    ],
    "resources/warehouse.py": [
        Protection(34, 'if not head.strip(b"\\0"):', "if False:"),
        Protection(35, "return is_ours and _is_whole(path)", "return is_ours"),
        Protection(35, "            if _is_blameless(error):\n", "            if False:\n"),
    ],
    "resources/loader.py": [Protection(34, "with suppress(duckdb.Error):  #", "with suppress():  #")],
    "speech/listening.py": [
        Protection(36, "if len(windows) > 1:", "if False:"),
        Protection(37, "if not np.isfinite([", "if not np.isreal(["),
        Protection(37, "if any(word in str(error).lower() for word in _POISON):", "if False:"),
    ],
    "speech/environment.py": [Protection(41, "if any(names.fullmatch(k) for names in lists)}", "}")],
    "speech/watchdog.py": [
        Protection(19, "timer.start()", "pass", ends=False),
        Protection(38, "timer.start()", "pass"),
    ],
    "resources/aws.py": [Protection(38, "read_timeout=ANSWER_S, ", "")],
    "asr_assets/definitions.py": [
        Protection(38, "return {MAX_RUNTIME_SECONDS_TAG: str(settings.max_run_s)}", "return {}"),
    ],
    "speech/voice.py": [Protection(39, "_SURE, _DOUBTFUL = 0.5, 0.35", "_SURE, _DOUBTFUL = 0.0, 0.0")],
    "speech/weights.py": [
        Protection(40, "if model.digest and (found", "if False and (found"),
        Protection(40, "(blob for blob in named if", "(blob for blob in () if"),
    ],
}


def protections(every: int = 1) -> Iterator[Check]:
    """All of them, or one in so many."""
    table = [(file, each) for file, some in PROTECTIONS.items() for each in some]
    tried = table[::every]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        unnoticed = sum(not noticed for noticed in pool.map(_noticed, *zip(*tried, strict=True)))
    yield Check.at_least("protected_cases", len({each.case for _, each in table}), "", len(CASES))
    yield Check("protections_not_missed", unnoticed, f"of {len(tried)}", 0)


def _noticed(name: str, protection: Protection) -> bool:
    """Whether a test of its case fails without it."""
    with TemporaryDirectory() as temporary:
        python, tree = copy_of_the_tree(Path(temporary))
        file = tree / name
        code = file.read_text()
        assert code.count(protection.code) == 1, (
            f"{protection} stands there {code.count(protection.code)} times"
        )
        file.write_text(code.replace(protection.code, protection.without))
        marked = [file for file in (tree / "tests").rglob("test_*.py") if "mark.case" in file.read_text()]
        pytest = [
            python,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "--cases",
            str(protection.case),
        ]
        try:
            tests = subprocess.run(
                [*pytest, *marked],
                cwd=tree,
                capture_output=True,
                text=True,
                timeout=NOTICED_S if protection.ends else HANGS_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            noticed, said = not protection.ends, "they did not end"
        else:
            said = tests.stdout[-2000:]
            noticed = (
                re.search(r"^1 failed", said, re.MULTILINE) is not None
            )  # and is no error beside the test
    where = f"case {protection.case} without {protection.code.strip()!r} in {name}"
    typer.echo(f"{where}: {f'NOT NOTICED: {said}' if not noticed else 'noticed'}", err=True)
    return noticed
