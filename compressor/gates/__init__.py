"""Limits on what a report says. `gate.py` reads them, `metrics.py` finds the numbers, `judging.py` judges."""
