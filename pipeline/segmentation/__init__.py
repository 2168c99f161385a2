"""A labelling job: options, plan, the segmenter that works on a shard, and the driver that ties them together."""
