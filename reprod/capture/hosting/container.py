"""Owns whether a process runs in a container, which one, and of which image: by its cgroup, mounts and root directory.

No runtime is asked: its socket is as good as root. Signs that an image can carry along (``/.dockerenv``) or that a
sandbox leaves too are weak: alone they prove nothing. From inside, no runtime but Apptainer's tells the image, and none
its digest, so the digest is what ``REPROD_IMAGE_DIGEST`` says or None. Measured: 0.1 ms.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from reprod.capture.bounded import read_bounded
from reprod.capture.machine.kernel import process_directory, process_root, read_inside, resolve, why
from reprod.capture.machine.mountinfo import Mount, read_mounts
from reprod.core.hosting import Container, ContainerInstance
from reprod.core.redact import plain, redact_url

_SMALL_BYTES = 1 << 16

#: The inode of the first pid namespace (PROC_PID_INIT_INO).
_FIRST_NAMESPACE = "pid:[4026531836]"

_RUNTIMES = {"libpod": "podman", "crio": "cri-o", "cri-containerd": "containerd", "nerdctl": "containerd"}

# /docker/ID, docker-ID.scope, libpod-ID.scope, kubepods/.../podUID/ID, SLICE:cri-containerd:ID. Not crio-conmon-ID,
# which is the container's guard outside of it. Fargate has ids of its own.
_ID = "[0-9a-f]{64}"
_GROUP = re.compile(
    rf"(?:^|/)(?:[^/\n]*?:)??(?:(docker|libpod|crio|cri-containerd|nerdctl)[-/:])?({_ID})(?:\.scope)?(?=/|$)",
    re.MULTILINE,
)
_FARGATE = re.compile(rf"/ecs/[^/\n]+/({_ID}|[0-9a-f]{{32}}-\d+)(?=/|$)", re.MULTILINE)
_NAMED_GROUP = re.compile(
    r"/(?:lxc(?:\.payload)?[./](?!monitor\b)|machine\.slice/machine-(?!qemu))([^/\n]+?)(?:\.scope)?(?=/|$)",
    re.MULTILINE,
)
_ORCHESTRATED = re.compile(r"/(?:kubepods|ecs)\b|kubepods-")

# Files that the runtime mounts into a container from a directory of its own, which is named by the id.
_MOUNTED = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"}
_MOUNT_IDS = (
    ("docker", re.compile(rf"/containers/({_ID})/(?:hostname|hosts|resolv\.conf)$")),
    ("containerd", re.compile(rf"/nerdctl/.*/({_ID})/")),
    ("podman", re.compile(rf"/[a-z]+-containers/({_ID})/userdata/")),
)
_SANDBOX = re.compile(r"/io\.containerd\.grpc\.v1\.cri/sandboxes/")
_POD = re.compile(r"/pods/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/(?:etc-hosts$|containers/([^/]+)/)")

_DIGEST = re.compile(r"(?:(?P<image>[\w.:/-]{1,255})@)?(?P<digest>sha256:[0-9a-f]{64})")


@dataclass(slots=True)
class _Findings:
    """What was found so far; a field that is set is not set again, so the best source comes first."""

    strong: list[str] = field(default_factory=list)
    weak: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)

    def note(self, name: str, value: str | None) -> None:
        """Keep a value of a field unless it has one."""
        if value and value not in {"unknown", "oci"}:
            self.values.setdefault(name, plain(value))


def read_container(
    pid: int | None = None, *, environ: Mapping[str, str] | None = None, root: str = "/"
) -> tuple[Container, ContainerInstance | None]:
    """Return whether and of which image process ``pid`` (None: the caller) runs in a container, and in which one.

    ``environ`` is that process's environment where it is known; for the caller its own.
    """
    if environ is None:
        environ = os.environ if pid is None else {}
    found = _Findings()
    _look_at_apptainer(found, environ, root, pid)
    _look_at_cgroup(found, root, pid)
    _look_at_mounts(found, root, pid)
    _look_at_files(found, root, pid)
    _look_at_variables(found, environ)
    digest = _image_digest(found, environ)
    present = True if found.strong else None if found.weak or found.problems else False
    values = found.values
    container = Container(
        present=present,
        runtime=values.get("runtime"),
        image=values.get("image"),
        image_id=values.get("image_id"),
        image_digest=digest,
        evidence=(*found.strong, *(f"{sign} (weak)" for sign in found.weak)),
        problems=tuple(found.problems),
    )
    named = {name: values.get(name) for name in ("id", "name", "pod_uid")}
    if not any(named.values()):
        return container, None
    return container, ContainerInstance(**named, evidence=values.get("where"))


def _look_at_apptainer(found: _Findings, environ: Mapping[str, str], root: str, pid: int | None) -> None:
    """Note Apptainer first: it shares the cgroup, and so perhaps the signs, of what it was started in."""
    name = next((kind for kind in ("APPTAINER", "SINGULARITY") if environ.get(f"{kind}_CONTAINER")), None)
    if name:
        found.strong.append(f"{name}_CONTAINER")
        found.note("runtime", name.lower())
        found.note("image", redact_url(environ[f"{name}_CONTAINER"]))
    elif _exists(found, process_root(root, pid), "/.singularity.d"):
        found.strong.append("/.singularity.d")


def _look_at_cgroup(found: _Findings, root: str, pid: int | None) -> None:
    path = os.path.join(process_directory(root, pid), "cgroup")
    try:
        text = read_bounded(path, _SMALL_BYTES).decode("utf-8", "backslashreplace")
    except OSError as error:
        found.problems.append(f"cgroup: {why(error)}")
        return
    # The innermost is the process's own where containers are nested.
    groups = [match for match in _GROUP.finditer(text) if match[1] or _ORCHESTRATED.search(text)]
    fargate, named = _FARGATE.findall(text), _NAMED_GROUP.findall(text)
    if groups:
        kind = groups[-1][1]
        found.note("runtime", _RUNTIMES.get(kind, kind) if kind else None)
    elif named:
        found.note("runtime", "lxc" if "/lxc" in text else "systemd-nspawn")
    identity = groups[-1][2] if groups else fargate[-1] if fargate else None
    if identity or named:
        found.strong.append("cgroup")
        found.note("id", identity)
        found.note("name", None if identity else named[-1])
        found.note("where", "cgroup")


def _look_at_mounts(found: _Findings, root: str, pid: int | None) -> None:
    try:
        mounts = read_mounts(os.path.join(process_directory(root, pid), "mountinfo"))
    except OSError as error:
        found.problems.append(f"mounts: {why(error)}")
        return
    for mount in mounts:
        pod = _POD.search(mount.root) if mount.point in {"/etc/hosts", "/dev/termination-log"} else None
        if pod:
            found.note("pod_uid", pod[1])
            found.note("name", pod[2])
    mounted = [mount for mount in mounts if mount.point in _MOUNTED]
    if "pod_uid" in found.values or any(_SANDBOX.search(mount.root) for mount in mounted):
        found.strong.append("mounts of a pod")
        if "id" not in found.values:
            found.problems.append("id: the mounts only name the pod's sandbox")
        return
    _note_mounted(found, mounted)


def _note_mounted(found: _Findings, mounted: list[Mount]) -> None:
    """Note the container whose files are mounted. One that shares another's network has the other's ``/etc/hosts``."""
    for runtime, pattern in _MOUNT_IDS:
        # podman's own file is never another container's, so it comes first.
        for mount in sorted(mounted, key=lambda mount: mount.point != "/run/.containerenv"):
            match = pattern.search(mount.root)
            if match:
                found.strong.append(f"mount of {mount.point}")
                found.note("runtime", runtime)
                if "id" not in found.values:
                    found.note("where", f"mount of {mount.point}")
                found.note("id", match[1])
                return


def _look_at_files(found: _Findings, root: str, pid: int | None) -> None:
    inside = process_root(root, pid)
    described = _read(found, inside, "/run/.containerenv")
    if described:
        found.strong.append("/run/.containerenv")
        fields = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', described, re.MULTILINE))
        found.note("runtime", fields.get("engine", "").rpartition("-")[0])
        found.note("image", redact_url(fields.get("image", "")))
        found.note("image_id", fields.get("imageid"))
        found.note("name", fields.get("name"))
        if "id" not in found.values:
            found.note("where", "/run/.containerenv")
        found.note("id", fields.get("id"))
    elif described is not None:
        # Without --privileged podman leaves it empty; so do images that were built with buildah.
        found.weak.append("/run/.containerenv")
    manager = _read(found, inside, "/run/systemd/container")
    if manager and manager.strip():
        found.strong.append("/run/systemd/container")
        found.note("runtime", manager.strip())
    if _exists(found, inside, "/.dockerenv"):
        found.weak.append("/.dockerenv")
    try:
        if os.readlink(os.path.join(process_directory(root, pid), "ns/pid")) != _FIRST_NAMESPACE:
            found.weak.append("a pid namespace of its own")
    except FileNotFoundError:
        pass  # a kernel without them
    except OSError as error:
        found.problems.append(f"pid namespace: {why(error)}")


def _look_at_variables(found: _Findings, environ: Mapping[str, str]) -> None:
    if environ.get("KUBERNETES_SERVICE_HOST"):
        found.weak.append("KUBERNETES_SERVICE_HOST")
    # By convention whoever starts a container's first process says so.
    manager = environ.get("container")
    if manager in {"podman", "docker", "lxc", "systemd-nspawn", "oci"}:
        found.strong.append("variable container")
        found.note("runtime", manager)


def _image_digest(found: _Findings, environ: Mapping[str, str]) -> str | None:
    """Return the digest that was passed in, or that the image was pulled by; else note why there is none."""
    stated = environ.get("REPROD_IMAGE_DIGEST")
    if stated:
        match = _DIGEST.fullmatch(stated.strip())
        if match:
            found.strong.append("REPROD_IMAGE_DIGEST")
            if match["image"]:
                found.values["image"] = match["image"]
            return match["digest"]
        found.problems.append("image_digest: REPROD_IMAGE_DIGEST is not sha256: and 64 hex digits")
    match = _DIGEST.fullmatch(found.values.get("image", ""))
    if match:
        return match["digest"]
    if found.strong and not stated:
        found.problems.append("image_digest: not visible from here; set REPROD_IMAGE_DIGEST to have it recorded")
    return None


def _read(found: _Findings, inside: str, path: str) -> str | None:
    """Return a small file of the process's root directory, None where there is none."""
    try:
        return read_inside(inside, path, _SMALL_BYTES).decode("utf-8", "backslashreplace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        found.problems.append(f"{path}: {why(error)}")
        return None


def _exists(found: _Findings, inside: str, path: str) -> bool:
    try:
        os.lstat(resolve(inside, path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        found.problems.append(f"{path}: {why(error)}")
        return False
    return True
