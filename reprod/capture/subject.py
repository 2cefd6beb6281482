"""Owns how the subject of a record is written down: whose it is, and how that was found out.

Strings come from tags, from /proc and from the kernel: each is made fit for UTF-8 here.
"""

from reprod.capture.process.identity import boot_id, host_name
from reprod.core.execution import Subject, SubjectKind
from reprod.core.process import ProcessContext
from reprod.core.redact import plain


def subject_of_process(context: ProcessContext, how: str, *, prefix: str | None = None) -> Subject:
    """Return the subject of a process's record; ``prefix`` is the one that was found, else the one that it claims."""
    return Subject(
        kind="process",
        host=plain(context.host),
        boot_id=context.boot_id,
        how=how,
        pid=context.pid,
        start_ticks=context.start_ticks,
        prefix=plain(prefix or context.prefix),
    )


def subject_here(kind: SubjectKind, how: str, *, prefix: str | None = None) -> Subject:
    """Return the subject of a record of this machine, or of an interpreter on it."""
    return Subject(kind=kind, host=plain(host_name()), boot_id=boot_id(), how=how, prefix=prefix)
