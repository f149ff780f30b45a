from __future__ import annotations

from retrain.train.checkpoints import fingerprint, latest_complete, mark_complete
from retrain.train.rows import Row


def _checkpoint(folder, step, complete):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "adapter_model.safetensors").write_bytes(b"weights")
    if complete:
        mark_complete(path)
    return path


def test_the_newest_whole_checkpoint_counts_and_half_written_ones_go(tmp_path):
    _checkpoint(tmp_path, 9, complete=True)
    wanted = _checkpoint(tmp_path, 10, complete=True)
    half = _checkpoint(tmp_path, 11, complete=False)
    assert latest_complete(tmp_path) == wanted
    assert not half.exists()


def test_there_is_none_in_an_empty_or_missing_folder(tmp_path):
    assert latest_complete(tmp_path) is None
    assert latest_complete(tmp_path / "missing") is None


def test_recipe_base_and_rows_each_change_the_name():
    rows = [Row([1, 2], [-100, 2])]
    names = {
        fingerprint({"rank": 8}, "base", rows),
        fingerprint({"rank": 4}, "base", rows),
        fingerprint({"rank": 8}, "other", rows),
        fingerprint({"rank": 8}, "base", [Row([1, 3], [-100, 3])]),
        fingerprint({"rank": 8}, "base", [Row([1, 2], [1, 2])]),
    }
    assert len(names) == 5
    assert fingerprint({"rank": 8}, "base", rows) in names
