"""The documentation builds as a site without the network, and no link of it leads nowhere."""

import html
import importlib
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.tiny import REPO
from tpdiff_jax import method

PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").rglob("*.md"))]
CONFIGS = sorted(path.stem for path in (REPO / "configs").glob("[a-z]*.py"))


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build the site strictly; whoever asks for the network is refused."""
    nowhere = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https", "all")}
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "docs/site/mkdocs.yml"]
        + ["-d", str(out)],
        cwd=root,
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as it is built."""
    out = tmp_path_factory.mktemp("site")
    result = build(REPO, out)
    assert result.returncode == 0, result.stderr
    return out


def text_of(page: Path) -> str:
    """Return what a reader sees."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_every_page_is_on_the_site(site: Path) -> None:
    for page in (REPO / "docs").rglob("*.md"):
        assert (site / page.relative_to(REPO / "docs").with_suffix(".html")).is_file(), page
    home = (site / "index.html").read_text()
    for page in ("contributing.html", "glossary.html", "results/main.html", "wan.html"):
        assert f'href="{page}' in home, page
    assert "What trains on what" in text_of(site / "index.html")
    assert not list(site.rglob("*.yml")) and not list(site.rglob("*.py"))


def test_nothing_of_the_site_lies_on_another_server(site: Path) -> None:
    loaded = re.compile(
        r"<(?:script|img|iframe|source|video)\b[^>]*?\ssrc=\"([^\"]+)\""
        r"|<link\b[^>]*?\shref=\"([^\"]+)\"|@import\s+(?:url\()?[\"']?([^\"')]+)"
        r"|url\([\"']?([^\"')]+)"
    )
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        for groups in loaded.findall(path.read_text()):
            assert not re.match(r"(?:https?:)?//", "".join(groups)), (path.name, groups)
    # The theme's script fetches a library where a page has such a diagram.
    assert not [page for page in site.rglob("*.html") if 'class="mermaid"' in page.read_text()]


def test_every_field_of_every_config_is_on_the_configuration_page(site: Path) -> None:
    rows = re.findall(
        r"<tr>\s*<td><code>(\w+\.\w+)</code></td>\s*<td><code>(.*?)</code></td>\s*<td>(.*?)</td>",
        (site / "configuration.html").read_text(),
        re.S,
    )
    shown = {(field, html.unescape(value)) for field, value, _ in rows}
    for name in CONFIGS:
        config = importlib.import_module(f"configs.{name}").get_config()
        for field, value in ((f"{g}.{f}", config[g][f]) for g in config for f in config[g]):
            assert (field, repr(value)) in shown, (name, field)
    words = {field: re.sub(r"<.*?>", "", text) for field, _, text in reversed(rows)}
    # By hand, from configs/flow.py: behind the value, above it, and both.
    assert words["train.grad_accum_steps"] == "parts of a batch, one after another, to save memory"
    assert words["pyramid.strides"].startswith("Of each stage, coarsest first: over time, or")
    assert words["guard.spike_factor"].startswith("Meant for faults, not for hard batches")
    assert words["guard.spike_factor"].endswith("the median; 0 is never")
    assert words["eval.num_videos"] == ""
    assert words["alignment.mode"] == "nearest | hungarian | candidates | none"


def test_bars_in_the_code_of_tables_are_bars(site: Path) -> None:
    """GitHub wants them escaped; the same page on the site must show what can be copied."""
    source = (REPO / "docs" / "animatediff.md").read_text()
    assert r"(q\|k\|v\|out)/kernel" in source
    assert "(q|k|v|out)/kernel" in text_of(site / "animatediff.html")
    assert not [page for page in site.rglob("*.html") if "\\|" in text_of(page)]


def test_every_public_name_of_the_method_is_on_the_api_page(site: Path) -> None:
    page = (site / "api.html").read_text()
    documented = {
        name.rpartition(".")[2] for name in re.findall(r'id="(tpdiff_jax\.[\w.]+)"', page)
    }
    assert set(method.__all__) <= documented
    assert {"open_sampling_run", "SamplingRun", "sample", "save"} <= documented
    assert {"Predict", "Network", "Dataset", "Measures", "Sink", "write_scalars"} <= documented
    text = " ".join(text_of(site / "api.html").split())
    for words in (
        "one a video, as 3 or, for several digits",
        "<x_i, eps_j>, [g, g]",
        "Algorithm 1",
    ):
        assert words in text, words


@pytest.mark.slow
def test_a_broken_link_an_anchor_and_a_page_without_a_place_fail_the_build(tmp_path: Path) -> None:
    for name in ("docs", "configs"):
        shutil.copytree(REPO / name, tmp_path / name)
    for name in ("README.md", "CONTRIBUTING.md", "tpdiff_jax"):
        (tmp_path / name).symlink_to(REPO / name)
    (tmp_path / "docs" / "nobodys.md").write_text(
        "# New\n\n[a](gone.md) [b](wan.md#gone) [c](../gone.py)\n"
    )
    result = build(tmp_path, tmp_path / "out")
    assert result.returncode == 1
    for words in ("link 'gone.md'", "'wan.md#gone'", "'../gone.py'"):
        assert words in result.stderr, result.stderr
    assert re.search(r"not included in the \"?nav\"?.*nobodys\.md", result.stderr, re.S)


# --- the pages as the repository shows them


def prose(text: str) -> str:
    """Return a page without its blocks of code and its code spans."""
    return re.sub(r"`[^`\n]*`", "`code`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: list[str] = []
    body = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    for heading in re.findall(r"^#+ +(.*?)\s*$", body, re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.append(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return {
        name if not found[:i].count(name) else f"{name}-{found[:i].count(name)}"
        for i, name in enumerate(found)
    }


def links(text: str) -> Iterator[str]:
    """Yield the targets of a page's links and pictures."""
    yield from re.findall(r"\]\(([^)\s]+)\)", prose(text))


