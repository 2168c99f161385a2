"""Scoring a model on annotated images, on the same actor pool as labelling."""
