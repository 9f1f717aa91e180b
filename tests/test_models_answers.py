"""Free text to a label: plain words count, denial and doubt do not."""

import pytest

from models.answers import parse_label

LABELS = ("fake", "real")
WAYS = {"fake": ("0", "AI-generated", "가짜", "조작", "yes"), "real": ("1", "authentic", "진짜", "실제", "no")}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("fake", "fake"),
        ("Fake.", "fake"),
        ("  **REAL** \n", "real"),
        ("0", "fake"),
        ("1", "real"),
        ("(1)", "real"),
        ("1번입니다.", "real"),
        ("Answer: 0", "fake"),
        ("The image is fake.", "fake"),
        ("I think it is probably AI generated", "fake"),
        ("This looks like an AI-generated picture, not a real one.", "fake"),
        ("It is not fake, it is real.", "real"),
        ("It isn't real but fake", "fake"),
        ("It’s not real; it’s AI-generated.", "fake"),
        ("It is real rather than fake.", "real"),
        ("Without a doubt fake.", "fake"),
        ("No, this is not AI-generated.", "real"),
        ("1 (real)", "real"),
        ("Options were 0 for fake and 1 for real. The answer is 1.", "real"),
        ("가짜", "fake"),
        ("이 이미지는 가짜입니다.", "fake"),
        ("이 사진은 진짜로 보입니다", "real"),
        ("가짜가 아니라 진짜입니다.", "real"),
        ("가짜가 아닙니다. 진짜 사진입니다.", "real"),
        ("의심할 여지 없이 가짜입니다", "fake"),
        ("정답은 1입니다", "real"),
        # denied, doubted, asked, several or none: never a guess
        ("", None),
        ("A cat on a sofa.", None),
        ("It is not fake.", None),
        ("This does not look like a real photograph", None),
        ("The fake label does not apply here", None),
        ("I cannot tell whether it is fake", None),
        ("I'm not sure it is real", None),
        ("Fake or real?", None),
        ("Is it fake?", None),
        ("It could be fake or real.", None),
        ("Neither fake nor real", None),
        ("It is fake. It is not fake.", None),
        ("0 for fake, 1 for real", None),
        ("There is no evidence that the face is fake", None),
        ("unreal surreal faked", None),
        ("10", None),
        ("0.5", None),
        ("1% of pixels", None),
        ("2001", None),
        ("가짜가 아닙니다.", None),
        ("진짜라고 할 수 없습니다.", None),
        ("가짜인지 진짜인지 모르겠습니다", None),
        ("진짜처럼 보이지만 가짜입니다", None),
        ("The answer is not 1.", None),
    ],
)
def test_only_what_is_said_plainly_is_a_label(text, label):
    assert parse_label(text, LABELS, WAYS) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("not AI", "not AI"),
        ("This is not AI.", "not AI"),
        ("It is AI", "AI"),
        ("It is not, not AI", "not AI"),
    ],
)
def test_a_label_may_hold_a_denial_itself(text, label):
    assert parse_label(text, ("AI", "not AI"), {}) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("3", "마약 원본"),
        ("이 이미지는 마약 거래 장소입니다.", "마약 거래 장소"),
        ("관련 없음", "관련 없음"),
        ("관련 없음 또는 마약 원본", None),
        ("0: 관련 없음, 1: 마약 대화, 2: 마약 거래 장소, 3: 마약 원본", None),
        ("마약 원본이 아니고 마약 대화입니다", "마약 대화"),
    ],
)
def test_the_four_labels_of_a_case(text, label):
    labels = ("관련 없음", "마약 대화", "마약 거래 장소", "마약 원본")
    assert parse_label(text, labels, {name: (str(code),) for code, name in enumerate(labels)}) == label


def test_a_word_that_means_two_labels_means_none():
    assert parse_label("unclear", ("a", "b"), {"a": ("unclear",), "b": ("unclear",)}) is None
