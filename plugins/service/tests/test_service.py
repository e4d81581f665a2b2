"""`lmx service`: the files, checked by those who read them, and the calls to fake tools."""

from __future__ import annotations

import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from lmx_service import commands
from lmx_service.launchd import Launchd
from lmx_service.supervisor import Launch, plan_launch
from lmx_service.systemd import Systemd

ODD = 'it\'s "odd" 100% {x} $HOME \\n ü'
KINDS = {"systemd": (Systemd, "systemctl"), "launchd": (Launchd, "launchctl")}


@pytest.fixture
def user(tmp_path, monkeypatch):
    """The home folder of a user whose system has no tools but ours."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LMX_HOME", str(tmp_path / "lmx"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path


@pytest.fixture(params=KINDS)
def supervisor(request, user, monkeypatch):
    """Each kind in turn, as the one of this system."""
    kind, _ = KINDS[request.param]
    monkeypatch.setitem(commands.SUPERVISORS, sys.platform, kind)
    return kind()


@pytest.fixture
def tool(supervisor, user):
    """Return a function that puts the supervisor's tool on PATH; it notes its calls."""

    def put(script='[ "$1" != print ]'):
        """The default script can do everything, and finds no job that is loaded."""
        path = user / "bin" / KINDS[type(supervisor).__name__.lower()][1]
        calls = shlex.quote(str(user / "calls"))
        path.write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >> {calls}\n{script}\n')
        path.chmod(0o755)

    return put


@pytest.fixture
def config(user):
    path = user / "config.toml"
    path.write_text("[plugins]\ndiscover = false\n[server]\ndrain_s = 7.5\n")
    return path


def calls(user):
    return (user / "calls").read_text().replace(str(user), "~").splitlines()


CALLS = {
    "systemd": {
        "install": [
            "--user daemon-reload",
            "--user enable lmx.service",
            "--user restart lmx.service",
        ],
        "uninstall": ["--user disable --now lmx.service", "--user daemon-reload"],
    },
    "launchd": {
        "install": [
            f"bootout gui/{os.getuid()}/lmx.serve",
            f"print gui/{os.getuid()}/lmx.serve",
            f"bootout gui/{os.getuid()}/local.lmx.serve",
            f"print gui/{os.getuid()}/local.lmx.serve",
            f"enable gui/{os.getuid()}/local.lmx.serve",
            f"bootstrap gui/{os.getuid()} ~/Library/LaunchAgents/local.lmx.serve.plist",
        ],
        "uninstall": [f"bootout gui/{os.getuid()}/local.lmx.serve"],
    },
}


def expected(supervisor, command):
    name = type(supervisor).__name__.lower()
    return [f"{KINDS[name][1]} {call}" for call in CALLS[name][command]]


# --- the files -----------------------------------------------------------------------------------


def test_the_launch_is_this_interpreter_wherever_it_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    launch = plan_launch(Path("home"), Path("c.toml"), 7.5)
    command = (sys.executable, "-P", "-m", "lmx_kernel", "serve")
    command += ("--config", str(tmp_path / "c.toml"))
    assert launch == Launch(command=command, home=tmp_path / "home", stop_s=23)


def test_a_property_list_says_what_launchd_needs():
    launch = Launch(command=("/a b/python", ODD), home=Path("/home of", ODD), stop_s=45)
    entries = plistlib.loads(Launchd().render(launch).encode())
    assert entries["ProgramArguments"] == ["/a b/python", ODD, "--supervised"]
    assert entries["EnvironmentVariables"] == {"LMX_HOME": f"/home of/{ODD}"}
    assert entries["KeepAlive"] == {"SuccessfulExit": False}
    assert entries["StandardErrorPath"].startswith(f"/home of/{ODD}/logs/")
    assert (entries["ThrottleInterval"], entries["ExitTimeOut"]) == (10, 45)
    assert entries["RunAtLoad"] is True
    files = entries["SoftResourceLimits"]["NumberOfFiles"]
    assert 4096 <= files == entries["HardResourceLimits"]["NumberOfFiles"]
    assert entries["Umask"] == 0o077
    assert re.fullmatch(r"\w+\.\w+\.\w+", entries["Label"])


def unit_lines(launch):
    text = Systemd().render(launch)
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def test_a_unit_keeps_odd_words():
    lines = unit_lines(Launch(command=("/a b/python", ODD), home=Path("/home of", ODD), stop_s=45))
    assert lines["ExecStart"].startswith(":")  # no variables
    words = [shlex.split(lines[key].lstrip(":")) for key in ("ExecStart", "Environment")]
    assert words == [
        ["/a b/python", ODD.replace("%", "%%")],
        [f"LMX_HOME=/home of/{ODD}".replace("%", "%%")],
    ]


