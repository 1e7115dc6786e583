"""Answers as a JUnit report: one test case a model."""

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from .answer import Answer
from .words import searched, sentence, verdict_line


NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""The characters that XML 1.0 cannot hold."""


def to_junit(answers: Sequence[Answer]) -> str:
    """A suite in which a model fails with a finding that is not accepted, and has an error where it was not scanned."""
    failed = [answer for answer in answers if answer.open_findings]
    errors = [answer for answer in answers if answer.error is not None]
    counts = {"tests": len(answers), "failures": len(failed), "errors": len(errors)}
    about = {name: str(count) for name, count in counts.items()}
    about |= {"time": f"{sum(answer.seconds for answer in answers):.3f}"}
    suites = ElementTree.Element("testsuites", {"name": "hf-invertune", **about})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "hf-invertune scan", **about})
    for answer in answers:
        _add(suite, answer)
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def _add(suite: ElementTree.Element, answer: Answer) -> None:
    about = {"classname": "hf-invertune.scan", "name": _text(answer.model), "time": f"{answer.seconds:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", about)
    line = _text(verdict_line(answer))
    if answer.error is not None:
        ElementTree.SubElement(case, "error", {"type": answer.rule.id, "message": line}).text = answer.rule.remedy
        return
    if answer.open_findings:
        about = {"type": answer.open_findings[0].rule, "message": line}
        said = [f"{one.rule}: {sentence(one)} [{one.fingerprint}]" for one in answer.open_findings]
        ElementTree.SubElement(case, "failure", about).text = _text("\n".join(said))
    accepted = [f"accepted ({one.accepted}): {sentence(one)}" for one in answer.findings if one.accepted is not None]
    out = [f"verdict: {verdict_line(answer)}", *accepted, searched(answer)]
    ElementTree.SubElement(case, "system-out").text = _text("\n".join(out))


def _text(text: str) -> str:
    return NO_XML.sub("\ufffd", text)
