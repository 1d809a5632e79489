"""Killed jobs end with the same bytes when they are run again; `tests.jobs.killing` does so many times."""

import sys

import pytest

from .killing import check


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_job_goes_on(tmp_path):
    kills, faults = check(tmp_path, 1, 3, "cpu", ".mp4")
    assert kills >= 1
    assert not faults
