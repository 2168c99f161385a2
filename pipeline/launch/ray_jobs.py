"""Jobs on a standing Ray cluster, through its Jobs API."""

import contextlib
import os
import shlex
from collections.abc import Callable
from typing import Any, TypeVar

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from pipeline.actors.ray_words import clean
from pipeline.errors import InputError
from pipeline.launch.launcher import LauncherUnavailable, LaunchStatus, command, launch_id, next_attempt
from pipeline.launch.work import Work
from pipeline.storage.uri import without_user

STOP_WAIT_SECONDS = 12
"""How long Ray lets a stopped driver end what it does, before it kills it. Its own default is 3."""

T = TypeVar("T")


class _Unknown(InputError):
    """The cluster knows no such job."""


class RayJobsLauncher:
    """See `Launcher`. `address` is the dashboard's URL."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._shown = without_user(address)
        self._opened: Any = None

    def find(self, work: Work) -> str | None:
        return _running(self._ask(lambda client: client.list_jobs()), work)

    def submit(self, work: Work) -> str:
        jobs = self._ask(lambda client: client.list_jobs())
        running = _running(jobs, work)
        if running is not None:
            return running  # somebody was quicker
        name = launch_id(work, next_attempt(work, [job.submission_id for job in jobs if job.submission_id]))
        try:
            self._ask(
                lambda client: client.submit_job(
                    entrypoint=shlex.join(command(work, name)),
                    submission_id=name,
                    runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_SECONDS)}},
                    metadata={"kind": work.kind, "output": work.output().uri},
                )
            )
        except InputError:
            # Two have seen none and submit at once: the id is the same, and Ray takes it once.
            other = self.find(work)
            if other is None:
                raise
            return other
        return name

    def status(self, launch_id: str) -> LaunchStatus:
        try:
            job = self._ask(lambda client: client.get_job_info(launch_id))
        except _Unknown:
            return LaunchStatus("ended", f"the cluster at {self._shown} does not know it")
        reason = f"{job.status.value}: {clean(job.message or '', most=2000)}"
        if job.status.is_terminal():
            return LaunchStatus("ended", reason)
        return LaunchStatus("waiting" if job.status == JobStatus.PENDING else "running", reason)

    def where(self, launch_id: str) -> str:
        return (
            f"[{launch_id}]({self._shown}/#/jobs/{launch_id}) on the Ray cluster at {self._shown}. Its log: "
            f"`ray job logs --address {self._shown} {launch_id}`. Should nobody follow it any more, it goes on; "
            f"`ray job stop --address {self._shown} {launch_id}` stops it, resumably."
        )

    def stop(self, launch_id: str) -> None:
        with contextlib.suppress(_Unknown):
            self._ask(lambda client: client.stop_job(launch_id))

    def _ask(self, question: Callable[[Any], T]) -> T:
        try:
            if self._opened is None:
                self._opened = JobSubmissionClient(self._address, headers=_headers())
            return question(self._opened)
        except ConnectionError as error:
            raise LauncherUnavailable(f"no Ray Jobs API answers at {self._shown}; check the address") from error
        except AuthenticationError as error:
            raise InputError(
                f"the Ray cluster at {self._shown} refused the token; set RAY_AUTH_TOKEN to the cluster's"
            ) from error
        except RuntimeError as error:
            raise self._explain(error) from error

    def _explain(self, error: RuntimeError) -> Exception:
        text = clean(str(error), most=2000)
        if "status code 404" in text:
            return _Unknown(text[:300])
        if "status code 5" in text:
            return LauncherUnavailable(f"the Ray Jobs API at {self._shown} failed: {text[:300]}")
        return InputError(f"the Ray Jobs API at {self._shown} refused: {text[:300]}")


def _running(jobs: list[JobDetails], work: Work) -> str | None:
    names = (job.submission_id for job in jobs if job.submission_id and not job.status.is_terminal())
    return max((name for name in names if name.startswith(f"{work.name}-")), default=None)


def _headers() -> dict[str, str]:
    """The token of RAY_AUTH_TOKEN. Ray's own client adds it only if RAY_AUTH_MODE was set when Ray was imported."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}
