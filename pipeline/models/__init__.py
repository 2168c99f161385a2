"""The models that jobs name: the registry in object storage, loading, and the rule of promotion."""
