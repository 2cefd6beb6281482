"""What is known of an environment, section by section, as short texts for people beside their labels.

Rule: what is not known is left out here; the reasons are listed apart. Texts come out of records that others wrote, so
whoever shows them escapes them for the medium: ``render.safe`` a terminal, ``report_html`` a page. Sizes come in as
bytes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from reprod.core import amount
from reprod.core.accelerator import Gpu
from reprod.core.environment import Environment, Record
from reprod.core.execution import Execution
from reprod.core.machine import Limits
from reprod.core.packages import Origin, PackageSet
from reprod.core.repository import Git

#: A label and its text.
Fact = tuple[str, str]

#: First characters of a commit: enough for people, and for git.
_COMMIT = 12


def joined(parts: Iterable[str | None]) -> str:
    """Return the parts that there are, separated by commas."""
    return ", ".join(part for part in parts if part)


def packages_text(found: PackageSet | None) -> str:
    """Return how many packages there are, and how many of them are special."""
    if found is None:
        return "unknown"
    counted = Counter(each.origin for each in found.packages if not each.shadowed)
    kinds: tuple[tuple[Origin, str], ...] = (
        ("editable", "editable"),
        ("vcs", "from repositories"),
        ("archive", "from addresses"),
        ("directory", "from directories"),
    )
    edited = sum(1 for each in found.packages if each.edited)
    return joined(
        [
            f"{sum(counted.values()):,}",
            *(f"{counted[key]:,} {words}" for key, words in kinds if counted[key]),
            f"{sum(each.shadowed for each in found.packages):,} shadowed"
            if any(p.shadowed for p in found.packages)
            else "",
            f"{edited:,} with edited files" if edited else "",
            f"{len(found.broken):,} broken" if found.broken else "",
        ]
    )


def gpus_text(env: Environment) -> str | None:
    """Return the GPUs, equal ones counted; None if that is not known."""
    found = env.accelerators
    if found is None:
        return None
    if not found.gpus:
        return joined([f"none ({found.how})", *found.others])
    counted = Counter(_gpu(each) for each in found.gpus)
    return joined([*(f"{count} × {text}" if count > 1 else text for text, count in counted.items()), *found.others])


def _gpu(gpu: Gpu) -> str:
    about = [
        amount.size(gpu.memory_bytes) if gpu.memory_bytes else "",
        f"compute {gpu.capability}" if gpu.capability else "",
        f"driver {gpu.driver}" if gpu.driver else "",
        "MIG" if gpu.mig else "",
    ]
    told = joined(about)
    return f"{gpu.vendor} {gpu.name or 'GPU'}".replace("NVIDIA NVIDIA", "NVIDIA") + (f" ({told})" if told else "")


def git_text(git: Git) -> str:
    """Return the commit, the branch, and what differs from it."""
    counts = [
        f"{count:,} {words}"
        for count, words in ((git.staged, "staged"), (git.unstaged, "unstaged"), (git.untracked, "untracked"))
        if count
    ]
    changed = None
    if git.dirty is not None:
        changed = "uncommitted changes" if git.dirty else "clean"
    return joined(
        [
            " ".join(part for part in (git.commit[:_COMMIT], git.branch or "detached") if part),
            f"{changed} ({joined(counts)})" if counts and changed else changed,
            _plural(git.unpushed, "unpushed commit") if git.unpushed else "",
            f"{len(git.withheld) + git.withheld_more:,} withheld" if git.withheld else "",
        ]
    )


def machine_facts(env: Environment) -> Iterator[Fact]:
    """Yield what is known of the interpreter, the machine and the place."""
    if env.python is not None:
        python = env.python
        build = joined([python.build, python.compiler, "free-threaded" if python.free_threaded else ""])
        yield "Python", f"{python.implementation or 'Python'} {python.version}" + (f" ({build})" if build else "")
        yield "prefix", python.prefix + (f" (base {python.base_prefix})" if python.base_prefix != python.prefix else "")
    if env.system is not None:
        system = env.system
        libc = " ".join(part for part in (system.libc, system.libc_version) if part)
        yield "system", joined([system.os, f"{system.system} {system.release}", system.machine, libc])
    if env.cpu is not None:
        cpu = env.cpu
        counts = [(cpu.sockets, "socket"), (cpu.cores, "core"), (cpu.threads, "thread")]
        shown = [_plural(count, word) for count, word in counts if count]
        yield "CPU", joined([cpu.model, *shown, cpu.isa_level, f"governor {cpu.governor}" if cpu.governor else ""])
    if env.memory is not None and env.memory.total_bytes is not None:
        swap = env.memory.swap_bytes
        yield (
            "memory",
            joined([amount.size(env.memory.total_bytes), f"swap {amount.size(swap)}" if swap else "no swap"]),
        )
    if env.limits is not None:
        yield "limits", _limits(env.limits)
    gpus = gpus_text(env)
    if gpus is not None:
        yield "GPUs", gpus
    yield from _stacks(env)
    if env.container is not None and env.container.present:
        box = env.container
        image = joined([box.image, f"digest {box.image_digest}" if box.image_digest else ""])
        yield "container", joined([box.runtime or "a container", image])


def _limits(limits: Limits) -> str:
    memory = limits.memory_max
    return joined(
        [
            f"{limits.cpu_effective:g} CPUs" if limits.cpu_effective is not None else "",
            f"quota {limits.cpu_quota:g} CPUs" if isinstance(limits.cpu_quota, float) else "",
            f"memory {amount.size(memory)}" if isinstance(memory, int) else "memory not limited" if memory else "",
            f"cgroup {limits.cgroup}" if limits.cgroup else "",
        ]
    )


def _stacks(env: Environment) -> Iterator[Fact]:
    """Yield the versions of CUDA and ROCm, each kind by its name: they differ on most machines."""
    cuda = env.cuda
    if cuda is not None:
        named = (
            ("driver up to", cuda.driver_max), ("runtime", cuda.runtime), ("toolkit", cuda.toolkit),
            ("cuDNN", cuda.cudnn), ("NCCL", cuda.nccl), ("cuBLAS", cuda.cublas),
        )  # fmt: skip
        if text := joined(f"{name} {version}" for name, version in named if version):
            yield "CUDA", text
    rocm = env.rocm
    if rocm is not None:
        kinds = (("driver", rocm.driver), ("runtime", rocm.runtime), ("toolkit", rocm.toolkit))
        if text := joined(f"{name} {version}" for name, version in kinds if version):
            yield "ROCm", text


def code_facts(git: Git) -> Iterator[Fact]:
    """Yield what is known of the repository."""
    yield "git", git_text(git)
    yield "root", git.root
    if git.tree:
        yield "tree", git.tree
    for remote in git.remotes:
        yield "remote", f"{remote.name} {remote.url}"
    if git.upstream:
        behind = [f"{count:,} {word}" for count, word in ((git.ahead, "ahead"), (git.behind, "behind")) if count]
        yield "upstream", joined([git.upstream, *behind])
    for each in git.files:
        yield "file", f"{each.name} ({amount.size(each.size)})"
    for held in git.withheld:
        yield "withheld", f"{held.path}: {held.reason}"
    if git.withheld_more:
        yield "withheld", f"and {git.withheld_more:,} more"
    for module in git.submodules:
        yield "submodule", joined([module.path, (module.commit or "not initialised")[:_COMMIT], module.problem])


def process_facts(seen: Execution) -> Iterator[Fact]:
    """Yield what is known of the one process."""
    call = seen.invocation
    if call is not None:
        if call.arguments:
            yield "command", " ".join(call.arguments)
        if call.cwd:
            yield "directory", call.cwd
        if call.entry is not None:
            yield "entry", " ".join(part for part in (call.entry.kind, call.entry.name) if part)
        for launcher in call.launchers:
            yield "launcher", launcher.name
        if call.ranks:
            yield "ranks", " ".join(f"{name}={value}" for name, value in call.ranks.items())
    for job in seen.schedulers:
        parts = [f"job {job.job_id}" if job.job_id else "", job.job_name, job.queue, job.node]
        yield "job", joined([job.kind, *parts])
    if seen.container is not None and seen.container.id:
        yield "container", seen.container.id[:_COMMIT]
    if seen.visible_gpus is not None:
        yield "visible GPUs", joined(map(str, seen.visible_gpus)) or "none"
    yield from _number_facts(seen)
    yield from _import_facts(seen)
    for disk in seen.disks:
        size = amount.size(disk.total_bytes) if disk.total_bytes is not None else ""
        free = f"{amount.size(disk.free_bytes)} free" if disk.free_bytes is not None else ""
        turning = {True: "rotating", False: "not rotating", None: ""}[disk.rotational]
        yield "disk", joined([disk.path, f"{disk.fs_type} {disk.source}", size, free, turning])


def _number_facts(seen: Execution) -> Iterator[Fact]:
    if seen.numerics is not None:
        for library in seen.numerics.libraries or ():
            threads = _plural(library.threads, "thread") if library.threads else ""
            yield library.kind, joined([f"{library.name} {library.version or ''}".strip(), threads, library.kernel])
        torch = seen.numerics.torch
        if torch is not None:
            threads = _plural(torch.threads, "thread") if torch.threads else ""
            strict = {True: "deterministic", False: "not deterministic", None: ""}[torch.deterministic]
            yield "torch", joined([torch.version, threads, torch.cpu_capability, strict])
        for each in seen.numerics.gpu_libraries or ():
            yield "loaded", joined([f"{each.name} {each.version or ''}".strip(), each.source])
        if seen.numerics.hash_seed:
            yield "hash seed", seen.numerics.hash_seed
    state = seen.random_state
    if state is not None:
        kinds = (("torch", state.torch_seed), ("numpy", state.numpy_sha256), ("python", state.python_sha256))
        yield "seeds", joined(f"{name} {value[:_COMMIT]}" for name, value in kinds if value)


def _import_facts(seen: Execution) -> Iterator[Fact]:
    for label, used in (("imported", seen.imports), ("names imports", seen.named_imports)):
        if used is not None:
            names = joined(f"{each.name} {each.version or ''}".strip() for each in used.distributions)
            yield label, (names or "nothing") + ("" if used.complete else " (and perhaps more)")


def benchmark_facts(seen: Execution) -> Iterator[Fact]:
    """Yield what was measured, and what was not."""
    if seen.benchmark is None:
        return
    label = "benchmark"
    for each in seen.benchmark.measurements:
        rate = f"{amount.size(each.median)}/s" if each.unit == "B/s" else f"{each.median:.3g} {each.unit}"
        yield label, joined([f"{each.name} {rate}", f"±{50 * each.spread:.0f} %", each.note])
    for name, why in seen.benchmark.skipped.items():
        yield label, f"{name}: not measured, {why}"
    others = seen.benchmark.others_cpu
    if others is not None:
        yield label, f"others used {100 * others:.0f} % of the processors meanwhile"


def unknown_facts(record: Record) -> list[Fact]:
    """Return the sections that are not known, those with one reason together, each with its reason."""
    sections: dict[str, list[str]] = {}
    for section, why in sorted({**record.environment.unknown, **record.execution.unknown}.items()):
        sections.setdefault(why, []).append(section)
    return [(", ".join(names), why) for why, names in sections.items()]


def problems(env: Environment) -> list[str]:
    """Return what could not be read within sections that are known, each under its section's name."""
    found = []
    for name in Environment.__slots__:
        section = getattr(env, name)
        found += [f"{name}: {problem}" for problem in getattr(section, "problems", ())]
    return found


def _plural(count: int, one: str) -> str:
    return f"{count:,} {one if count == 1 else one + 's'}"
