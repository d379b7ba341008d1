"""Builds a release from the last commit, tries it out and describes it; uploads nothing.

Usage: make release, or: python tools/release.py [--out dist] [--skip-trial]

Wheel and source archive are built twice, from two copies of what is committed, and have to be
equal in each byte. The wheel is installed into an environment of its own, with the versions of
``requirements/constraints.txt``; there ``fldet doctor`` runs, and ten steps on drawn shapes. Of
that environment come the list of components (CycloneDX) and the table of licences, so both are true
of the platform and the Python that they are made with.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(sys.executable).parent

# Ten steps that take seconds: few and small pictures, a narrow network.
TRIAL = (
    *("train_cfg.max_iters=10", "train_cfg.val_interval=10", "train_dataloader.batch_size=2"),
    *("model.backbone.base_channels=8", "model.neck.in_channels=[8,16,32,64]"),
    *(
        f"{part}_dataloader.{setting}"
        for part in ("train", "val")
        for setting in (
            *("num_workers=0", "persistent_workers=False", "dataset.image_size=64"),
            *("dataset.num_train=20", "dataset.num_val=4"),
        )
    ),
)

STEPS = """
Nothing was uploaded. To publish (docs/releasing.md):

1. git tag -s v{version} {commit} && git push origin v{version}
2. The workflow of the tag runs make release on a clean machine, and compares
   {wheel} and {sdist} with SHA256SUMS as written here.
3. Its job "publish", in an environment that a second person approves, uploads these two files as
   a trusted publisher (OpenID Connect, no password), with attestations (PEP 740).
4. pip install fldet=={version} in an empty environment, then fldet doctor.
"""


class ReleaseError(Exception):
    """What stands in the way of a release."""


def main() -> int:
    """Does all steps; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder; made anew")
    parser.add_argument("--skip-trial", action="store_true", help="build and check alone")
    options = parser.parse_args()
    out = options.out.resolve()
    try:
        version, commit, seconds = last_commit()
        with tempfile.TemporaryDirectory(prefix="fldet_release_") as name:
            folder = Path(name)
            built = build_twice(folder, seconds)
            run(HERE / "twine", "check", "--strict", *built)
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            wheel, sdist = (Path(shutil.copy2(file, out)) for file in built)
            if not options.skip_trial:
                python = install(wheel, folder)
                try_out(python, folder / "elsewhere")
                describe(python, out, f"fldet-{version}", seconds)
    except ReleaseError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    write_checksums(out)
    print((out / "SHA256SUMS").read_text(), end="")
    print(STEPS.format(version=version, commit=commit, wheel=wheel.name, sdist=sdist.name))
    return 0


def last_commit() -> tuple[str, str, int]:
    """Returns version, commit and time (seconds since 1970) of what is to be released.

    Raises:
        ReleaseError: something is not committed, or version, citation and changelog differ.
    """
    if text := output("git", "status", "--porcelain"):
        raise ReleaseError(f"not committed:\n{text}")
    found = re.search(r'^__version__ = "(.+)"', read("fldet/__init__.py"), re.MULTILINE)
    version = found[1] if found else ""
    if f"\nversion: {version}\n" not in read("CITATION.cff"):
        raise ReleaseError(f"CITATION.cff has another version than fldet, {version}")
    if not re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", read("CHANGELOG.md"), re.M
    ):
        raise ReleaseError(f"CHANGELOG.md has no dated heading for {version}")
    return (
        version,
        output("git", "rev-parse", "HEAD"),
        int(output("git", "log", "-1", "--format=%ct")),
    )


def build_twice(folder: Path, seconds: int) -> list[Path]:
    """Returns wheel and source archive, built from the commit.

    Raises:
        ReleaseError: a second build gives other bytes.
    """
    builds = []
    for name in ("first", "second"):
        source = folder / name / "source"
        source.mkdir(parents=True)
        archive = subprocess.Popen(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", source], stdin=archive.stdout, check=True)
        if archive.wait():
            raise ReleaseError("git archive failed")
        command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / name)
        run(*command, source, SOURCE_DATE_EPOCH=str(seconds), PYTHONHASHSEED="0")
        builds.append(sorted((folder / name).glob("fldet-*"), key=lambda file: file.suffix)[::-1])
    for one, other in zip(*builds, strict=True):
        if digest(one) != digest(other):
            raise ReleaseError(f"{one.name}: two builds differ")
    print("built twice, equal in each byte")
    return builds[0]


def install(wheel: Path, folder: Path) -> Path:
    """Returns the Python of a new environment with the wheel and the tested versions."""
    environment = folder / "environment"
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    constraints = ROOT / "requirements" / "constraints.txt"
    name = "fldet==" + wheel.name.split("-")[1]
    pip = (python, "-m", "pip", "install", "--quiet")
    # by its name, and from this folder alone: of a path the bill of materials would tell
    run(*pip, "--no-index", "--no-deps", "--find-links", wheel.parent, name)
    run(*pip, "-c", constraints, name)  # what it needs
    run(python, "-m", "pip", "check")
    return python


def try_out(python: Path, folder: Path) -> None:
    """Runs commands of the installed wheel in an empty folder.

    Raises:
        ReleaseError: one failed, or wrote no checkpoint.
    """
    folder.mkdir()
    fldet = python.with_name("fldet")
    run(fldet, "doctor", cwd=folder)
    config = "shapes/retinanet_r18_shapes_short"
    run(fldet, "train", config, "--work-dir", "run", "--cfg-options", *TRIAL, cwd=folder)
    if not (folder / "run" / "iter_10.pth").is_file():
        raise ReleaseError("ten steps of training left no checkpoint")


def describe(python: Path, out: Path, stem: str, seconds: int) -> None:
    """Writes components (CycloneDX, checked by its schema) and licences of an environment."""
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "pip", "setuptools")  # not needed
    bom = out / f"{stem}.cdx.json"
    options = ("--output-reproducible", "--mc-type", "library", "--validate", "-o", bom)
    run(HERE / "cyclonedx-py", "environment", *options, python, SOURCE_DATE_EPOCH=str(seconds))
    licences = out / f"{stem}-licences.md"
    table = ("--format", "markdown", "--with-system", "--output-file", licences)
    run(HERE / "pip-licenses", "--python", python, *table)


def write_checksums(out: Path) -> None:
    """Writes ``SHA256SUMS`` of all files, as ``sha256sum -c`` reads it."""
    files = sorted(file for file in out.iterdir() if file.name != "SHA256SUMS")
    (out / "SHA256SUMS").write_text("".join(f"{digest(file)}  {file.name}\n" for file in files))


def digest(file: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def read(name: str) -> str:
    """Returns the text of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def output(*command: str) -> str:
    """Returns what a command prints in the repository."""
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def run(*command: object, cwd: Path | None = None, **variables: str) -> None:
    """Runs a command without the packages that ``PYTHONPATH`` may add.

    Raises:
        ReleaseError: it failed.
    """
    words = [str(word) for word in command]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    print("+", " ".join(words), flush=True)
    if subprocess.run(words, cwd=cwd, env=environment | variables).returncode:
        raise ReleaseError(f"this command failed: {' '.join(words)}")


if __name__ == "__main__":
    sys.exit(main())
