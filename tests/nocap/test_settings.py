from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from nocap.errors import ConfigurationError
from nocap.settings import Settings, load_settings, render_settings_file


def write(folder: Path, text: str) -> Path:
    file = folder / "nocap.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_written_file_gives_back_the_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, render_settings_file(Settings(data_dir=tmp_path / "data"), tmp_path))
    assert load_settings(file) == Settings(data_dir=tmp_path / "data")


def test_the_written_file_names_every_setting_with_a_comment_or_a_plain_name(tmp_path: Path) -> None:
    text = render_settings_file(Settings(), tmp_path)
    for section in ("database", "model", "inference", "chat", "retrain", "gates", "discord"):
        assert f"[{section}]" in text
    assert "# Level of every gate" in text
    assert tomllib.loads(text)["retrain"]["rank"] == 8


def test_relative_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, 'data_dir = "here"\n[database]\nkey_file = "keys/k"\n'))
    assert settings.data_dir == tmp_path / "here"
    assert settings.key_file == tmp_path / "keys" / "k"
    assert settings.database_url == f"sqlite:///{tmp_path / 'here' / 'nocap.db'}"


def test_the_command_line_beats_the_environment_which_beats_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, 'data_dir = "file"\n[retrain]\nrank = 4\n')
    monkeypatch.setenv("NOCAP_RETRAIN__RANK", "16")
    monkeypatch.setenv("NOCAP_DATA_DIR", str(tmp_path / "environment"))
    assert load_settings(file).retrain.rank == 16
    assert load_settings(file).data_dir == tmp_path / "environment"
    assert load_settings(file, data_dir=tmp_path / "argument").data_dir == tmp_path / "argument"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[retrain]\nrnak = 8\n", "retrain.rnak"),
        ("[gates]\nalpha = 2.0\n", "gates.alpha"),
        ('[inference]\nadmin_token = "changeme"\n', "inference.admin_token"),
        ("voice = [", "cannot be read"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        load_settings(write(tmp_path, text))


def test_a_missing_settings_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nocap init"):
        load_settings(tmp_path / "none.toml")


def test_secrets_do_not_show_in_the_written_file_or_in_repr() -> None:
    settings = Settings.model_validate({"inference": {"admin_token": "a-real-one"}})
    assert "a-real-one" not in render_settings_file(settings, Path())
    assert "a-real-one" not in repr(settings)


def test_secrets_come_from_files_of_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nocap.toml").write_text('[discord]\ntoken = "from the file"\n')
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "NOCAP_DISCORD__TOKEN").write_text("from the secret\n")
    (secrets / "somebody_elses").write_text("ignored")
    (secrets / "nocap_database__url").write_text("postgresql://nocap:pw@db/nocap")
    monkeypatch.setenv("NOCAP_SECRETS_DIR", str(secrets))
    loaded = load_settings()
    assert loaded.discord.token is not None
    assert loaded.discord.token.get_secret_value() == "from the secret"
    assert loaded.database_url == "postgresql://nocap:pw@db/nocap"
    monkeypatch.setenv("NOCAP_DISCORD__TOKEN", "from the environment")
    token = load_settings().discord.token
    assert token is not None and token.get_secret_value() == "from the environment"
    monkeypatch.setenv("NOCAP_SECRETS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="nowhere"):
        load_settings()


def test_the_environment_says_none_by_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOCAP_RETRAIN__SCHEDULE", "null")
    assert load_settings().retrain.schedule is None
