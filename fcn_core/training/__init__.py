"""From annotated images to a bundle: trainer, loop, optimizer, losses, checkpoints and their config.

The one thing to know: a step depends on the seed and its number alone, so a training can be resumed at any step, on any
number of workers.
"""
