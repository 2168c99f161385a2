"""deploy/local without its servers: what it prints can be typed, and what it leaves behind when it is killed."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from deploy.local.__main__ import restart_line
from deploy.local.settings import PREFIXES, ROOT, Ports, Site

NAMED = """
import sys, time
from pathlib import Path
from deploy.local.__main__ import short_name
with short_name(Path(sys.argv[1])) as name:
    print(name, flush=True)
    time.sleep(600)
"""


def test_the_printed_restart_line_carries_the_environment_of_the_site(tmp_path: Path) -> None:
    site = Site(tmp_path / "a site", Ports(), 6379, 6380, tmp_path / "ray")
    site.folder.mkdir()
    site.write_files()
    shows = "import json, os; print(json.dumps(dict(os.environ)))"
    line = restart_line(site, shlex.join([sys.executable, "-c", shows]))
    for secret in (*site.s3_key, site.prefect_auth, site.token_file.read_text()):
        assert secret not in line
    strange = {
        "PATH": os.environ["PATH"],
        "AWS_PROFILE": "mine",
        "PREFECT_API_KEY": "mine",
        "RAY_ADDRESS": "10.0.0.1:1",
    }
    done = subprocess.run(["sh", "-c", line], cwd="/", env=strange, capture_output=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    expected = {name: value for name, value in site.environment().items() if name.startswith(PREFIXES)}
    assert {name: found.get(name) for name in expected} == expected
    assert "AWS_PROFILE" not in found
    assert Path(found["PWD"]) == ROOT
    assert site.server_file.stat().st_mode & 0o777 == 0o600


def test_a_killed_site_leaves_no_folder_in_the_temporary_one(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", NAMED, str(tmp_path / "ray")], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert program.stdout
    name = Path(program.stdout.readline().strip())
    assert name.is_symlink()
    assert name.parent.name.startswith("fcn-site-")
    program.kill()
    program.wait()
    deadline = time.monotonic() + 30
    while list(tmp_path.glob("fcn-site-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.glob("fcn-site-*")) == []
    assert (tmp_path / "ray").is_dir(), "Ray's own folder, with its logs, stays"
