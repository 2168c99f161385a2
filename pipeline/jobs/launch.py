"""Where a job is to run, as options: one model a place, told apart by `where`.

Not by `on`, which YAML reads as true.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

WHERE = "here, ray-jobs (a standing Ray cluster) or kuberay (a Ray cluster for this job alone)."


class Here(BaseModel):
    """In this process, on the Ray that it finds or starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: Literal["here"] = Field(default="here", description=WHERE)


class OnRayJobs(BaseModel):
    """On a standing Ray cluster, through the Ray Jobs API.

    RAY_AUTH_MODE and RAY_AUTH_TOKEN of this process's environment open it; no credentials travel with the job.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: Literal["ray-jobs"] = Field(default="ray-jobs", description=WHERE)
    address: str = Field(
        pattern=r"^https?://",
        description="The cluster's dashboard, such as http://ray-head:8265; its Jobs API is there.",
    )


class OnKubeRay(BaseModel):
    """As a RayJob of a Kubernetes cluster with the KubeRay operator: a Ray cluster for this job alone.

    The kubeconfig, or the service account of the pod that this runs in, opens it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: Literal["kuberay"] = Field(default="kuberay", description=WHERE)
    namespace: str = Field(default="default", description="Where the RayJob is made.")
    template: str = Field(
        description="A YAML file of a RayJob, path or URI: its Ray cluster, images and service account. The job's name "
        "and command are filled in."
    )
    keep_seconds: int = Field(
        default=600,
        ge=0,
        le=10_000_000,
        description="How long a finished RayJob stays, for people to look at its logs.",
    )


Launch = Annotated[Here | OnRayJobs | OnKubeRay, Field(discriminator="where")]

HERE = Here()
