"""The elastic pool of Ray actors: where they run, who gets which shard, what keeps their model busy."""
