"""A copy of the project that can be changed, and a Python that imports it from there."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def copy_of_the_tree(root: Path) -> tuple[Path, Path]:
    """A Python that imports this project from a copy of it, and the copy."""
    tree, home = root / "tree", root / "venv"
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(listed, text=True).split("\0"):
        if name and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    venv.create(home, symlinks=True)
    # What this one has installed, but not the way in which it finds the project.
    installed = sysconfig.get_path("purelib")
    (site,) = home.glob("lib/*/site-packages")
    (site / "copy.pth").write_text(f"{tree}\n{installed}\n")
    ours, theirs = Path(sys.executable), home / "bin" / "python"
    for script in ours.parent.iterdir():
        if script.is_file() and script.read_bytes().startswith(f"#!{ours.parent}/".encode()):
            (theirs.parent / script.name).write_text(
                f"#!{theirs}\n{script.read_text().partition(chr(10))[2]}"
            )
            (theirs.parent / script.name).chmod(0o755)
    return theirs, tree
