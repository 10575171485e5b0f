"""`python -m benchmarks [loading steps waiting sharing tables inference scaling phantom]`; all of them by default. `few` needs real scans, `labels` a finished run, `peers` two hours."""

import importlib
import sys

from benchmarks.common import describe_machine

ALL = ("loading", "steps", "waiting", "sharing", "tables", "inference", "scaling", "phantom")

if __name__ == "__main__":
    print(describe_machine())
    for name in sys.argv[1:] or ALL:
        importlib.import_module(f"benchmarks.{name}").main()
