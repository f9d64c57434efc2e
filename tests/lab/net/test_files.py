"""The files of a pod: mounts where the machine has the folder, or lacks it, and above others."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.net.files import Mount, arrange
from tests.support.namespaces import isolated


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "volume"
    made.mkdir()
    (made / "word").write_text("hello")
    (tmp_path / "root").mkdir()
    return made


@pytest.mark.parametrize("target", ["/mnt", "/not/on/this/machine", "/var/run/not-here", "/etc/no"])
def test_a_volume_is_where_it_is_mounted(volume: Path, target: str) -> None:
    def seen() -> tuple[str, bool, bool]:
        arrange([Mount(volume, Path(target))], (), volume.parent / "root")
        word = (Path(target) / "word").read_text()
        return word, Path("/proc/self/status").exists(), Path("/etc/passwd").exists()

    assert isolated(seen) == ("hello", True, True)
    assert not Path("/not").exists()
    assert not Path("/etc/no").exists()


def test_a_mount_above_others_hides_but_what_is_kept(volume: Path, tmp_path: Path) -> None:
    """A volume at /tmp with the lab's own folder below it."""
    above, kept = Path(*tmp_path.parts[:2]), tmp_path / "kept"
    kept.mkdir()
    (kept / "state").touch()
    file = tmp_path / "file"
    file.write_text("own")

    def seen() -> tuple[list[str], list[str], str]:
        mounts = [Mount(file, Path("/etc/hosts")), Mount(volume, above)]
        arrange(mounts, [kept], tmp_path / "root")
        listed = sorted(path.name for path in above.iterdir() if not kept.is_relative_to(path))
        return listed, [path.name for path in kept.iterdir()], Path("/etc/hosts").read_text()

    assert isolated(seen) == (["word"], ["state"], "own")


def test_a_read_only_volume_can_not_be_written(volume: Path) -> None:
    def written() -> str:
        arrange([Mount(volume, Path("/mnt"), read_only=True)], (), volume.parent / "root")
        try:
            Path("/mnt/new").touch()
        except OSError as error:
            return str(error.strerror)
        return ""

    assert isolated(written) == "Read-only file system"
    assert not (volume / "new").exists()
