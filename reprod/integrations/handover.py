"""The door through which a training process hands over who it is; the mechanics are ``reprod.capture.handover``.

Standard library only. Nothing here raises, and nothing takes over 50 ms.
"""

from reprod.capture.handover import ask


def announce(run_id: str | None = None, dataset: str | None = None, tracking_uri: str | None = None) -> bool:
    """Tell the daemon who this process is, and which run of which tracking server uses which dataset.

    The first call in a process also starts a detached child that hands over the whole environment record. Returns
    whether a daemon was found.
    """
    return ask(run_id, dataset, tracking_uri) is not None
