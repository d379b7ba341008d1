"""Packaging of fldet; everything else about the tools is in pyproject.toml."""

import gzip
import os
import re
import shutil
import tarfile
import time
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent


def read_requirements(name: str) -> list[str]:
    """Returns the requirement lines of ``requirements/<name>.txt``."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def read_version() -> str:
    """Returns ``__version__`` without importing the package."""
    text = (ROOT / "fldet" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if found is None:
        raise RuntimeError("fldet/__init__.py has no __version__")
    return found.group(1)


def read_description() -> str:
    """Returns the README without its pictures and links into the repository, dead on an index."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^!\[[^]]*\]\((?!https?:)[^)]*\)\n", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^]]+)\]\((?!https?:)[^)]*\)", r"\1", text)


class BuildWithConfigs(build_py):
    """Puts ``configs/`` into the package, where ``fldet.config.load.CONFIGS`` looks first."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # there the repository's own folder is found
            shutil.copytree(
                ROOT / "configs", Path(self.build_lib, "fldet", "configs"), dirs_exist_ok=True
            )


class SameBytes(sdist):
    """Writes a ``.tar.gz`` that depends on the files alone, not on who packs them, where and when.

    Setuptools does so for wheels: all times are ``SOURCE_DATE_EPOCH``. Of a source archive it keeps
    owner, rights and times of each file, and the time of packing in the head of gzip.
    """

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        if format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)
        seconds = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))

        def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = seconds
            entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            return entry

        path = Path(f"{base_name}.tar.gz")
        with (
            path.open("wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=seconds) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(Path(root_dir or "", base_dir), base_dir, filter=plain)  # sorted by name
        return str(path)


setup(
    name="fldet",
    version=read_version(),
    description="RetinaNet and the focal loss, faithful to the paper, from the command line",
    long_description=read_description(),
    long_description_content_type="text/markdown",
    author="The fldet authors",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["RetinaNet", "focal loss", "object detection", "MMDetection", "PyTorch"],
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["fldet", "fldet.*"]),
    package_data={
        "fldet": ["py.typed"],
        "fldet.compare": ["page.html.j2"],
        "fldet.analysis.labels": ["page.html.j2", "page.js"],
        "fldet.pictures": ["page.css", "parts.html.j2"],
        "fldet.report": ["page.html.j2", "page.js"],
    },
    cmdclass={"build_py": BuildWithConfigs, "sdist": SameBytes},
    install_requires=read_requirements("runtime"),
    extras_require={
        "tests": [
            *read_requirements("tests"),
            *read_requirements("export"),
            *read_requirements("openvino"),
            *read_requirements("package"),
        ],
        "export": read_requirements("export"),
        "openvino": [*read_requirements("export"), *read_requirements("openvino")],
        "package": read_requirements("package"),
        "cluster": read_requirements("cluster"),
        "weights": read_requirements("weights"),
        "tensorboard": read_requirements("tensorboard"),
        "mlflow": read_requirements("mlflow"),
        "wandb": read_requirements("wandb"),
        "clearml": read_requirements("clearml"),
    },
    entry_points={"console_scripts": ["fldet = fldet.cli.main:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
