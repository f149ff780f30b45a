from __future__ import annotations

from nocap.text.scrub import scrub
from retrain.probes import load_probes


def test_there_are_enough_probes_of_each_kind_and_no_two_alike() -> None:
    probes = load_probes()
    assert len(set(probes.anchors)) == len(probes.anchors) >= 200
    assert len(set(probes.serious)) == len(probes.serious) >= 40
    assert len({item.prompt for item in probes.retention}) >= 260
    assert all(line.strip() == line != "" for line in probes.anchors + probes.serious)


def test_every_choice_item_has_four_different_choices() -> None:
    assert all(len(set(item.choices)) == len(item.choices) == 4 for item in load_probes().retention)


def test_probes_hold_nothing_personal() -> None:
    probes = load_probes()
    texts = [*probes.anchors, *probes.serious, *(item.prompt for item in probes.retention)]
    assert [text for text in texts if scrub(text) != text] == []


def test_the_digest_names_the_contents() -> None:
    assert len(load_probes().digest) == 64
