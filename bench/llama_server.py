"""`llama-server` of the sources in llama-cpp-python's sdist, linked to the installed libraries.

Server and LMX so compute with the very same libllama and libggml, and only a quarter of the sources
has to be compiled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "llama-cpp-python"
FOLDER = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser() / "cache" / "llama-server"
TOOLS = ("cmake", "ninja")
PROJECT = """
cmake_minimum_required(VERSION 3.18)
project(llama.cpp C CXX)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
set(LLAMA_BUILD_COMMON ON)
set(LLAMA_BUILD_NUMBER 0)
include(cmake/common.cmake)
include(cmake/license.cmake)
foreach(name ggml-base ggml llama mtmd)
  add_library(${name} SHARED IMPORTED GLOBAL)
  set_target_properties(${name} PROPERTIES IMPORTED_LOCATION ${LIBRARIES}/lib${name}.so)
endforeach()
target_include_directories(ggml INTERFACE ggml/include)
target_include_directories(llama INTERFACE include)
target_include_directories(mtmd INTERFACE tools/mtmd)
target_link_libraries(ggml INTERFACE ggml-base)
target_link_libraries(llama INTERFACE ggml)
target_link_libraries(mtmd INTERFACE llama)
add_subdirectory(vendor)
add_subdirectory(common)
add_subdirectory(tools/ui)
add_subdirectory(tools/server)
"""
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",  # it would be downloaded
    "LLAMA_OPENSSL": "OFF",
}


def binary() -> Path:
    """Return where :func:`build` puts the server."""
    return _folder() / "build" / "llama-server"


def build() -> None:
    """Download the sources and compile the server, politely; minutes on two quiet cores."""
    folder, number = _folder(), version(PACKAGE)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = ["--no-deps", "--no-binary", PACKAGE, "-d", str(folder), f"{PACKAGE}=={number}"]
    archive = folder / f"{PACKAGE.replace('-', '_')}-{number}.tar.gz"
    if not archive.exists():
        _run(sys.executable, "-m", "pip", "download", "-q", *wanted)
    sources = _unpack(archive, folder)
    (sources / "CMakeLists.txt").write_text(PROJECT)
    tools = folder / "tools"
    if not all(map(shutil.which, TOOLS)):
        _run(sys.executable, "-m", "pip", "install", "-q", "--target", str(tools), *TOOLS)
    path = f"{tools / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(tools)}
    options = {"LIBRARIES": str(_libraries()), **OPTIONS}
    defined = [f"-D{name}={value}" for name, value in options.items()]
    target = str(binary().parent)
    _run("cmake", "-S", str(sources), "-B", target, "-G", "Ninja", *defined, env=environment)
    compile_it = ["cmake", "--build", target, "--target", "llama-server", "--parallel", "2"]
    _run("nice", "-n", "19", *compile_it, env=environment)
    print(binary())


def _folder() -> Path:
    return FOLDER / version(PACKAGE)


def _libraries() -> Path:
    spec = find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "lib"


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack llama.cpp and return its folder."""
    inside = f"{archive.name.removesuffix('.tar.gz')}/vendor/llama.cpp"
    if not (folder / inside).exists():
        with tarfile.open(archive) as packed:
            members = [one for one in packed if one.name.startswith(f"{inside}/")]
            packed.extractall(folder, members, filter="data")
    return folder / inside


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    subprocess.run(command, env=env, check=True)
