"""What could explain another result: the order of causes, and what is said where nothing differs or is known."""

import math
from dataclasses import replace

import pytest

from reprod.core.drift import DatasetDrift, Drift
from reprod.core.environment import Environment, Record
from reprod.core.execution import Execution, Subject
from reprod.core.explain import ORDER, explain, not_recorded
from reprod.core.machine import Cpu
from reprod.core.packages import Package, PackageSet, Python
from reprod.core.repository import Git, Withheld
from reprod.core.run_differences import DatasetDifference, differences
from reprod.core.run_record import RunRecord, UsedDataset

DIGEST = "dt1:" + "0" * 64
GIT = Git("c" * 40, "main", False, "/code", tree="t" * 40)

HELD = replace(GIT, dirty=True, withheld=(Withheld("secret.py", 3, "a secret"),))


def record(version: str = "1.0", git: Git | None = GIT, flags: tuple[str, ...] = ("avx2",), **variables: str) -> Record:
    """Return an environment of which what matters here is known."""
    package = Package("numpy", version, "/venv/lib", installer="pip")
    environment = Environment(
        python=Python("3.11.7", "/venv/bin/python", "/venv", "/usr"),
        packages=PackageSet((package,)),
        cpu=Cpu(flags=flags),
        git=git,
        variables=variables,
    )
    return Record(Execution(Subject("process", "trainer", "", "in-process"), 1), environment)


def run(environment: Record | None = None, **more: object) -> RunRecord:
    """Return a run on one dataset."""
    used = (UsedDataset("images", DIGEST, 1, "start"),)
    whole = RunRecord("a" * 32, "run", "e", "FINISHED", 1, 2, state="captured", datasets=used, environment=environment)
    return replace(whole, **more)  # type: ignore[arg-type]


def ranks(a: RunRecord, b: RunRecord, *data: DatasetDifference) -> list[tuple[str, str]]:
    """Return rank and place of each cause that is known to matter, or not known not to."""
    return [(each.rank, each.what) for each in explain(differences(a, b, data)) if each.rank != "benign"]


def test_causes_come_in_the_order_of_how_likely_they_matter() -> None:
    """Data before code before params before what the environment computes, then digits, the machine, the unknown."""
    a = run(record(OMP_NUM_THREADS="1"), params={"lr": "0.1"})
    other = replace(GIT, commit="d" * 40, tree="u" * 40)
    b = run(record("2.0", other, ("avx2", "avx512f"), OMP_NUM_THREADS="2"), params={"lr": "0.2"})
    data = [
        DatasetDifference("unproven", "unknown", reason="late"),
        DatasetDifference("images", "differs", counts={"added": 2}),
    ]
    found = ranks(a, b, *data)
    known = [each for each in found if each[0] != "unknown"]
    assert known == [
        ("data", "images"),
        ("code", "code"),
        ("params", "lr"),
        ("semantic", "packages.numpy"),
        ("numeric", "variables.OMP_NUM_THREADS"),
        ("hardware", "cpu.flags"),
    ]
    assert ("unknown", "unproven") in found
    order = [ORDER.index(rank) for rank, _ in found]  # type: ignore[arg-type]
    assert order == sorted(order)


def test_one_run_differs_from_itself_in_nothing() -> None:
    """A run beside itself has no cause, also where a metric is not a number; what no run records is still said."""
    one = run(record(), metrics={"loss": math.nan}, params={"lr": "0.1"})
    found = differences(one, one, (DatasetDifference("images", "same"),))
    assert [each for each in explain(found) if each.rank != "unknown"] == []
    assert (found.params, found.metrics, found.equal_params, found.code.relation) == ((), (), 1, "same")
    assert any("order" in each for each in not_recorded(found))


