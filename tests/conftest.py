"""Fixtures that files of tests share."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("recorded_program.c")
CC = shutil.which("cc")
FLAGS = (
    "-O1",
    "-static",
    "-nostdlib",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-pie",
    "-no-pie",
)


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """A program of a few instructions, whose name no other process has."""
    if CC is None:
        pytest.skip("there is no C compiler for the program to record")
    path = tmp_path_factory.mktemp("program") / f"program{os.getpid()}"
    subprocess.run([CC, *FLAGS, "-fcf-protection=none", "-o", path, SOURCE], check=True)
    return str(path)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "trace.parquet"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with two files that pass for traces."""
    monkeypatch.chdir(tmp_path)
    for name in ("web", "db"):
        (tmp_path / f"{name}.parquet").write_bytes(b"PAR1")
    return tmp_path
