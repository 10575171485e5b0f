"""Entry point of `python -m brats_utils`."""

from brats_utils.cli import main

main()
