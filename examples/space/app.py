"""A page that scans a CLIP for backdoors, and erases what it finds: for a Space on the Hub, or for one's own machine.

    pip install "hf_invertune[space]"
    python examples/space/app.py

What is downloaded is the published form of the report: no trigger, which would be an attack on the model as it came.
"""

import argparse
import html
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_invertune import (
    AuditReport,
    BackdoorRemover,
    HubError,
    InputError,
    RemovalConfig,
    demo_images,
    demo_victim,
    preset,
)


if TYPE_CHECKING:
    import gradio as gr


DEMOS = {"demo: a backdoored CLIP": "poisoned", "demo: its clean twin": "clean"}
"""What comes along, and needs no network."""
PRESETS = {"patches": "patches alone, in less than half of the time", "default": "all that a scan looks for"}
REMARK = (
    "No trigger found is not proof of absence; the report says what was searched, and at which rate of false alarms."
)


LONGEST = 255
"""Characters of a model's name; what is longer is the name of no file either."""


def audit(
    model: str | None, names: str | None, erase: bool, config: RemovalConfig, folders: bool = False
) -> AuditReport:
    """What a scan, or a removal, of `model` says.

    Args:
        model (`str`, *optional*): Hub id, or one of [`DEMOS`]; with `folders` a folder too.
        names (`str`, *optional*): class names with commas between them; empty: those of ImageNet, or the demo's own.
        erase (`bool`): whether a backdoor is erased too.
        config ([`RemovalConfig`]): settings.
        folders (`bool`, *optional*): whether folders of this machine may be named.

    Raises:
        InputError, HubError: what the user can do something about.
    """
    model = (model or "").strip()
    if not model:
        raise InputError("`model`: got none; name a model on the Hub.")
    if len(model) > LONGEST:
        raise InputError(f"`model`: got {len(model)} characters; name a model on the Hub.")
    if not folders and (model.startswith("~") or os.path.exists(model)):  # `load_model` reads ~ as the home folder
        raise InputError("`model`: got a path; name a model on the Hub.")
    labels = [name.strip() for name in (names or "").split(",") if name.strip()] or None
    images = None
    if model in DEMOS:
        remover, images = BackdoorRemover.from_pretrained(demo_victim(DEMOS[model])), demo_images()
    else:
        remover = BackdoorRemover.from_pretrained(model, token=False)
    if erase:
        return remover.remove(images, labels, config=config).report
    return AuditReport("scanned", remover.scan(images, labels, config=config), config=config)


def shown(report: AuditReport) -> tuple[str, str, str]:
    """The report's own headline, the report as a frame of the page, and a .zip file of it."""
    folder = Path(tempfile.mkdtemp())
    report.published().save(folder / "audit")
    page = (folder / "audit" / "report.html").read_text(encoding="utf-8")
    headline = re.search("<h1>(.*?)</h1>", page, re.DOTALL)
    assert headline is not None
    frame = (
        f'<iframe title="The report" sandbox srcdoc="{html.escape(page)}" '
        'style="width: 100%; height: 80vh; border: 0"></iframe>'
    )
    archive = shutil.make_archive(str(folder / "audit"), "zip", folder / "audit")
    shutil.rmtree(folder / "audit")
    return f"## {headline[1]}\n\n{REMARK}", frame, archive


def make_app(folders: bool = False) -> "gr.Blocks":
    """The page; with `folders` it takes folders of this machine, which is for a page that nobody else can open."""
    import gradio as gr  # here, so that the functions above can be used without it

    def look(
        model: str | None,
        names: str | None,
        search: str,
        erase: bool,
        progress: gr.Progress = gr.Progress(track_tqdm=True),
    ) -> tuple[str, str, str]:
        """What the button does."""
        try:
            return shown(audit(model, names, erase, preset(search), folders))
        except (InputError, HubError) as error:
            raise gr.Error(html.escape(str(error)), duration=None, print_exception=False) from None

    where = "on the Hub or in a folder" if folders else "on the Hub"
    with gr.Blocks(title="Is this CLIP backdoored?", analytics_enabled=False) as app:
        gr.Markdown(
            f"# Is this CLIP backdoored?\n\nName a CLIP {where}, or take one of the small models that come along."
        )
        with gr.Row():
            with gr.Column(scale=1):
                model = gr.Dropdown(list(DEMOS), value=next(iter(DEMOS)), label="Model", allow_custom_value=True)
                names = gr.Textbox(
                    label="Class names", placeholder="cat, dog, horse; empty: ImageNet's, or the demo's own"
                )
                search = gr.Radio([(text, name) for name, text in PRESETS.items()], value="patches", label="Look for")
                erase = gr.Checkbox(label="Erase what is found, which takes longer")
                button = gr.Button("Scan", variant="primary")
                archive = gr.File(label="The report, without triggers")
            with gr.Column(scale=2):
                verdict = gr.Markdown(elem_id="verdict")
                page = gr.HTML()
        # The verdict on one model must not stand beside the name of the next, least of all when that one fails.
        emptied = button.click(
            lambda: ("", "", None), None, [verdict, page, archive], queue=False, api_visibility="private"
        )
        emptied.then(
            look,
            [model, names, search, erase],
            [verdict, page, archive],
            show_progress_on=archive,
            concurrency_limit=1,
            api_name="look",
        )
    return app


def serve(folders: bool = False, **options: Any) -> Any:
    """Open the page at an address of its own; the options are those of Gradio's `launch`, and what comes back is too."""
    import gradio as gr

    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # none is fetched
    return make_app(folders).launch(theme=theme, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, help="by default the first that is free from 7860 on")
    parser.add_argument(
        "--folders", action="store_true", help="take folders too; anyone who opens the page can name one"
    )
    options = parser.parse_args()
    serve(options.folders, server_port=options.port)


if __name__ == "__main__":
    main()
