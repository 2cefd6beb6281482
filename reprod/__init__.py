"""reprod: know which bytes and which environment every MLflow run was trained on.

Public names are loaded on first use, so that ``import reprod`` costs nothing in a training process.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["capture_environment", "tag_dataset", "wait_captured"]

if TYPE_CHECKING:
    from reprod.api import capture_environment, tag_dataset, wait_captured


def __getattr__(name: str) -> Any:
    if name in __all__:
        from reprod import api

        return getattr(api, name)
    raise AttributeError(f"module 'reprod' has no attribute {name!r}")
