"""Questions with their answers in a text: SQuAD's JSON, and rows of the same meaning from anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from tfbert.errors import InputError
from tfbert.sources.decoding import load_text
from tfbert.sources.examples import Cleaning, Examples, counted
from tfbert.sources.json_lines import document, read_jsonl


def read_squad(
    path: str | os.PathLike, *, encoding: str = "utf-8", repair: bool = False, labelled: bool = True
) -> Examples:
    """Reads SQuAD 1.1 or 2.0 ({"data": [{"paragraphs": [{"context", "qas": [...]}]}]}), or .jsonl with a question a line.

    A line has `question`, `context` and `answers`, a list of {"text", "start"} (or "answer_start"), or Hugging Face's {"text": [...],
    "answer_start": [...]}. An answer must stand in its context where it says; offsets are code points.

    Args:
        path: the file; .gz is decompressed.
        encoding: any that Python knows (default "utf-8").
        repair: move an answer that stands elsewhere in its context to the nearest such place, and count it in `notes`, instead of
            stopping (default False).
        labelled: whether a question needs answers, or the word that it has none (default True).

    Returns:
        Examples of {"id", "question", "context", "answers": list of {"text", "start"}, empty where there is no answer, and "title"}.

    Raises:
        InputError: what is wrong, with the file and the question's place in it, or its line.

    Example:
        >>> import json, pathlib, tempfile
        >>> place = pathlib.Path(tempfile.mkdtemp()) / "train.json"
        >>> question = {"id": "1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 3}]}
        >>> _ = place.write_text(json.dumps({"data": [{"paragraphs": [{"context": "By Ada.", "qas": [question]}]}]}))
        >>> read_squad(place)[0]["answers"]
        [{'text': 'Ada', 'start': 3}]
    """
    if str(path).lower().removesuffix(".gz").endswith(".jsonl"):
        return questions(read_jsonl(path, encoding=encoding), repair=repair)
    text, notes = load_text(path, encoding)
    cleaning, rows, places = Cleaning(), [], []
    for place, row in _walk(document(path, text), str(path), labelled):
        rows.append(cleaning.row(row, f"{path}:{place}"))
        places.append(place)
    if not rows:
        raise InputError(f"{path}: there is no question in it")
    notes = [*notes, *cleaning.notes(str(path))]
    return questions(Examples(rows, source=str(path), lines=places, notes=notes), repair=repair)


def _walk(document, path: str, labelled: bool) -> Iterator[tuple[str, dict]]:
    """Yields (place in the document, row) of each question of a SQuAD document."""
    for i, article in enumerate(_list(document, "data", path)):
        for j, paragraph in enumerate(_list(article, "paragraphs", f"{path}:data[{i}]")):
            inner = f"data[{i}].paragraphs[{j}]"
            for k, question in enumerate(_list(paragraph, "qas", f"{path}:{inner}")):
                place = f"{inner}.qas[{k}]"
                if not isinstance(question, Mapping):
                    raise InputError(
                        f"{path}:{place} is {question!r}; expected an object with id, question and answers"
                    )
                if labelled and "answers" not in question and not question.get("is_impossible"):
                    raise InputError(f'{path}:{place}: there are no answers; give them, or say "is_impossible": true')
                if question.get("is_impossible") and question.get("answers"):
                    raise InputError(f"{path}:{place} is_impossible, yet it has answers; drop one of the two")
                row = {"context": paragraph.get("context"), "title": article.get("title", ""), **question}
                for name in ("is_impossible", "plausible_answers"):
                    row.pop(name, None)
                yield place, row | {"answers": question.get("answers", [])}


def _list(value, name: str, place: str) -> list:
    found = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(found, list):
        raise InputError(
            f"{place}: expected an object with a list {name!r}, as SQuAD's files have; got {type(found).__name__}"
        )
    return found


def questions(examples: Examples, *, repair: bool = False) -> Examples:
    """Checks rows of questions, and gives them the one form that `read_squad` describes; rows that have it stay as they are.

    Args:
        examples: dicts with question, context and answers.
        repair: move answers that stand elsewhere in their context instead of stopping.

    Raises:
        InputError: an empty question or context, an answer that is not in its context, an id twice; with the place.

    Example:
        >>> questions(Examples([{"question": "Who?", "context": "By Ada.", "answers": [{"text": "Ada", "start": 2}]}]))
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: row 1 of examples: answer 1 is 'Ada' at 2, but there stands ' Ad'; it stands at 3 (or repair the answers)
    """
    seen: dict[str, str] = {}
    repaired = 0
    made = examples.select(range(len(examples)))
    for i, row in enumerate(examples):
        where = examples.where(i)
        for name in ("question", "context"):
            if not isinstance(row.get(name), str) or not row[name].strip():
                have = ", ".join(map(repr, row))
                raise InputError(
                    f"{where}: no field {name!r}; the row has {have}"
                    if name not in row
                    else f"{where}: the {name} is empty"
                )
        key = str(row.get("id", i))
        if key in seen:
            raise InputError(f"{where}: the id {key!r} is that of {seen[key]}; give each question its own")
        seen[key] = where
        answers = []
        for number, (text, start) in enumerate(_answers(row, where), 1):
            place = _place(row["context"], text, start, f"{where}: answer {number}", repair)
            repaired += place != start
            answers.append({"text": text, "start": place})
        made[i] = {**row, "id": key, "answers": answers}
    made.notes = list(examples.notes)
    if repaired:
        made.notes.append(f"{examples.source}: {counted(repaired, 'answer')} moved to where it stands in its context")
    return made


def _answers(row: Mapping, where: str) -> list[tuple[str, int]]:
    answers = row.get("answers")
    if isinstance(answers, Mapping):
        texts, starts = answers.get("text"), answers.get("answer_start", answers.get("start"))
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise InputError(
                f"{where}: answers is {dict(answers)!r}; expected lists of one length, text and answer_start"
            )
        answers = [{"text": text, "start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(answers, list | tuple):
        have = ", ".join(map(repr, row))
        raise InputError(
            f"{where}: no field 'answers'; the row has {have}; a question without answer has an empty list"
        )
    found = []
    for number, answer in enumerate(answers, 1):
        text, start = (
            (answer.get("text"), answer.get("start", answer.get("answer_start")))
            if isinstance(answer, Mapping)
            else (None, None)
        )
        if not isinstance(text, str) or not text or type(start) is not int:
            raise InputError(
                f"{where}: answer {number} is {answer!r}; expected a text that is not empty, and its start, a whole number"
            )
        found.append((text, start))
    return found


def _place(context: str, text: str, start: int, where: str, repair: bool) -> int:
    if start >= 0 and context.startswith(text, start):
        return start
    places = [i for i in range(len(context)) if context.startswith(text, i)]
    if not places:
        raise InputError(f"{where}, {text!r}, does not stand in its context; copy it letter by letter")
    nearest = min(places, key=lambda place: abs(place - start))
    if not repair:
        there = context[max(0, start) : max(0, start) + len(text)]
        raise InputError(
            f"{where} is {text!r} at {start}, but there stands {there!r}; it stands at {nearest} (or repair the answers)"
        )
    return nearest
