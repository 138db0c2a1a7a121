from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from runyard.cli import boot, configfile
from runyard.cli.yard import back_up_before_upgrade
from runyard.client import connect
from runyard.wire import config
from runyard.wire.paths import Home
from tests.cli.conftest import Cli
from tests.cli.fake import FakeYard, write_server_json


def systemctl(directory: Path, body: str) -> str:
    """Put a systemctl first on PATH; return that PATH."""
    directory.mkdir(exist_ok=True)
    program = directory / "systemctl"
    program.write_text("#!/bin/sh\n%s\n" % body)
    program.chmod(0o755)
    return "%s:%s" % (directory, os.environ["PATH"])


def test_at_boot_installs_a_user_unit(cli: Cli, yard: FakeYard, home: Path, tmp_path: Path) -> None:
    path = systemctl(tmp_path / "bin", 'echo "$*" >> "%s"' % (tmp_path / "calls"))
    done = cli("start", "--at-boot", env={"PATH": path, "HOME": str(tmp_path), "XDG_CONFIG_HOME": "", "USER": "anna"})
    assert done.returncode == 0, done.stderr
    unit = (tmp_path / ".config/systemd/user/runyard.service").read_text()
    assert "-m" in unit
    assert 'Environment="RUNYARD_HOME=%s"' % home in unit
    assert "KillMode=process" in unit
    assert (tmp_path / "calls").read_text() == "--user daemon-reload\n--user enable runyard.service\n"
    assert "loginctl enable-linger anna" in done.stderr


def test_without_systemd_nothing_is_left_behind(cli: Cli, yard: FakeYard, tmp_path: Path) -> None:
    path = systemctl(tmp_path / "bin", "echo 'Failed to connect to bus' >&2; exit 1")
    done = cli("start", "--at-boot", env={"PATH": path, "HOME": str(tmp_path), "XDG_CONFIG_HOME": ""})
    assert done.returncode == 1
    assert "Failed to connect to bus" in done.stderr
    assert "cron" in done.stderr
    assert not list((tmp_path / ".config/systemd/user").iterdir())


def test_the_unit_is_one_that_systemd_accepts(tmp_path: Path, require: Callable[[str], None]) -> None:
    require("systemd-analyze")
    unit = tmp_path / "runyard.service"
    unit.write_text(boot.unit(str(tmp_path / 'a "b" $c %d'), {"PATH": "/bin:/a b%"}, ["--listen", "127.0.0.1:8086"]))
    done = subprocess.run(["systemd-analyze", "verify", "--user", unit], capture_output=True, text=True, check=False)
    assert "runyard.service:" not in done.stderr


def test_a_setting_is_changed_and_the_rest_of_the_file_stays(home: Path) -> None:
    place = Home(str(home))
    configfile.set_text(place, "database", 'postgresql://u:p"\\@h/db')
    assert config.home_settings(str(home), {})["database"] == 'postgresql://u:p"\\@h/db'
    assert (home / "config.toml").stat().st_mode & 0o777 == 0o600
    (home / "config.toml").write_text("# mine\ncpu_slots = 2\ndatabase = 'x'\n")
    (home / "config.toml").chmod(0o640)
    configfile.set_text(place, "database", "sqlite:///y.db")
    assert (home / "config.toml").read_text() == '# mine\ncpu_slots = 2\ndatabase = "sqlite:///y.db"\n'
    assert (home / "config.toml").stat().st_mode & 0o777 == 0o640


def test_a_restart_after_an_upgrade_backs_up_first(home: Path, yard: FakeYard) -> None:
    place = Home(str(home))
    assert back_up_before_upgrade(place, connect.find(place)) == ""
    write_server_json(home, os.getpid(), yard, version="0.0.9")
    path = Path(back_up_before_upgrade(place, connect.find(place)))
    assert path.parent == home / "backups"
    assert path.name.startswith("0.0.9-")
    assert path.stat().st_size == 2048
