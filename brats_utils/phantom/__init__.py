"""The phantom: a synthetic data set in the layout of MSD, made without any download."""
