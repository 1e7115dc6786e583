import pytest

from hf_invertune.data.prompts import TEMPLATES, check_class_names, prompts
from hf_invertune.errors import InputError


def test_class_names():
    assert check_class_names(["cat", "dog"]) == ("cat", "dog")
    assert check_class_names(name for name in ("cat", "dog")) == ("cat", "dog")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cat", "got one string, 'cat'"),
        ([], r"got 0 name\(s\)"),
        (["cat"], r"got 1 name\(s\)"),
        (["cat", ""], "got '' among them"),
        (["cat", " \t"], r"got ' \\t' among them"),
        (["cat", None], "got None among them"),
        ([3, "cat"], "got 3 among them"),
        (["dog", "cat", "dog", "cat", "cow"], "'cat', 'dog' appear more than once"),
    ],
)
def test_wrong_class_names(names, message):
    with pytest.raises(InputError, match=f"^`class_names`: .*{message}"):
        check_class_names(names)


def test_prompts():
    assert prompts("red ring", ["a {}", "{}: a photo of {}"]) == ["a red ring", "red ring: a photo of red ring"]
    assert prompts("cat") == [template.replace("{}", "cat") for template in TEMPLATES]


def test_braces_in_a_name_or_a_template_stay():
    assert prompts("{0} {", ["a {} {size}"]) == ["a {0} { {size}"]


@pytest.mark.parametrize("templates", [[], ["a {}", "a photo"], ["a {name}"]])
def test_wrong_templates(templates):
    with pytest.raises(InputError, match="^`templates`: got .* each with `{}`"):
        prompts("cat", templates)
