"""The probe of the pace, on the real clock: only what no machine can break."""

from threadpoolctl import threadpool_info

from profiles.pace import pace_probe, probe_library, reference_s


def test_the_reference_is_no_slower_than_the_probes_and_leaves_the_threads_alone() -> None:
    before = threadpool_info()
    reference = reference_s(0.1)
    assert threadpool_info() == before
    assert 1e-6 < reference < 1.0


def test_a_probe_lasts_as_long_as_it_may_and_returns_seconds_of_one_product() -> None:
    probe = pace_probe(0.002)
    assert 1e-6 < probe() < 1.0


def test_the_library_is_named() -> None:
    assert probe_library().startswith("numpy ")
    assert probe_library() == probe_library()
