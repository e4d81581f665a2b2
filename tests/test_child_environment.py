"""Secrets of the daemon's environment stay out of its children."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import psutil
import pytest

from lmx_kernel.jobs.child import run_child
from lmx_kernel.models.reader import _Child
from lmx_kernel.processes.environment import child_environment
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel

CANARY = "canary-7f3a"
SECRETS = [
    *("LMX_SERVER_API_KEY", "LMX_API_KEY", "LMX_HUB_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    *("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN", "PGPASSWORD"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "db_password", "SESSION_SECRET"),
]
OTHERS = ["HF_HOME", "HF_TOKEN_PATH", "TOKENIZERS_PARALLELISM", "KEYBOARD", "KEY_FILE"]
# These run in the terminal of the owner, with the owner's own environment.
COMMANDS = {
    "lmx_kernel/cli/plugin_packages.py",
    "lmx_kernel/plugins/package_check.py",
    "plugins/lmstudio_api/lmx_lmstudio_api/lms/daemon.py",
    "plugins/service/lmx_service/supervisor.py",
}


@pytest.fixture
def environment(monkeypatch):
    for name in (*SECRETS, *OTHERS):
        monkeypatch.setenv(name, CANARY)


def test_only_secrets_are_left_out(environment):
    own = child_environment()
    assert [name for name in SECRETS if name in own] == []
    assert [name for name in OTHERS if name not in own] == []
    assert own["PATH"] == os.environ["PATH"]


def test_a_secret_may_be_passed_on_by_name(environment):
    own = child_environment({"HF_TOKEN": "given", "MORE": "x"})
    assert (own["HF_TOKEN"], own["MORE"]) == ("given", "x")
    assert "LMX_SERVER_API_KEY" not in own


def seen(pid):
    """Return the names of what a process has of the canary in its environment, which Linux tells
    a moment after the start of the process.
    """
    process = psutil.Process(pid)
    while not (environment := process.environ()):
        assert process.status() != psutil.STATUS_ZOMBIE
    return {name for name, value in environment.items() if value == CANARY}


async def test_a_worker_sees_none(environment, tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as running:
        answer = await running.kernel.generate(ask("m"))
        async for _ in answer:
            pass
        assert seen(running.instance("m").pid) == set(OTHERS)


async def test_a_job_sees_those_that_it_is_given(environment, tmp_path):
    work = "import os\ndef names(spec, report): return dict(os.environ)\n"
    (tmp_path / "lmx_environment_work.py").write_text(work)
    env, secrets = {"PYTHONPATH": str(tmp_path)}, {"HF_TOKEN": "given"}
    told = await run_child(
        "lmx_environment_work:names", {}, lambda *_: None, env=env, secrets=secrets
    )
    assert {name for name in told if told[name] == CANARY} == set(OTHERS)
    assert told["HF_TOKEN"] == "given"


def test_the_reader_of_models_sees_none(environment):
    child = _Child.start()
    try:
        assert seen(child.process.pid) == set(OTHERS)
    finally:
        child.process.kill()
        child.process.communicate()


def test_no_child_is_started_with_the_whole_environment(request):
    """Each call that starts a process names its environment, and that is the reduced one."""
    root = request.config.rootpath
    files = [*(root / "lmx_kernel").rglob("*.py"), *(root / "plugins").glob("*/lmx_*/**/*.py")]
    found = {str(path.relative_to(root)): list(_starts(path)) for path in files}
    starting = {path for path, calls in found.items() if calls}
    assert {"lmx_kernel/processes/child.py", "lmx_kernel/models/reader.py"} <= starting
    open_ones = {
        f"{path}:{call.lineno}"
        for path in starting - COMMANDS
        for call in found[path]
        if not path.startswith("lmx_kernel/testing/")
        and not any(k.arg == "env" and "child_env" in ast.unparse(k.value) for k in call.keywords)
    }
    assert open_ones == set()


def _starts(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("subprocess.run", "subprocess.Popen") or "create_subprocess" in name:
                yield node
