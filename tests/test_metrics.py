"""The metrics files of the workers, on a full disk and in a deleted folder."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.http_calls import call
from tests.support.people import KEY, PUBLIC_URL, make_secret
from tests.support.servers import PROJECT, children_of, gunicorn, small_disk, wait_for

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fault", ["full", "gone"])
def test_workers_survive_a_full_disk_and_a_deleted_metrics_folder(
    schema: Path, tmp_path: Path, fault: str
) -> None:
    """The files are mapped into memory: a write to a missing block would raise SIGBUS."""
    with small_disk(8) as disk:
        folder = disk or tmp_path
        environ = {
            "SECRET_KEY": KEY,
            "PUBLIC_URL": PUBLIC_URL,
            "DATABASE_URL": f"sqlite:///{shutil.copy(schema, tmp_path / 'pat.db')}",
            "METRICS_TOKEN": make_secret("metrics"),
            "TMPDIR": str(folder),
        }
        with gunicorn(environ, workers=1, log=tmp_path / "log") as server:
            if fault == "gone":
                for counts in folder.glob("pat-service-*"):
                    shutil.rmtree(counts)
            elif disk is None:
                pytest.skip("this user may not mount a small disk")
            else:
                with contextlib.suppress(OSError):
                    (disk / "ballast").write_bytes(bytes(2**23))
            (before,) = children_of(server.process.pid)
            for method, path in (
                ("GET", "/nope"),
                ("POST", "/nope"),
                ("DELETE", "/api/ext/users/x"),
                ("GET", "/api/nope"),
            ):
                assert call(server, method, path).status in (401, 404)
            assert call(server, "GET", "/healthz").status == 200
            assert children_of(server.process.pid) == [before]
            os.kill(before, signal.SIGKILL)
            wait_for(lambda: call(server, "GET", "/healthz").status == 200)
    assert "SIGBUS" not in (tmp_path / "log").read_text()


def test_a_worker_opens_its_metrics_files_before_its_first_count(tmp_path: Path) -> None:
    code = (
        "import os, shutil; from pat_service import metrics; "
        "shutil.rmtree(os.environ[metrics.FOLDER_VARIABLE]); "
        "metrics.count_request('GET', '/x', 200, 0.1); metrics.count_refusal('not_found', 'none'); "
        "print(metrics.IN_FILES)"
    )
    environ = {"PATH": os.environ["PATH"], "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "counts")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=environ, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
