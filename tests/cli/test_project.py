"""Options that stand in a file of the project."""

import inspect

import pytest
from typer.testing import CliRunner

from hf_invertune.cli import main as cli
from hf_invertune.cli import scan as verb
from hf_invertune.cli.options import Given, with_options_of
from hf_invertune.cli.project import NOT_IN_FILES, PATHS, SOURCES, ProjectFile


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The root of a repository, within one that has a file too; the command runs in a folder of it."""
    (tmp_path / "hf-invertune.toml").write_text("unknown = 1")
    root = tmp_path / "repo"
    (root / ".git").mkdir(parents=True)
    (root / "sub" / "below").mkdir(parents=True)
    monkeypatch.chdir(root / "sub" / "below")
    return root


@pytest.fixture
def scan(monkeypatch):
    """Run `scan`, and say how it ended and what it was to work with."""
    seen = {}

    def scanned(self):
        seen.update(source=self.given, config=self.scanner.config, output_dir=self.output_dir, quiet=self.quiet)
        raise ArithmeticError

    monkeypatch.setattr(verb.Single, "scan", scanned)

    def run(*arguments, expected=1):
        outcome = CliRunner().invoke(cli.app, ["scan", "model", *map(str, arguments)])
        assert outcome.exit_code == expected, outcome.output
        return outcome, seen

    return run


def test_without_a_file_nothing_is_said(place, scan):
    outcome, seen = scan()
    assert outcome.stderr == "" and seen["source"].split == "train"


@pytest.mark.parametrize("name", ["hf-invertune.toml", "pyproject.toml"])
def test_the_file_gives_options_and_settings_and_the_command_line_overrules_it(place, scan, name):
    head, table = (
        ("", "settings.tuning")
        if name.startswith("hf")
        else ("[tool.hf-invertune]\n", "tool.hf-invertune.settings.tuning")
    )
    (place / name).write_text(
        f'{head}split = "test"\nlimit = 40\nfolder-classes = false\nfail-on = "never"\nseed = 7\n[{table}]\nlora_r = 2\nlora_alpha = 3\n'
    )
    outcome, seen = scan()
    assert outcome.stderr == f"options from {place / name}\n"
    source, config = seen["source"], seen["config"]
    assert (source.split, source.limit, source.folder_classes, config.seed) == ("test", 40, False, 7)
    assert (config.tuning.lora_r, config.tuning.lora_alpha) == (2, 3)

    _, seen = scan("--split", "val", "--folder-classes", "--set", "tuning.lora_r=4", "--seed", 8)
    source, config = seen["source"], seen["config"]
    assert (source.split, source.limit, source.folder_classes, config.seed) == ("val", 40, True, 8)
    assert (config.tuning.lora_r, config.tuning.lora_alpha) == (4, 3)


def test_a_settings_file_and_a_preset_stand_in_for_the_table(place, scan):
    (place / "hf-invertune.toml").write_text("[settings.tuning]\nlora_r = 2\nlora_alpha = 3\n")
    (place / "own.yaml").write_text("tuning: {lora_r: 5}")
    assert scan("--config", place / "own.yaml")[1]["config"].tuning.lora_r == 5
    tuning = scan("--preset", "paper")[1]["config"].tuning
    assert (tuning.lora_layers, tuning.lora_alpha) == ("critical", 16)


def test_the_nearest_file_alone_counts(place, scan):
    (place / "hf-invertune.toml").write_text("limit = 1\nseed = 1\n")
    (place / "sub" / "pyproject.toml").write_text("[tool.hf-invertune]\nlimit = 2\n")
    (place / "sub" / "below" / "pyproject.toml").write_text("tool = 3\n")  # says nothing of us
    outcome, seen = scan()
    assert (seen["source"].limit, seen["config"].seed) == (2, 0) and "sub/pyproject.toml" in outcome.stderr
    (place / "sub" / "hf-invertune.toml").write_text("limit = 3\n")
    assert scan()[1]["source"].limit == 3


def test_outside_a_repository_the_working_directory_alone_is_looked_in(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    (tmp_path / "hf-invertune.toml").write_text("limit = 1\n")
    monkeypatch.chdir(tmp_path / "below")
    assert ProjectFile.find() == ProjectFile()
    monkeypatch.chdir(tmp_path)
    assert ProjectFile.find().options == {"limit": 1}


def test_paths_are_taken_from_the_folder_of_the_file(place, scan):
    (place / "pictures").mkdir()
    (place / "names.txt").write_text("cat\ndog\n")
    (place / "templates.txt").write_text("a {}\n")
    lines = ['images = "pictures"', 'class-names = "names.txt"', 'templates = "templates.txt"', 'output-dir = "out"']
    (place / "hf-invertune.toml").write_text("\n".join(lines))
    source = scan()[1]["source"]
    assert (source.images, source.names, source.prompts) == (str(place / "pictures"), ("cat", "dog"), ("a {}",))
    assert scan("--quiet")[1]["output_dir"] == place / "out"
    (place / "hf-invertune.toml").write_text('images = "org/pictures"\nclass-names = "a,b"')
    source = scan()[1]["source"]
    assert (source.images, source.names) == ("org/pictures", ("a", "b"))


def test_every_path_among_the_options_is_known():
    """A new option of `scan` with a path is taken from the folder of the file too."""
    parameters = inspect.signature(with_options_of(Given, verb.scan)).parameters.values()
    paths = {one.name.replace("_", "-") for one in parameters if "Path" in str(one.annotation)}
    assert paths - NOT_IN_FILES.keys() == set(PATHS) and not set(SOURCES) & set(PATHS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limt = 3", "limt is no known key; the nearest is 'limit'."),
        ("fail_on = 'never'", "fail_on is no known key; the nearest is 'fail-on'."),
        ("setting = {}", "setting is no known key; the nearest is 'settings'."),
        ("token = 'hf_secret'", "token is no key: a file is no place for a secret; set HF_TOKEN."),
        ("json = true", 'json is no key: write format = "json".'),
        ("config = 'a.yaml'", "config is no key: write what it would set into the table [settings]."),
        ("help = true", "help is no known key"),
        ("limit = 'many'", "limit: "),
        ("limit = 0", "limit: "),
        ("fail-on = 'always'", "fail-on: 'always' is not one of 'backdoored', 'inconclusive', 'never'."),
        ("baseline = 'nowhere.toml'", "baseline: "),
        ("class-names = ['a', 'b']", "class-names is ['a', 'b']; write one value, as on the command line."),
        ("settings = 3", "settings is 3; it must be a table"),
    ],
)
def test_wrong_file(place, scan, text, message):
    (place / "hf-invertune.toml").write_text(text)
    outcome, seen = scan(expected=2)
    assert outcome.stderr.startswith(f"error: {place / 'hf-invertune.toml'}: {message}"), outcome.stderr
    assert outcome.stderr.count("\n") == 1 and not seen and "hf_secret" not in outcome.output


def test_wrong_settings_and_a_file_that_is_no_toml(place, scan):
    (place / "hf-invertune.toml").write_text("[settings.tuning]\nlora = 3\n")
    outcome, _ = scan(expected=2)
    assert outcome.stderr.endswith("error: [settings]: tuning.lora is no known key; the nearest is 'lora_r'.\n")
    for name in ("pyproject.toml", "hf-invertune.toml"):
        (place / "sub" / name).write_text("[x")
        outcome, _ = scan(expected=2)
        assert f"{name} is no TOML" in outcome.stderr
    assert (
        "Usage" in CliRunner().invoke(cli.app, ["scan", "--help"]).stdout
    )  # a broken file does not take the help away


def test_a_value_that_the_command_line_overrules_is_not_looked_at(place, scan):
    (place / "hf-invertune.toml").write_text("limit = 'many'\n")
    assert scan("--limit", 3)[1]["source"].limit == 3


def test_an_error_of_the_command_line_is_not_put_to_the_file(place, scan):
    (place / "hf-invertune.toml").write_text("limit = 3\n")
    outcome, _ = scan("--limit", "many", expected=2)
    assert "hf-invertune.toml" not in outcome.stderr and "--limit" in outcome.stderr