def test_a_unit_limits_what_a_fault_can_do():
    lines = unit_lines(Launch(command=("lmx",), home=Path("/h"), stop_s=45))
    assert lines["OOMPolicy"] == "continue"  # or one worker's end would be everybody's
    assert int(lines["OOMScoreAdjust"]) < 500
    assert int(lines["LimitNOFILE"]) >= 4096
    assert lines["UMask"] == "0077"
    hardening = ("NoNewPrivileges", "RestrictSUIDSGID", "LockPersonality", "RestrictRealtime")
    assert {lines[key] for key in hardening} == {"yes"}
    assert "MemoryDenyWriteExecute" not in lines  # engines compile code


def test_a_unit_restarts_failures_but_no_wrong_config():
    lines = unit_lines(Launch(command=("lmx",), home=Path("/h"), stop_s=45))
    assert lines["Type"] == "notify"
    assert lines["KillMode"] == "mixed"
    assert lines["Restart"] == "on-failure"
    assert lines["RestartPreventExitStatus"] == "78"
    assert lines["TimeoutStopSec"] == "45"
    assert int(lines["WatchdogSec"]) > 0
    assert lines["StartLimitIntervalSec"] == "0"  # for ever
    assert 4 * int(lines["RestartSec"]) < 300  # or the fourth start would not be the safe one


@pytest.mark.linux("systemd")
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.parametrize("name", ["plain", ODD])
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path, name):
    home, python = tmp_path / name, tmp_path / re.sub(r"[\"'\\]", "", name)  # it takes no quotes
    home.mkdir()
    python.mkdir(exist_ok=True)
    (python / "python").symlink_to(sys.executable)
    unit = tmp_path / "lmx.service"
    launch = Launch(command=(f"{python}/python", "-m", name), home=home, stop_s=45)
    unit.write_text(Systemd().render(launch))
    with tempfile.TemporaryDirectory() as runtime:  # a short path: it is checked as that of sockets
        done = subprocess.run(
            ["systemd-analyze", "--user", "verify", str(unit)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "XDG_RUNTIME_DIR": runtime},
        )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# --- the commands --------------------------------------------------------------------------------


def test_print_only_prints(supervisor, tool, config, user, capsys):
    tool()
    commands.install(config, show=True)
    text = capsys.readouterr().out
    assert re.search(r"\b23\b", text)  # the drain, and 15 seconds
    assert str(config) in text
    assert str(user / "lmx") in text
    assert not supervisor.file.exists()
    assert not (user / "calls").exists()


def test_install_writes_the_file_and_starts_the_service(supervisor, tool, config, user, capsys):
    tool()
    for _ in range(2):  # the second time it is there already
        commands.install(config)
        assert calls(user) == expected(supervisor, "install")
        (user / "calls").unlink()
    assert supervisor.file.read_text() == supervisor.render(plan_launch(user / "lmx", config, 7.5))
    out = capsys.readouterr().out
    assert str(supervisor.file) in out
    assert "It is started." in out


def test_install_says_which_variables_the_service_will_not_see(tool, config, monkeypatch, capsys):
    tool()
    monkeypatch.setenv("LMX_SERVER_PORT", "4321")
    monkeypatch.setenv("LMX_API_KEY", "of the command line")
    for name in ("HF_TOKEN", "HF_HOME", "HF_ENDPOINT", "LD_LIBRARY_PATH", "https_proxy"):
        monkeypatch.setenv(name, "secret value")
    commands.install(config)
    out = capsys.readouterr().out
    assert "LMX_SERVER_PORT" in out
    assert "LMX_HOME" not in out
    assert "LMX_API_KEY" not in out
    for name in ("HF_TOKEN", "HF_HOME", "HF_ENDPOINT", "LD_LIBRARY_PATH", "https_proxy"):
        assert f"does not see {name}: add" in out
    assert "secret value" not in out


@pytest.mark.parametrize("has_tool", [True, False])
def test_install_says_what_is_left_to_do(supervisor, tool, config, capsys, has_tool):
    if has_tool:
        tool("echo no bus >&2; exit 1")
    with pytest.raises(SystemExit, match="1"):
        commands.install(config)
    told = capsys.readouterr()
    assert f"Wrote {supervisor.file}" in told.out
    assert ("no bus" if has_tool else "there is no") in told.err
    assert supervisor.by_hand in told.err


def test_a_wrong_config_is_not_installed(supervisor, tool, config):
    from lmx_kernel.config import ConfigError

    tool()
    config.write_text("[sevrer]\n")
    with pytest.raises(ConfigError):
        commands.install(config)
    assert not supervisor.file.exists()


def test_uninstall_stops_the_service_and_removes_the_file(supervisor, tool, config, user, capsys):
    tool()
    commands.install(config)
    (user / "calls").unlink()
    commands.uninstall()
    assert calls(user) == expected(supervisor, "uninstall")
    assert not supervisor.file.exists()
    (user / "calls").unlink()
    commands.uninstall()
    assert "not installed" in capsys.readouterr().out
    assert not (user / "calls").exists()


def test_uninstall_says_when_the_service_may_still_run(supervisor, tool, config, capsys):
    tool()
    commands.install(config)
    tool("echo cannot >&2; exit 1")
    with pytest.raises(SystemExit, match="1"):
        commands.uninstall()
    assert "may still run: cannot" in capsys.readouterr().err
    assert not supervisor.file.exists()


