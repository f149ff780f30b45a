"""How much the scrubber finds, and leaves alone, in texts that nobody here wrote."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from nocap.text.scrub import Found, scrub, scrub_with_counts

SHARED = Path(__file__).parents[4] / "shared" / "data"
SPANS = SHARED / "pii" / "presidio_generated_large.jsonl"
RECALL_BARS = {
    "EMAIL_ADDRESS": 0.95,
    "CREDIT_CARD": 0.95,
    "IBAN_CODE": 0.95,
    "IP_ADDRESS": 0.95,
    "DOMAIN_NAME": 0.95,
    "US_SSN": 0.95,
    "PHONE_NUMBER": 0.95,
}
CHATS = {
    "reddit_college_dev": "text",
    "nus_sms_2003_2015_dev": "text",
    "conda_dota2_chat_dev": "utterance",
    "ubuntu_irc_2004_2018": "text",
    "wnut17_youtube_comments_2017": "text",
    "topical_chat_valid": "text",
}


@pytest.mark.skipif(not SPANS.exists(), reason="the shared Presidio texts are not here")
def test_recall_by_kind_on_generated_texts() -> None:
    found: Counter[str] = Counter()
    total: Counter[str] = Counter()
    with SPANS.open(encoding="utf-8") as file:
        for record in map(json.loads, file):
            scrubbed = scrub(record["full_text"])
            for span in record["spans"]:
                total[span["entity_type"]] += 1
                found[span["entity_type"]] += span["entity_value"] not in scrubbed
    recall = {kind: found[kind] / total[kind] for kind in RECALL_BARS}
    assert {kind: share for kind, share in recall.items() if share < RECALL_BARS[kind]} == {}


@pytest.mark.parametrize(("name", "column"), CHATS.items())
def test_ordinary_chat_is_hardly_touched(name: str, column: str) -> None:
    file = SHARED / "chat" / f"{name}.parquet"
    if not file.exists():
        pytest.skip(f"the shared {file.name} is not here")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = [text for text in parquet.read_table(file, columns=[column])[column].to_pylist() if text]
    sample = random.Random(3).sample(texts, 2000)
    changed = sum(bool(scrub_with_counts(text)[1].keys() - {Found.LINK, Found.USER}) for text in sample)
    assert changed / len(sample) <= 0.01
