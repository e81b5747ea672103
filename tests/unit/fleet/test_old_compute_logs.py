"""Old output of runs leaves each host; what is being written stays."""

import os
from pathlib import Path

from libs.settings import Settings
from orchestration.fleet.working.old_compute_logs import remove_old_output

DAY = 24 * 60 * 60
NOW = 1_800_000_000.0


def test_only_old_files_and_empty_folders_go(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, chunk_max_age_days=7)
    assert remove_old_output(settings, NOW) == 0, "there is no such folder yet"
    logs = tmp_path / "compute_logs" / "storage"
    ages = {"killed/compute_logs/a.out": 8, "killed/compute_logs/a.err": 8, "running/compute_logs/b.out": 1}
    for name, days in ages.items():
        (logs / name).parent.mkdir(parents=True, exist_ok=True)
        (logs / name).write_text("output")
        os.utime(logs / name, (NOW - days * DAY,) * 2)
    outside = tmp_path / "precious"
    outside.write_text("not a log")
    os.utime(outside, (NOW - 99 * DAY,) * 2)
    (logs / "link").symlink_to(outside)
    for folder in (logs / "killed", logs / "killed/compute_logs", logs / "running", logs / "running/compute_logs"):
        os.utime(folder, (NOW - 8 * DAY,) * 2)
    assert remove_old_output(settings, NOW) == 2
    assert not list((logs / "killed" / "compute_logs").glob("*"))
    assert (logs / "running/compute_logs/b.out").exists()
    assert outside.exists()
    for folder in [*logs.rglob("*")]:
        if folder.is_dir():
            os.utime(folder, (NOW - 8 * DAY,) * 2)
    assert remove_old_output(settings, NOW) == 0
    assert not (logs / "killed").exists() or not list((logs / "killed").iterdir())