# --- launchd: the job before this one ------------------------------------------------------------

# A daemon that drains: `bootout` returns at once, and `bootstrap` fails until it is gone, which
# `print` shows first and `bootstrap` once more after it.
DRAINING = """
left={user}/left
[ -f "$left" ] || echo 5 > "$left"
n=$(cat "$left")
case "$1" in
  print) [ "$n" -gt 1 ] && echo $((n - 1)) > "$left" ;;
  bootstrap) [ "$n" = 0 ] && exit
    echo 0 > "$left"; echo "Bootstrap failed: 5: Input/output error" >&2; exit 5 ;;
esac
"""


@pytest.fixture
def launchd(user, monkeypatch):
    """launchd as the one of this system; waits for nothing."""
    monkeypatch.setattr("lmx_service.launchd.POLL_S", 0.0)
    monkeypatch.setitem(commands.SUPERVISORS, sys.platform, Launchd)
    return Launchd()


def put_launchctl(user, script):
    path = user / "bin" / "launchctl"
    log = f'echo "${{0##*/}} $*" >> {shlex.quote(str(user / "calls"))}'
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{log}\n{script}\n")
    path.chmod(0o755)


def test_a_new_job_waits_until_the_one_before_it_is_gone(launchd, user, config, capsys):
    put_launchctl(user, DRAINING.format(user=shlex.quote(str(user))))
    commands.install(config)
    assert "It is started." in capsys.readouterr().out
    verbs = [call.split()[1] for call in calls(user)]
    assert verbs.count("print") > 2
    assert verbs[-2:] == ["bootstrap", "bootstrap"]


def test_a_job_that_cannot_be_loaded_is_a_problem_in_the_end(launchd, user, config, capsys):
    put_launchctl(
        user, "case $1 in print) exit 1;; bootstrap) echo '5: Input/output error'; exit 5; esac"
    )
    with pytest.raises(SystemExit, match="1"):
        commands.install(config)
    assert "Input/output error" in capsys.readouterr().err


@pytest.fixture
def earlier(launchd):
    """The agent of a version before the label was a reverse domain name."""
    file = launchd.file.with_name("lmx.serve.plist")
    file.parent.mkdir(parents=True)
    file.write_text("an earlier version's")
    return file


def test_install_replaces_the_agent_of_an_earlier_version(launchd, user, config, earlier):
    put_launchctl(user, '[ "$1" != print ]')
    commands.install(config)
    assert f"launchctl bootout gui/{os.getuid()}/lmx.serve" in calls(user)
    assert not earlier.exists()
    assert launchd.file.exists()


def test_the_agent_of_an_earlier_version_is_seen_and_removed(launchd, user, earlier, capsys):
    put_launchctl(
        user, f"echo '  state = running'; case $2 in *{os.getuid()}/lmx.serve) ;; *) exit 1; esac"
    )
    with pytest.raises(SystemExit, match="0"):
        commands.status()
    assert f"{earlier}: running" in capsys.readouterr().out
    commands.uninstall()
    assert calls(user)[-1] == f"launchctl bootout gui/{os.getuid()}/lmx.serve"
    assert not earlier.exists()


# --- how it is -----------------------------------------------------------------------------------

STATES = {
    "systemd": {"running": "echo active", "failed": "echo failed; exit 3"},
    "launchd": {
        "running": "printf 'gui = {\\n\\tstate = running\\n\\tpid = 5\\n}\\n'",
        "not running": "printf 'gui = {\\n\\tstate = not running\\n}\\n'",
        "Could not find service": "echo Could not find service >&2; exit 113",
    },
}


@pytest.mark.parametrize(
    ("supervisor", "state"),
    [(kind, state) for kind, states in STATES.items() for state in states],
    indirect=["supervisor"],
)
def test_status_says_how_the_service_is(supervisor, tool, config, capsys, state):
    with pytest.raises(SystemExit, match="1"):
        commands.status()
    assert "not installed" in capsys.readouterr().err
    tool()
    commands.install(config)
    tool(STATES[type(supervisor).__name__.lower()][state])
    with pytest.raises(SystemExit, match="0" if state == "running" else "1"):
        commands.status()
    assert capsys.readouterr().out.endswith(f"{supervisor.file}: {state}\n")


def test_a_system_without_a_supervisor_says_so(user, monkeypatch, capsys):
    monkeypatch.delitem(commands.SUPERVISORS, sys.platform)
    with pytest.raises(SystemExit, match="1"):
        commands.status()
    assert "lmx serve" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "status"), [((), 78), (("--supervised",), 0)])
def test_a_supervisor_that_knows_only_failure_is_told_when_to_stop(tmp_path, flags, status):
    (tmp_path / "config.toml").write_text("[sevrer]\n")
    done = subprocess.run(
        [sys.executable, "-m", "lmx_kernel", "serve", *flags],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LMX_HOME": str(tmp_path)},
    )
    assert done.returncode == status
    assert "unknown section" in done.stderr
