"""A job's options in a YAML file."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InputError
from pipeline.yaml_text import read_yaml


def read_job_file(job: Path | None) -> dict[str, Any]:
    """The options in a YAML file; none without a file. Raises InputError."""
    if job is None:
        return {}
    try:
        options = read_yaml(job.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"the job file {job} cannot be read ({' '.join(str(error).split())}); check it") from error
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise InputError(f"the job file {job} holds no options; write them as name: value, one per line")
    return options
