"""Questions with answers from every layout of a data set; labelled sets are read by ``training.labelled``."""

from __future__ import annotations

from training.layouts import Source, read_table
from training.questions import QuestionSet, gather_questions


def read_question_set(source: Source) -> QuestionSet:
    """Questions with answers from one file, folder or data set of the hub.

    Args:
        source: what ``training.layouts.read_table`` reads, with the columns ``question`` (or ``query``) and ``answer``
            (or ``label``, or ``answers``).

    Returns:
        The questions in their order; each picture stands once, however many ask about it. A list of answers means its
        first.

    Raises:
        DataError: if there is nothing there, it cannot be read, or a question lacks its picture or answer.
    """
    return gather_questions(read_table(source))
