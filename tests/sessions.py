"""The processes of a session, as `start_new_session` begins one: the command and all it started."""

from pathlib import Path


def left(session: int) -> list[str]:
    """The numbers of those that are still there; a zombie is not."""
    found: list[str] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[3]) == session and words[0] != "Z":
            found.append(stat.parent.name)
    return found
