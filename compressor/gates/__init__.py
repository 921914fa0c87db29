"""Finished reports, judged and compared.

`metrics.py` finds the numbers, `gate.py` reads limits on them, `judging.py` judges, `releases.py` puts several reports
side by side.
"""
