"""Events of ours at Prefect's server, beside those that Prefect has of every run; `flows.notify` listens to them."""

from prefect.events import emit_event
from prefect.runtime import flow_run

CHAMPION_PROMOTED = "fcn.champion.promoted"

MODEL_RESOURCE = "fcn.model"
"""The event's resource is `fcn.model.NAME`, with the registry's name of the model."""


def champion_promoted(name: str, version: str, promotion: int, reason: str, previous: str | None) -> None:
    """Tell Prefect which version of which model is champion now, why, and instead of which.

    For the present flow run, which Prefect relates to the event by itself. A server that is away is no error.
    """
    emit_event(
        CHAMPION_PROMOTED,
        resource={"prefect.resource.id": f"{MODEL_RESOURCE}.{name}", "prefect.resource.name": name},
        payload={
            "name": name,
            "version": version,
            "promotion": promotion,
            "reason": reason,
            "previous": previous,
            "flow_run_id": flow_run.id,
        },
    )
