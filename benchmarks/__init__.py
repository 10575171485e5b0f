"""Our recipe against the classic one, on the same data and network, in one run on one machine. Not part of CI."""
