"""What `python -m brats_utils` does, a file a command."""
