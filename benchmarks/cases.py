"""The cases that are tried, and how each has to end; tests name those they show: ``@pytest.mark.case(n)``."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import typer

from benchmarks.report import Check
from benchmarks.tree import copy_of_the_tree

CASES = {
    1: (
        "No bytes, bytes that mean nothing, an MP4 without its index",
        "`unreadable_media`, never tried again",
    ),
    2: ("The end is missing", "`cut_short`, or `undecodable_audio` where most is missing"),
    3: ("A playlist that leads to an address", "`unreadable_media`; nobody is called"),
    4: ("A playlist or script that leads to a file", "`unreadable_media`; that file is not read"),
    5: ("An SDP named as a video", "`unreadable_media`, at once"),
    6: ("Hours in a few kilobytes", "bounded memory; `too_long` over a day"),
    7: ("0, 500 and 65 535 channels", "`undecodable_audio`, bounded memory"),
    8: ("Another sample rate or layout half-way", "heard to its end"),
    9: ("No sound", "`no_audio`, no failure"),
    10: ("Several audio tracks", "the default one, recorded in `audio_stream`"),
    11: ("Sound that begins late or before 0, an edit list", "times of the video, within a frame"),
    12: ("A clock that jumps or wraps", "times go on; counted in `clock_jumps`"),
    13: ("Frames of the picture at odd times", "no difference"),
    14: ("A day of sound", "bounded memory; resumed where it was"),
    15: ("Damaged packets", "heard, with a `lost_share`; `undecodable_audio` over a half"),
    16: ("Encrypted", "`undecodable_audio`, called so"),
    17: ("A title that is no UTF-8", "heard"),
    18: ("A decoder that dies", "`decoder_died`, of that video alone"),
    19: ("A decoder that spins", "`decoder_stalled`, of that video alone"),
    20: ("A video that kills its decoder each time", "a few tries, then given up; its batch goes on"),
    21: ("Hostile names", "the same name in every table and file"),
    22: ("Overwritten while it is read", "`superseded`; never a mix of two versions"),
    23: ("Deleted before it is read", "`missing`; the rest goes on"),
    24: ("Events twice, late, lost", "one result; reconciliation finds what was lost"),
    25: ("Over a thousand objects of one second", "none is missed"),
    26: ("Killed between asking for runs and saving the cursor", "one result"),
    27: ("A run that failed", "can be run again"),
    28: ("A sensor renamed, runs purged", "nothing is ingested twice"),
    29: ("Killed at every step", "started again: the same tables"),
    30: ("Killed between the object and the event that tells of it", "reconciled"),
    31: ("S3 busy, slow, broken off, credentials expired", "asked again, later, and then it goes on"),
    32: ("A conditional PUT refused, in conflict, or its answer lost", "there already, tried again, or ours"),
    33: ("Two at work on one batch", "one result"),
    34: ("A full disk", "said so; goes on when there is space"),
    35: ("DuckDB's file locked or damaged", "waits, or is made anew: the same rows"),
    36: ("A device out of memory", "smaller batches, the same text"),
    37: (
        "A device that fails, numbers that are none",
        "another worker, or a failure; never an empty success",
    ),
    38: ("Something hangs", "ended by a watchdog"),
    39: ("Silence, music, noise", "no words, or words that are flagged"),
    40: ("Weights damaged, a revision that moved", "refuses to start"),
    41: ("Secrets", "in no log, table, message or child process"),
}


def cases(workers: int = 2) -> Iterator[Check]:
    """Runs every test that shows a case; one has passed when all of its tests have.

    In a copy of the tree, as where something is taken out of it: what fails there fails for that alone.
    """
    with TemporaryDirectory() as temporary:
        python, tree = copy_of_the_tree(Path(temporary))
        report = Path(temporary) / "report.xml"
        pytest = [
            python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-n",
            str(workers),
            "--dist",
            "loadgroup",
        ]
        chosen = ["-m", "case or fault", "-o", "junit_family=xunit1", f"--junitxml={report}", "tests"]
        done = subprocess.run([*pytest, *chosen], cwd=tree, stdout=sys.stderr, timeout=3000, check=False)
        passed, failed = _ended(ElementTree.parse(report))
    for number in sorted(CASES.keys() - (passed - failed)):
        typer.echo(
            f"case {number}: {'FAILED' if number in failed else 'NOT SHOWN'}: {CASES[number][0]}", err=True
        )
    yield Check.at_least("cases_passed", len(passed - failed), f"of {len(CASES)}", len(CASES))
    yield Check("pytest_exit_code", done.returncode, "", 0)


def _ended(report: ElementTree.ElementTree) -> tuple[set[int], set[int]]:
    """Cases that a test has shown, and cases that a test has refuted."""
    passed, failed = set[int](), set[int]()
    for test in report.iter("testcase"):
        shown = {
            int(number)
            for told in test.iter("property")
            if told.get("name") == "cases"
            for number in told.get("value", "").split()
        }
        if test.find("failure") is not None or test.find("error") is not None:
            failed |= shown
        elif test.find("skipped") is None:
            passed |= shown
    return passed, failed
