"""Scoring a model on labelled images, on the same actor pool as labelling."""
