import pytest
from answers import make_answer, make_answers

from hf_invertune.answers.answer import Answer
from hf_invertune.answers.gate import ORDER, exit_code
from hf_invertune.errors import CannotJudgeError, ExitCode, HubError, InputError
from hf_invertune.stages.verdict import Verdict


VERDICTS = {verdict: make_answer(verdict) for verdict in Verdict}
ERRORS = {
    ExitCode.WRONG_INPUT: InputError("x"),
    ExitCode.CANNOT_JUDGE: CannotJudgeError("x"),
    ExitCode.HUB_FAILED: HubError("x"),
    ExitCode.FAILED: RuntimeError("x"),
}


@pytest.mark.parametrize(
    ("fail_on", "codes"),
    [
        ("inconclusive", {"backdoored": 3, "inconclusive": 5, "clean": 0}),
        ("backdoored", {"backdoored": 3, "inconclusive": 0, "clean": 0}),
        ("never", {"backdoored": 0, "inconclusive": 0, "clean": 0}),
    ],
)
def test_what_a_verdict_ends_with(fail_on, codes):
    assert {verdict.value: exit_code([answer], fail_on) for verdict, answer in VERDICTS.items()} == codes


@pytest.mark.parametrize("fail_on", ["inconclusive", "backdoored", "never"])
def test_an_error_keeps_its_code_and_is_never_that_of_a_finding(fail_on):
    for code, error in ERRORS.items():
        assert exit_code([Answer.failed("m", error)], fail_on) == code
        assert code not in (ExitCode.BACKDOORED, ExitCode.INCONCLUSIVE, ExitCode.OK)


def test_the_gravest_of_several():
    assert exit_code(make_answers()) == 3
    assert exit_code(make_answers()[1:]) == 2 and exit_code(make_answers()[4:]) == 8
    for better, worse in zip(ORDER[1:], ORDER, strict=False):
        some = {**ERRORS, **{answer.exit_code: None for answer in VERDICTS.values()}}
        pair = [
            Answer.failed("m", some[code]) if some[code] else next(a for a in VERDICTS.values() if a.exit_code == code)
            for code in (better, worse)
        ]
        assert exit_code(pair) == worse


def test_every_code_that_an_answer_can_have_is_in_the_order():
    assert set(ORDER) == {*ERRORS, *(ExitCode.of(verdict) for verdict in Verdict)}
    assert len({int(code) for code in ExitCode}) == len(ExitCode.__members__)
