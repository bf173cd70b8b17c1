"""Signals to a study."""

import os
import signal

import pytest

from rag_opt.stopping import Stopping, Terminated


class Loud:
    """Its destructor is where the signal arrives: what is raised there, Python ignores."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_arrives_where_exceptions_are_ignored_is_not_lost() -> None:
    with Stopping() as stopping:
        loud = Loud()
        del loud
        with pytest.raises(Terminated):
            stopping.check()
