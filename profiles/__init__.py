"""Devices: what a target can do (`schema`, `catalogue`, `devices/*.yaml`), how it is shown (`sheet`), and how
long a model takes on the machine at hand (`latency`, `host`).

Nothing here imports torch or the other packages of this project: reading a profile takes milliseconds.
"""
