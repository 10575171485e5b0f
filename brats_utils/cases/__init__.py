"""How scans come in, for training, evaluation and prediction alike."""
