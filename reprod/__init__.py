"""reprod: know which bytes and which environment every MLflow run was trained on.

Public names are loaded on first use, so that ``import reprod`` costs nothing in a training process.
"""

__version__ = "0.1.0"

__all__ = ["DataManifestGenerator", "capture_environment", "tag_dataset", "track", "wait_captured"]

TYPE_CHECKING = False  # typing itself costs 7 ms, and worker processes import this too
if TYPE_CHECKING:
    from reprod.api import capture_environment, tag_dataset, track, wait_captured
    from reprod.generator import DataManifestGenerator


def __getattr__(name: str) -> object:
    if name == "DataManifestGenerator":
        from reprod.generator import DataManifestGenerator

        return DataManifestGenerator
    if name in __all__:
        from reprod import api

        return getattr(api, name)
    raise AttributeError(f"module 'reprod' has no attribute {name!r}")
