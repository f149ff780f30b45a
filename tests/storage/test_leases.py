from datetime import datetime, timedelta

import pytest

from nocap.errors import NotPermitted
from storage.database import Database
from storage.leases import lease, renew
from tests.storage.community import NOW


class SimulatedClock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def test_a_lease_excludes_everybody_until_it_is_given_back(database: Database) -> None:
    clock = SimulatedClock()
    with lease(database, "retrain genz", "one", 60, clock) as held:
        assert (held.owner, held.expires_at) == ("one", NOW + timedelta(seconds=60))
        for owner in ("two", "one"):
            with (
                pytest.raises(NotPermitted, match="retrain genz is held by one until 2026-11-01 12:01:00"),
                lease(database, "retrain genz", owner, 60, clock),
            ):
                pytest.fail("two hold the lease")
        with lease(database, "retrain boomer", "two", 60, clock):
            pass
    with lease(database, "retrain genz", "two", 60, clock):
        pass


def test_a_lease_that_ran_out_is_taken_over_and_the_late_holder_does_not_give_it_back(database: Database) -> None:
    clock = SimulatedClock()
    with lease(database, "job", "one", 60, clock):
        clock.now += timedelta(seconds=60)
        taken = lease(database, "job", "two", 60, clock)
        taken.__enter__()
    with pytest.raises(NotPermitted, match="held by two"), lease(database, "job", "three", 60, clock):
        pytest.fail("two hold the lease")
    taken.__exit__(None, None, None)


def test_a_renewed_lease_lasts_longer_and_a_lost_one_cannot_be_renewed(database: Database) -> None:
    clock = SimulatedClock()
    with lease(database, "job", "one", 60, clock):
        clock.now += timedelta(seconds=59)
        with database.write() as session:
            renew(session, "job", "one", 60, clock.now)
        clock.now += timedelta(seconds=59)
        with pytest.raises(NotPermitted), lease(database, "job", "two", 60, clock):
            pytest.fail("two hold the lease")
        clock.now += timedelta(seconds=1)
        with database.write() as session, pytest.raises(NotPermitted, match="ran out"):
            renew(session, "job", "one", 60, clock.now)


def test_an_error_inside_gives_the_lease_back(database: Database) -> None:
    clock = SimulatedClock()
    with pytest.raises(ZeroDivisionError), lease(database, "job", "one", 60, clock):
        raise ZeroDivisionError
    with lease(database, "job", "two", 60, clock):
        pass
