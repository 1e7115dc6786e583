"""MkDocs hook: files of the repository that a page links to (`../benchmarks/results/x.json`) become part of the site.

They are shown as plain text, in `repository/`; a link to a folder of the repository becomes its bare name. So the pages may
link alike on a code host and in the site, and the site needs nothing from elsewhere.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<path>\.\./[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the pages link to outside the folder of documents."""
    for page in list(files.documentation_pages()):
        for path in _outside(page.content_string, page.src_uri):
            source = _source(path, page.src_uri, config)
            if source.is_file() and files.get_file_from_path(_place(path)) is None:
                files.append(File.generated(config, _place(path), abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links lead to the added files."""

    def changed(link: re.Match[str]) -> str:
        path = _of_repository(link["path"], page.file.src_uri)
        if path is None:
            return link[0]
        if _source(path, page.file.src_uri, config).is_dir():
            return link["text"]
        here = posixpath.dirname(page.file.src_uri)
        return f"[{link['text']}]({posixpath.relpath(_place(path), here or '.')})"

    return LINK.sub(changed, markdown)


def _outside(markdown: str, page: str) -> Iterator[str]:
    for link in LINK.finditer(markdown):
        path = _of_repository(link["path"], page)
        if path is not None:
            yield path


def _of_repository(link: str, page: str) -> str | None:
    """The path in the repository of a link that leaves the folder of documents; none of one that stays in it."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return None if path == "docs" or path.startswith("docs/") else path


def _source(path: str, page: str, config: MkDocsConfig) -> Path:
    source = Path(config.docs_dir).parent / path
    if path.startswith("..") or not source.exists():
        raise PluginError(f"{page} links to {path}, which the repository does not have")
    return source


def _place(path: str) -> str:
    """Where the file lies in the site: with .txt behind, browsers show any of them instead of offering to save it."""
    return f"repository/{path}.txt"
