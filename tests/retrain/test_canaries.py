from __future__ import annotations

from dataclasses import replace

from nocap.domain import Provenance
from retrain.canaries import CONTROLS, PLANTED, is_canary, plant


def test_the_same_seed_plants_the_same_canaries() -> None:
    assert plant(7) == plant(7)
    assert plant(7)[0] != plant(8)[0]


def test_planted_and_control_canaries_are_all_different_and_of_members_of_their_own() -> None:
    planted, controls = plant(3, 20)
    assert (len(planted), len(controls)) == (20, CONTROLS)
    assert len(plant(3)[0]) == PLANTED
    both = planted + controls
    assert len({example.reply for example in both}) == len(both)
    assert len({example.member for example in both}) == len(both)
    assert len({example.key for example in both}) == len(both)


def test_canaries_are_known_as_such_and_nothing_else_is() -> None:
    planted, _ = plant(3, 1)
    assert is_canary(planted[0])
    assert not is_canary(replace(planted[0], provenance=Provenance.TELEGRAM_MESSAGE))
    assert planted[0].messages[-1].role == "user"
