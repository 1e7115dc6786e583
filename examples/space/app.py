"""A page that scans a CLIP for backdoors, and erases what it finds: for a Space on the Hub, or for one's own machine.

    pip install "hf_invertune[space]"
    python examples/space/app.py

What is downloaded is the published form of the report: no trigger, which would be an attack on the model as it came.
"""

import argparse
import html
import shutil
import tempfile
from pathlib import Path

import gradio as gr

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


DEMOS = {"demo: a backdoored CLIP": "poisoned", "demo: its clean twin": "clean"}
"""What comes along, and needs no network."""
PRESETS = {"patches": "patches alone, in less than half of the time", "default": "all that a scan looks for"}
REMARK = (
    "No trigger found is not proof of absence; the report says what was searched, and at which rate of false alarms."
)


def audit(model: str, names: str, erase: bool, config: RemovalConfig) -> AuditReport:
    """What a scan, or a removal, of `model` says.

    Args:
        model (`str`): Hub id, or one of [`DEMOS`].
        names (`str`): class names with commas between them; empty: those of ImageNet.
        erase (`bool`): whether a backdoor is erased too.
        config ([`RemovalConfig`]): settings.

    Raises:
        InputError, HubError: what the user can do something about.
    """
    if not model.strip():
        raise InputError("`model`: got none; name a model on the Hub.")
    if Path(model).exists():
        raise InputError(
            "`model`: got a path; name a model on the Hub."
        )  # nobody reads this machine's files from there
    labels = [name.strip() for name in names.split(",") if name.strip()] or None
    images = None
    if model in DEMOS:
        remover, images = BackdoorRemover.from_pretrained(demo_victim(DEMOS[model])), demo_images()
    else:
        remover = BackdoorRemover.from_pretrained(model, token=False)
    if erase:
        return remover.remove(images, labels, config=config).report
    return AuditReport("scanned", remover.scan(images, labels, config=config), config=config)


def shown(report: AuditReport) -> tuple[str, str, str]:
    """The verdict in words, the report as a frame of the page, and a .zip file of it."""
    towards = f" towards {report.target_name!r}" if report.target_name else ""
    done = "" if report.outcome == "scanned" else f", {report.outcome}"
    folder = Path(tempfile.mkdtemp())
    report.published().save(folder / "audit")
    page = html.escape((folder / "audit" / "report.html").read_text(encoding="utf-8"), quote=True)
    frame = (
        f'<iframe title="The report" sandbox srcdoc="{page}" style="width: 100%; height: 80vh; border: 0"></iframe>'
    )
    archive = shutil.make_archive(str(folder / "audit"), "zip", folder / "audit")
    return f"## {report.verdict}{towards}{done}\n\n{REMARK}", frame, archive


def look(
    model: str, names: str, search: str, erase: bool, progress: gr.Progress = gr.Progress(track_tqdm=True)
) -> tuple[str, str, str]:
    """What the button does."""
    try:
        return shown(audit(model, names, erase, preset(search)))
    except (InputError, HubError) as error:
        raise gr.Error(str(error), duration=None, print_exception=False) from None


def make_app() -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="Is this CLIP backdoored?", analytics_enabled=False) as app:
        gr.Markdown(
            "# Is this CLIP backdoored?\n\nName a CLIP on the Hub, or take one of the small models that come along."
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
        button.click(look, [model, names, search, erase], [verdict, page, archive], concurrency_limit=1)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, help="by default the first that is free from 7860 on")
    options = parser.parse_args()
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # none is fetched
    make_app().launch(server_port=options.port, theme=theme)


if __name__ == "__main__":
    main()
