"""What is shown to a person: figures, charts, and a run as one HTML page."""
