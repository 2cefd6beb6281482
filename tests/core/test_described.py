"""Threads that decode a type for the first time at the same moment: msgspec alone ends the process."""

import ast
import subprocess
import sys
from pathlib import Path

import reprod

PROGRAM = """
import sys, threading
from dataclasses import make_dataclass
import msgspec
from reprod.core.described import described
sys.setswitchinterval(1e-6)
for n in range(40):
    inner = [make_dataclass(f"I{n}_{i}", [(f"f{j}", int, 0) for j in range(8)], frozen=True) for i in range(10)]
    outer = make_dataclass(f"O{n}", [(f"g{i}", inner[i]) for i in range(10)], frozen=True)
    data = {f"g{i}": {f"f{j}": j for j in range(8)} for i in range(10)}
    gate, found = threading.Barrier(4), []
    def use():
        gate.wait()
        found.append(msgspec.convert(data, described(outer)))
    threads = [threading.Thread(target=use) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(found) == 4 and len(set(found)) == 1
"""


def test_threads_may_use_a_type_for_the_first_time_together():
    """Four threads, forty types: all get the same, and the process lives (without the lock it ends by a signal)."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_type_goes_that_way():
    """No call of the package gives msgspec a dataclass that was not described before."""
    bare = []
    for path in sorted(Path(reprod.__file__).parent.rglob("*.py")):
        if path.name == "described.py":
            continue
        for call in (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)):
            what = ast.unparse(call.func)
            if what in {"msgspec.json.decode", "msgspec.msgpack.decode"}:
                given = [word.value for word in call.keywords if word.arg == "type"]
            elif what == "msgspec.convert":
                given = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "type")]
            elif what in {"msgspec.json.Decoder", "msgspec.msgpack.Decoder"}:
                given = call.args[:1]
            else:
                continue
            bare += [
                f"{path.name}:{call.lineno}: {ast.unparse(each)}"
                for each in given
                if not ast.unparse(each).startswith(("described(", "dict[str, bytes]"))
            ]
    assert bare == []
