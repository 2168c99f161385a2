"""Where a job's model came from, as its records keep it."""

from pydantic import BaseModel, ConfigDict


class ModelOrigin(BaseModel):
    """Where a job's model came from. `name` to `champion` are None for a model that no registry was asked for."""

    model_config = ConfigDict(frozen=True)

    asked: str
    """The model as the job names it."""
    uri: str
    """Where its files are; a registry's are never replaced."""
    model_id: str
    name: str | None = None
    version: str | None = None
    champion: int | None = None
    """The promotion that `@champion` was at that moment."""

    def __str__(self) -> str:
        if self.name is None:
            return f"{self.asked} is model {self.model_id}"
        promoted = f", promotion {self.champion}" if self.champion else ""
        return f"{self.asked} is version {self.version} of {self.name}{promoted}"
