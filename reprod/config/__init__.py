"""The configuration: what it may say (values), how it is read (parse), where it is (places), how it is changed (edit).

Names are loaded on first use: the command line needs ``places`` in milliseconds and the parser only sometimes.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reprod.config.edit import (
        DEFAULT_EXCLUDE,
        Edit,
        add_dataset,
        move_dataset,
        nested_in,
        remove_dataset,
        rename_dataset,
    )
    from reprod.config.parse import load
    from reprod.config.places import config_file, listen_path, socket_candidates, state_dir
    from reprod.config.values import (
        Config,
        DaemonConfig,
        DatasetConfig,
        EnvironmentConfig,
        Misconfigured,
        MlflowConfig,
        Rule,
        ScanConfig,
        StoreConfig,
        UploadConfig,
        WatchConfig,
    )

__all__ = [
    "DEFAULT_EXCLUDE",
    "Config",
    "DaemonConfig",
    "DatasetConfig",
    "Edit",
    "EnvironmentConfig",
    "Misconfigured",
    "MlflowConfig",
    "Rule",
    "ScanConfig",
    "StoreConfig",
    "UploadConfig",
    "WatchConfig",
    "add_dataset",
    "config_file",
    "listen_path",
    "load",
    "move_dataset",
    "nested_in",
    "remove_dataset",
    "rename_dataset",
    "socket_candidates",
    "state_dir",
]

_HOME = {
    "DEFAULT_EXCLUDE": "edit",
    "add_dataset": "edit",
    "Edit": "edit",
    "move_dataset": "edit",
    "nested_in": "edit",
    "remove_dataset": "edit",
    "rename_dataset": "edit",
    "load": "parse",
    "config_file": "places",
    "listen_path": "places",
    "socket_candidates": "places",
    "state_dir": "places",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'reprod.config' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"reprod.config.{_HOME.get(name, 'values')}"), name)
