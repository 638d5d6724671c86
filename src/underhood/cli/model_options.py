"""The options that every command has which opens a published model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Options of opening a model; the command line sets them before the command runs (see `cli.main`)."""

    ignore_config_keys: tuple[str, ...] = ()
    """Keys of a published model's config.json to pass over although underhood does not know them."""
