"""The lessons: complete, and every command in them is one that can be typed."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from lab.cli import main
from tests.support.repository import ISTIO, LESSONS, ROOT, name_of

FOLDERS = [lesson.folder for lesson in LESSONS]
PAGES = [
    *(folder / "README.md" for folder in FOLDERS),
    ISTIO / "README.md",
    ISTIO / "install/README.md",
    ROOT / "docs/codelab.md",
    ROOT / "docs/exercise-format.md",
]
PARTS = re.MULTILINE | re.DOTALL
BLOCK = re.compile(r"^```bash\n(.*?)^```", PARTS)


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text())


def words(page: Path) -> list[list[str]]:
    """The words of every command line of a page."""
    lines = [line for block in blocks(page) for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


TYPED = [page for page in PAGES if blocks(page)]
"""The pages that have commands to type."""


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_show_prints_can_be_typed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shell fills in $INGRESS and what was remembered, which it does not in single quotes."""
    assert main(["exercise", "show", folder.name]) == 0
    lines = re.findall(r"^   \$ (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert lines
    for line in lines:
        assert shlex.split(line, comments=True)
        assert "$" not in "".join(re.findall(r"'[^']*'", line))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_lesson_is_complete(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert text.startswith(f"# {folder.name[:2]} ")
    assert "```mermaid\nflowchart LR\n" in text
    for heading in ("## Try next", "## Clean up", "## Since 2020"):
        assert f"\n{heading}\n" in text
    assert "Before you begin:" in " ".join(text.split())
    assert blocks(folder / "README.md")
    questions, _, answers = text.partition("## Try next")[2].partition("<summary>Answers</summary>")
    assert questions.count("\n- ") == answers.partition("</details>")[0].count("\n- ")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_a_lesson_shows_of_its_manifests_is_in_them(folder: Path) -> None:
    """A line that matters ends with `# ← why`."""
    manifests = [path.read_text() for path in folder.glob("*.yaml")]
    for shown in re.findall(r"^```yaml\n(.*?)^```", (folder / "README.md").read_text(), PARTS):
        excerpt = re.sub(r" +# ←.*", "", shown)
        assert any(excerpt in dedented(text, excerpt) for text in manifests), excerpt


def dedented(text: str, excerpt: str) -> str:
    """A manifest, moved to the left so that the excerpt's first line has no indent."""
    first = re.escape(excerpt.partition("\n")[0])
    indents = {len(indent) for indent in re.findall(rf"^( *){first}$", text, re.MULTILINE)}
    return "\n".join(re.sub(rf"^ {{{indent}}}", "", text, flags=re.MULTILINE) for indent in indents)


APPLIED = sorted(
    {
        (lesson.folder, name_of((lesson.folder / file).resolve()))
        for lesson in LESSONS
        for step in lesson.exercise.steps
        for file in step.apply
    }
)


@pytest.mark.parametrize(("folder", "file"), APPLIED, ids=[f"{f.name}-{n}" for f, n in APPLIED])
def test_a_lesson_applies_what_its_exercise_applies(folder: Path, file: str) -> None:
    assert file in (folder / "README.md").read_text()


@pytest.mark.parametrize("page", TYPED, ids=name_of)
def test_every_block_is_shell_that_parses(page: Path) -> None:
    for block in blocks(page):
        done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert done.returncode == 0, f"{done.stderr}\n{block}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_block_does_not_look_at_its_own_change(folder: Path) -> None:
    """On a cluster the proxies have it after `kubectl` is back: pasted whole, it shows before."""
    for block in blocks(folder / "README.md"):
        changed = False
        for line in block.splitlines():
            if re.search(r"kubectl (apply|delete|label) ", line):
                changed = True
            elif re.match(r"kubectl (wait|rollout status) |sleep ", line):
                changed = False
            assert not (changed and re.search(r"\bcurl -|^try ", line)), block


@pytest.mark.parametrize("page", TYPED, ids=name_of)
def test_every_file_a_command_names_is_there(page: Path) -> None:
    for line in words(page):
        for word in line:
            chart = line[0] == "helm" and "." not in word
            if re.fullmatch(r"(istio|k8s|docs|services)/[\w./-]+", word) and not chart:
                assert (ROOT / word).exists(), word


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)\s]+)\)", page.read_text())
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{link}: there is {sorted(slugs)}"


VERBS = {
    "apply",
    "create",
    "delete",
    "describe",
    "exec",
    "get",
    "label",
    "logs",
    "port-forward",
    "rollout",
    "scale",
    "wait",
}


def test_kubectl_is_used_with_verbs_that_the_lab_knows() -> None:
    text = "\n".join(block for page in TYPED for block in blocks(page))
    verbs = set(re.findall(r"\bkubectl (?:-n \S+ )?([a-z-]+)", text))
    assert verbs
    assert verbs - VERBS == set()
