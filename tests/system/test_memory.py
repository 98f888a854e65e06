"""The memory that a process can still take: what the machine and its control groups allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt.errors import InputError
from mt.system.memory import available_memory, check_memory, in_units

MB = 1 << 20


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


MACHINE = {"proc/meminfo": f"MemTotal: 99999999 kB\nMemAvailable: {500 * 1024} kB\n"}
V2 = {
    "proc/self/cgroup": "0::/slurm/job\n",
    "sys/fs/cgroup/slurm/job/memory.max": "max\n",
    "sys/fs/cgroup/slurm/job/memory.current": f"{90 * MB}\n",
    "sys/fs/cgroup/slurm/memory.max": f"{200 * MB}\n",
    "sys/fs/cgroup/slurm/memory.current": f"{150 * MB}\n",
    "sys/fs/cgroup/slurm/memory.stat": f"anon 7\nactive_file {20 * MB}\ninactive_file {10 * MB}\n",
}
V1 = {
    "proc/self/cgroup": "5:cpu:/\n4:memory,hugetlb:/of/the/host\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{300 * MB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{250 * MB}\n",
    "sys/fs/cgroup/memory/memory.stat": f"cache 1\ntotal_active_file {30 * MB}\ntotal_inactive_file 0\n",
}
UNLIMITED = {**V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [({}, 500), (V2, 80), (V1, 80), (UNLIMITED, 500)],
    ids=["machine", "a parent's limit", "in a container", "no limit"],
)
def test_available_memory_is_the_least_of_machine_and_control_groups(
    groups: dict[str, str], expected: int, tmp_path: Path
) -> None:
    write(tmp_path, {**MACHINE, **groups})
    assert available_memory(tmp_path) == expected * MB


def test_without_proc_it_is_the_machines(tmp_path: Path) -> None:
    assert available_memory(tmp_path) >= available_memory() > 0


def test_too_much_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    check_memory("This", 8 * MB, "Close it.", limit=8 * MB)
    with pytest.raises(
        InputError, match=r"^This needs about 9 MB of memory; 8 MB is what --memory allows. Close it\.$"
    ):
        check_memory("This", 9 * MB, "Close it.", limit=8 * MB)
    monkeypatch.setattr("mt.system.memory.available_memory", lambda: 5 * MB)
    with pytest.raises(InputError, match=r"^This needs about 9 MB of memory; 5 MB is available. Close it\.$"):
        check_memory("This", 9 * MB, "Close it.")


def test_amounts_in_words() -> None:
    assert [in_units(amount) for amount in (1, 3 * MB, 1536 * MB, 5 << 40)] == ["1 MB", "3 MB", "1.5 GB", "5 TB"]
