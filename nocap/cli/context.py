"""What every command starts from: the settings of this invocation and what is opened with them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nocap.domain import VoiceName

if TYPE_CHECKING:
    from nocap.actions import Actions
    from nocap.settings import Settings
    from storage.database import Database

VoiceOption = Annotated[str | None, typer.Option("--voice", help="The voice; default from the settings.")]


@dataclass
class Invocation:
    """The global options; settings and database are read on first use."""

    settings_file: Path | None
    data_dir: Path | None
    base: str | None

    @cached_property
    def settings(self) -> Settings:
        return self._load(self.settings_file)

    @property
    def settings_path(self) -> Path:
        return (self.settings_file or Path("nocap.toml")).absolute()

    def settings_or_defaults(self) -> Settings:
        """The settings of the file that `nocap init` is about to write, or of the one that is there."""
        return self._load(self.settings_file if self.settings_path.is_file() else None)

    def command(self) -> list[str]:
        """The command line that starts another nocap process with the same global options."""
        command = [sys.executable, "-m", "nocap.cli"]
        for option, value in (("--settings", self.settings_file), ("--data-dir", self.data_dir), ("--base", self.base)):
            if value is not None:
                command += [option, str(value)]
        return command

    def _load(self, file: Path | None) -> Settings:
        from nocap.settings import load_settings

        settings = load_settings(file, **({"data_dir": self.data_dir.absolute()} if self.data_dir else {}))
        if self.base:
            base = str(Path(self.base).resolve()) if Path(self.base).is_dir() else self.base
            settings = settings.model_copy(update={"model": settings.model.model_copy(update={"base": base})})
        return settings

    @cached_property
    def database(self) -> Database:
        from nocap.app import open_database

        return open_database(self.settings)

    @cached_property
    def actions(self) -> Actions:
        from nocap.actions import Actions

        return Actions(self.database, self.settings, actor="operator")

    def voice(self, name: str | None) -> VoiceName:
        return VoiceName(name or self.settings.voice)


def invocation(context: typer.Context) -> Invocation:
    value = context.find_root().obj
    assert isinstance(value, Invocation)
    return value
