"""What the image has of the repository: what its build is given, all of which the Dockerfile copies."""

import re
import shutil
from pathlib import Path

from tests.asr_assets.chart import DEPLOY
from tests.conftest import ROOT


def image(folder: Path) -> Path:
    """A new folder with no more than that."""
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE)[-1] == ". ."
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    nothing, *patterns = [line for line in lines if not line.startswith("#")]
    let_through = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    # What these lines know of Docker's patterns.
    assert [nothing, *let_through, "**/__pycache__"] == ["*", *(p.removeprefix("!") for p in patterns)]
    for name in let_through:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, folder / name)
    return folder
