"""The verb that brings the large files of an environment to the tracking server once, however many runs refer to them.

They lie on a store run like a manifest's (``reprod.ops.upload``), found by the environment's digest. What is small, and
what people look at, is on each run itself.
"""

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from reprod.core.environment import PREFIX
from reprod.ops.upload import Server, is_fresh, plainly
from reprod.sinks.protocol import ENVIRONMENT_TAG, Upload
from reprod.store import uploads

#: The other files of an environment, if they are larger together, go to a store run: 137 packages make 60 KB of
#: packages.json, which 1000 runs need not hold 1000 times.
MOST_INLINE_BYTES = 32 << 10

#: On every run, because people read them there, up to this size each.
READABLE = frozenset({"requirements.txt", "system_info.json", "environment.json", "conda_packages.txt", "git_diff.txt"})
MOST_READABLE_BYTES = 256 << 10

#: What says where the rest lies is on the run whatever its size.
ALWAYS = frozenset({"system_info.json", "environment.json"})


def apart(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return those of an environment's files that go to a store run: none if they are small."""
    large = {
        name: content
        for name, content in files.items()
        if name not in READABLE or (len(content) > MOST_READABLE_BYTES and name not in ALWAYS)
    }
    return large if sum(map(len, large.values())) > MOST_INLINE_BYTES else {}


def ensure_environment_stored(server: Server, digest: str, files: Mapping[str, bytes]) -> str:
    """Return the store run that holds the files of environment ``digest`` (hex), uploaded now if none does.

    :raises SinkError: the server is unreachable or refuses; never of kind ``gone``, which is about the user's run.
    """
    with plainly(f"the environment {digest[:12]}"):
        return _known(server, digest) or _found(server, digest, files) or _upload(server, digest, files)


def _known(server: Server, digest: str) -> str | None:
    """Return the store run that is remembered and was seen lately, or is seen now."""
    known = server.records.read(lambda c: uploads.find(c, server.tracking_uri, bytes.fromhex(digest)))
    if known is None:
        return None
    if is_fresh(server, known):
        return known.run_id
    if any(ENVIRONMENT_TAG in row.tags for row in server.child.runs([known.run_id]).runs):
        server.records.write(lambda c: uploads.checked(c, known, time.time_ns()))
        return known.run_id
    server.records.write(lambda c: uploads.forget(c, server.tracking_uri, known.run_id))
    return None


def _found(server: Server, digest: str, files: Mapping[str, bytes]) -> str | None:
    """Return the run that another daemon, or a forgotten attempt of ours, uploaded."""
    for run in server.child.find_stored(PREFIX + digest):
        if set(files) <= set(run.files):
            return _kept(server, digest, run.run_id, files)
    return None


def _upload(server: Server, digest: str, files: Mapping[str, bytes]) -> str:
    where = (server.tracking_uri, PREFIX + digest, 0, bytes.fromhex(digest))
    run_id = server.records.read(lambda c: uploads.begun(c, *where))
    if run_id is None or not server.child.runs([run_id]).runs:
        opened = run_id = server.child.open_store(f"environment {digest[:12]}")
        server.records.write(lambda c: uploads.begin(c, *where, opened))
    folder = Path(tempfile.mkdtemp(prefix="environment-", dir=server.scratch))
    try:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        server.child.upload(Upload(run_id, str(folder), PREFIX + digest))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _kept(server, digest, run_id, files)


def _kept(server: Server, digest: str, run_id: str, files: Mapping[str, bytes]) -> str:
    size = sum(map(len, files.values()))
    row = uploads.Upload(
        tracking_uri=server.tracking_uri,
        file=PREFIX + digest,
        seq=0,
        digest=bytes.fromhex(digest),
        run_id=run_id,
        kind="checkpoint",
        base=None,
        chain=(run_id,),
        size=size,
        checkpoint_size=size,
        checked_ns=time.time_ns(),
    )
    server.records.write(lambda c: uploads.keep(c, row))
    return run_id
