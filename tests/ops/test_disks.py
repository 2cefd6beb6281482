"""The disks of a run's datasets: noted for each root that can be looked at, with the reason for each that cannot."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reprod.capture.process.identity import current_context
from reprod.capture.subject import subject_of_process
from reprod.core.environment import Environment, Record, decode_record, encode_record
from reprod.core.environment_facts import process_facts
from reprod.core.environment_files import system_info
from reprod.core.execution import Execution, with_end
from reprod.ops import disks
from reprod.ops.disks import ELSEWHERE, with_disks


@pytest.fixture
def execution() -> Execution:
    return Execution(subject_of_process(current_context(), "handover"), 1_700_000_000_000_000_000)


def test_each_root_has_its_disk(execution: Execution, tmp_path: Path) -> None:
    """Two roots on two file systems: type, source, size and room of each; they are in the record, in
    system_info.json and on the screen, and stay when the process tells its end."""
    found = with_disks(execution, [str(tmp_path), "/proc", str(tmp_path)])
    assert found is not None
    mine, proc = found.disks
    assert (mine.path, proc.path, proc.fs_type) == (str(tmp_path), "/proc", "proc")
    assert mine.free_bytes is not None
    assert 0 < mine.free_bytes <= shutil.disk_usage(tmp_path).total
    record = Record(with_end(found, execution), Environment())
    assert decode_record(encode_record(record)) == record
    assert [each["path"] for each in system_info(record)["disks"]] == [str(tmp_path), "/proc"]
    shown = [text for label, text in process_facts(found) if label == "disk"]
    assert shown[0].startswith(f"{tmp_path}, {mine.fs_type} {mine.source}, ")
    assert shown[0].count(" free") == 1


def test_a_root_that_is_gone_costs_itself(execution: Execution, tmp_path: Path) -> None:
    """A root that is not there is named with the reason; the other's disk is told."""
    found = with_disks(execution, [str(tmp_path / "gone"), str(tmp_path)])
    assert found is not None
    assert [disk.path for disk in found.disks] == [str(tmp_path)]
    assert found.unknown["disks"].startswith(f"{tmp_path}/gone: ")
    assert "No such file" in found.unknown["disks"]


def test_a_server_that_does_not_answer_costs_its_time_only(
    execution: Execution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that hangs in a call is left behind when its budget is over."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    real = disks.read_disk
    monkeypatch.setattr(disks, "BUDGET_S", 0.1)
    monkeypatch.setattr(disks, "read_disk", lambda path: pipe.read_bytes() if path == "/hangs" else real(path))
    found = with_disks(execution, ["/hangs", str(tmp_path)])
    with open(pipe, "wb"):  # lets the thread go
        pass
    assert found is not None
    assert [disk.path for disk in found.disks] == [str(tmp_path)]
    assert found.unknown["disks"] == "/hangs: timeout: it took over 0.1 s"


def test_of_another_machine_nothing_is_claimed(execution: Execution, tmp_path: Path) -> None:
    """A process of another boot may have had the data on another disk; without an execution it has no place."""
    other = replace(execution, subject=replace(execution.subject, boot_id="0" * 36))
    found = with_disks(other, [str(tmp_path)])
    assert found is not None
    assert (found.disks, found.unknown["disks"]) == ((), ELSEWHERE)
    assert with_disks(None, [str(tmp_path)]) is None