def test_what_changed_during_a_run_is_a_cause_though_both_started_on_the_same_data() -> None:
    """Equal digests, but the data changed, or grew, while one of them ran."""
    for verdict, told in (("changed", "both states"), ("appended", "new files")):
        drift = Drift("a" * 32, 1, 2, 3, (DatasetDrift("images", verdict, "why"),))  # type: ignore[arg-type]
        found = explain(differences(run(record()), run(record(), drift=drift), (DatasetDifference("images", "same"),)))
        (cause,) = [each for each in found if each.rank == "data"]
        assert told in cause.sentence
        assert "while B ran" in cause.sentence


@pytest.mark.parametrize(
    ("a", "b", "relation", "told"),
    [
        (GIT, replace(GIT, dirty=True, tree="u" * 40), "differs", "with uncommitted changes in B"),
        (
            replace(GIT, dirty=True, tree="v"),
            replace(GIT, dirty=True, tree="w"),
            "differs",
            "other uncommitted changes",
        ),
        (replace(GIT, dirty=True), replace(GIT, dirty=True), "same", "the same uncommitted changes"),
        (GIT, replace(GIT, commit="d" * 40), "same", "the same files"),
        (replace(GIT, dirty=True), replace(GIT, commit="d" * 40), "same", "with uncommitted changes in A"),
        (GIT, replace(GIT, commit="d" * 40, tree="u" * 40), "differs", "cccccccccccc → dddddddddddd"),
        (
            GIT,
            replace(GIT, withheld=(Withheld("secret.py", 3, "a secret"),)),
            "unknown",
            "1 changed file was withheld",
        ),
        (HELD, HELD, "unknown", "2 changed files were withheld"),
        (GIT, replace(GIT, dirty=True, tree=None), "unknown", "not known on both sides"),
    ],
)
def test_code_is_compared_by_its_tree(a: Git, b: Git, relation: str, told: str) -> None:
    """Equal trees are equal code, whatever the commits; what was withheld, or is not known, is never called equal."""
    code = differences(run(record(git=a)), run(record(git=b)), ()).code
    assert code.relation == relation, code
    assert told in code.sentence


def test_without_environments_the_params_tell_the_commit() -> None:
    """The commit that was written as a param counts, only a clean one as equal; the user's own does not."""
    clean = {"git_commit": "c" * 40, "git_uncommitted_changes": "false"}
    assert differences(run(params=clean), run(params=clean), ()).code.relation == "same"
    dirty = {**clean, "git_uncommitted_changes": "true"}
    assert differences(run(params=clean), run(params=dirty), ()).code.relation == "unknown"
    mine = {"git_commit": "mine", "reprod.git_commit": "d" * 40}
    found = differences(run(params=clean), run(params=mine), ())
    assert (found.code.relation, found.code.commits[1]) == ("differs", "d" * 40)
    assert [each.name for each in found.params] == ["git_commit"]
    assert ("unknown", "environment") in [(each.rank, each.what) for each in explain(found)]


def test_what_is_not_recorded_is_named() -> None:
    """A dataset without a digest, no environment and no word on drift are said, for each run by its letter."""
    bare = run(environment_unknown="the process was gone", datasets=(UsedDataset("images", error="it changed"),))
    told = not_recorded(differences(run(record()), bare, ()))
    assert "B: images has no digest: it changed" in told
    assert "B: its environment: the process was gone" in told
    assert any(each.startswith("A: whether the data changed while it ran") for each in told)


def test_params_of_a_users_own_that_have_our_names_are_theirs() -> None:
    """A run without a proven dataset has no param of ours for it: an equal one of the user's is no difference."""
    ours = {"reprod.data_path": "/data", "manifest_version": "1", "hash_algorithms": "sha256"}
    captured = run(record(), params={"data_path": "mine", **ours})
    incomplete = run(record(), params={"data_path": "mine"})
    found = differences(captured, incomplete, ())
    assert (found.params, found.equal_params) == ((), 1)
    other = differences(captured, run(record(), params={"data_path": "yours"}), ())
    assert [(each.name, each.a, each.b) for each in other.params] == [("data_path", "mine", "yours")]
    plain = run(record(), params={"data_path": "/data", "data_path.images": "/data", "manifest_version": "1"})
    assert differences(plain, run(record()), ()).params == ()
