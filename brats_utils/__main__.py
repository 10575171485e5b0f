"""Entry point of `python -m brats_utils`."""

from brats_utils.commands.cli import main

main()
