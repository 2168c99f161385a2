"""An output of `fcn segment` as a data set: its source images with the masks that a model predicted."""