def faults_of_links(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere; addresses are only looked at."""
    faults = []
    for target in links(page.read_text()):
        if "://" in target or target.startswith("mailto:"):
            parts = urllib.parse.urlsplit(target)
            is_address = parts.scheme == "https" and re.fullmatch(
                r"[\w-]+(\.[\w-]+)+", parts.netloc
            )
            faults += [] if is_address else [target]
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        if not there.exists() or (
            anchor and (there.suffix != ".md" or anchor not in anchors(there.read_text()))
        ):
            faults.append(target)
    return faults


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_links_and_anchors_of_a_page_lead_somewhere(page: Path) -> None:
    assert faults_of_links(page) == []


def test_what_leads_nowhere_is_seen(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# Two words: and more\n\n## a `b` (c)\n\n## a `b` (c)\n")
    good = "b.md b.md#two-words-and-more b.md#a-b-c b.md#a-b-c-1 #here https://a.org/x#y"
    bad = "c.md b.md#two_words b.md#a-b-c-2 #there http://a.org https://a https:/a.org ../b.md"
    shown = [f"[x]({target})" for target in f"{good} {bad}".split()]
    (tmp_path / "a.md").write_text("# Here\n\n" + "\n".join([*shown, "`[x](code.md)`"]))
    assert faults_of_links(tmp_path / "a.md") == bad.split()


def test_extras_and_requirements_name_what_the_site_needs() -> None:
    docs = (REPO / "requirements-docs.txt").read_text()
    for package in ("mkdocs>=", "mkdocs-material>=", "mkdocstrings-python>="):
        assert re.search(rf"^{package}", docs, re.M)
    assert "-r requirements-docs.txt" in (REPO / "requirements-test.txt").read_text()
    assert '"docs": requirements("requirements-docs.txt")' in (REPO / "setup.py").read_text()


def test_the_readme_renders_as_the_packages_long_description(site: Path) -> None:
    """Markdown with tables and code, as an index of packages shows it; nothing is left raw."""
    import markdown  # type: ignore[import-untyped]

    text = (REPO / "README.md").read_text()
    assert 'readme = "README.md"' in (REPO / "pyproject.toml").read_text()
    shown = markdown.markdown(text, extensions=["tables", "fenced_code"])
    assert shown.count("<table>") == len(re.findall(r"^\|(?:-+\|)+$", text, re.M)) >= 2
    assert shown.count("<pre>") == len(re.findall(r"^```\w", text, re.M))
    left = re.sub(r"<pre>.*?</pre>|<code>.*?</code>", "", shown, flags=re.S)
    assert "```" not in left and "](" not in left and "**" not in left


def test_the_navigation_is_whole() -> None:
    """Pages of docs/ stand in it once; those of results/ come by themselves."""
    text = (REPO / "docs" / "site" / "mkdocs.yml").read_text()
    nav = yaml.safe_load(text[text.index("\nnav:") : text.index("\nmarkdown_extensions:")])["nav"]
    named = re.findall(r"[\w/*]+\.md|results/\*", yaml.safe_dump(nav))
    own = [page.name for page in (REPO / "docs").glob("*.md")]
    assert sorted(named) == sorted([*own, "index.md", "contributing.md", "results/*"])
