"""What became of a flow run, read back through Prefect's API."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact, FlowRun


def runs_of(flow: str) -> list[FlowRun]:
    """The runs of the flow of that name, oldest first."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])))
    return sorted(runs, key=lambda run: run.created or run.expected_start_time)


def artifacts_of(run: FlowRun) -> dict[str, Artifact]:
    """A run's artifacts by key."""
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    with get_client(sync_client=True) as client:
        return {str(artifact.key): artifact for artifact in client.read_artifacts(artifact_filter=mine)}


def last_run(flow: str) -> tuple[FlowRun, dict[str, Artifact]]:
    """The newest run of the flow of that name, and its artifacts by key."""
    run = runs_of(flow)[-1]
    return run, artifacts_of(run)


def first_line(run: FlowRun) -> str:
    """What a person reads first of how a run ended."""
    assert run.state
    return (run.state.message or "").splitlines()[0]


def tasks_of(run: FlowRun) -> list[str]:
    """The names of a run's tasks, without the numbers that Prefect gives them, in the order they were started."""
    with get_client(sync_client=True) as client:
        mine = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id]))
        tasks = client.read_task_runs(task_run_filter=mine)
    return [task.name.rpartition("-")[0] for task in sorted(tasks, key=lambda task: task.start_time or task.created)]


def log_of(run: FlowRun) -> str:
    """A run's log; the last second of it may not have arrived yet."""
    with get_client(sync_client=True) as client:
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
    return "\n".join(log.message for log in logs)
