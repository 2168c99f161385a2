"""Where a job runs: in this process, on a standing cluster through the Ray Jobs API, or as a KubeRay RayJob."""
