"""What stands in the way of a release, its checksums, and a source archive of the same bytes."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACK = "from setuptools import build_meta; build_meta.build_sdist('dist')"


@pytest.fixture
def release():
    spec = importlib.util.spec_from_file_location("release", ROOT / "tools" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path, monkeypatch, release):
    """A repository that could be released, as version 1.2.0."""
    root = tmp_path / "repository"
    (root / "fldet").mkdir(parents=True)
    (root / "fldet" / "__init__.py").write_text('__version__ = "1.2.0"\n')
    (root / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.0\n")
    (root / "CHANGELOG.md").write_text("## [Unreleased]\n\n## [1.2.0] - 2026-12-01\n")
    monkeypatch.setattr(release, "ROOT", root)
    git(root, "init", "-q")
    commit(root)
    return root


def git(root, *words):
    names = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *names, *words], cwd=root, check=True, capture_output=True)


def commit(root):
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "all", "--date", "@1764547200 +0000")


def test_what_is_committed_and_named_alike_can_be_released(release, repository):
    version, found, seconds = release.last_commit()
    assert version == "1.2.0"
    assert len(found) == 40
    assert seconds > 1_700_000_000


def test_what_is_not_committed_is_not_released(release, repository):
    (repository / "new.py").touch()
    with pytest.raises(release.ReleaseError, match=r"not committed:\n.*new\.py"):
        release.last_commit()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("CITATION.cff", "version: 1.1.0\n", r"another version than fldet, 1\.2\.0"),
        ("CHANGELOG.md", "## [1.2.0]\n", r"no dated heading for 1\.2\.0"),
        ("CHANGELOG.md", "## [1.2.0.1] - 2026-12-01\n", "no dated heading"),
    ],
)
def test_other_versions_elsewhere_are_named(release, repository, file, text, message):
    (repository / file).write_text(text)
    commit(repository)
    with pytest.raises(release.ReleaseError, match=message):
        release.last_commit()


def test_a_command_that_fails_ends_the_release(release):
    with pytest.raises(release.ReleaseError, match="this command failed"):
        release.run(sys.executable, "-c", "raise SystemExit(3)")


def test_checksums_are_those_that_coreutils_check(release, tmp_path):
    (tmp_path / "b.whl").write_bytes(b"wheel")
    (tmp_path / "a.json").write_bytes(b"{}")
    release.write_checksums(tmp_path)
    release.write_checksums(tmp_path)  # not of itself
    subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert len((tmp_path / "SHA256SUMS").read_text().splitlines()) == 2


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The source archive, packed from two copies with other times, rights and order of files."""
    pytest.importorskip("setuptools", minversion="77")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not in a clone")
    names = [name for name in tracked.stdout.split("\0") if (ROOT / name).is_file()]
    packed = []
    for number, order in enumerate((names, names[::-1])):
        folder = tmp_path_factory.mktemp("archive") / "source"
        for name in order:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
            (folder / name).chmod(0o600 if number else 0o644)
            os.utime(folder / name, (1e9 + number, 1e9 + number))
        environment = os.environ | {"SOURCE_DATE_EPOCH": "1764547200"}
        command = [sys.executable, "-W", "ignore", "-c", PACK]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        packed += (folder / "dist").iterdir()
    return names, packed


def test_two_source_archives_have_the_same_bytes(archives):
    _, (one, other) = archives
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


def test_a_source_archive_has_all_files(archives):
    names, (file, _) = archives
    with tarfile.open(file) as archive:
        entries = archive.getmembers()
    packed = {entry.name.partition("/")[2] for entry in entries}
    assert set(names) <= packed
    assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in entries} == {
        (0, 0, "", 1764547200)
    }
