"""The recruiters' three files: their schema and what their outcomes mean.

Only the fields named here are ever decoded; every other field of a record, personal ones above
all, is skipped by the parser and never becomes a Python object. The one exception is the
candidate's own name, which ingest needs in order to take it out of the CV.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from steps.failure import StepError

HIRED, NOT_HIRED, UNDECIDED = "hired", "not hired", "undecided"

OUTCOMES: dict[str, str] = {
    "Contratado pela Decision": HIRED,
    "Contratado como Hunting": HIRED,
    "Aprovado": HIRED,
    "Documentação PJ": HIRED,
    "Documentação CLT": HIRED,
    "Documentação Cooperado": HIRED,
    "Encaminhar Proposta": HIRED,
    "Proposta Aceita": HIRED,
    "Não Aprovado pelo Cliente": NOT_HIRED,
    "Não Aprovado pelo RH": NOT_HIRED,
    "Não Aprovado pelo Requisitante": NOT_HIRED,
    "Recusado": NOT_HIRED,
    "Desistiu": NOT_HIRED,
    "Desistiu da Contratação": NOT_HIRED,
    "Sem interesse nesta vaga": NOT_HIRED,
    "Prospect": UNDECIDED,
    "Inscrito": UNDECIDED,
    "Encaminhado ao Requisitante": UNDECIDED,
    "Em avaliação pelo RH": UNDECIDED,
    "Entrevista Técnica": UNDECIDED,
    "Entrevista com Cliente": UNDECIDED,
}
"""What each `situacao_candidado` says of the candidate's fate. Undecided counts as not hired."""

Text = str | None


class VacancyBasics(msgspec.Struct, gc=False):  # none holds itself: there is nothing to collect
    data_requicisao: Text
    titulo_vaga: Text


class VacancyProfile(msgspec.Struct, gc=False):
    principais_atividades: Text
    competencia_tecnicas_e_comportamentais: Text


class Vacancy(msgspec.Struct, gc=False):
    """One value of `vagas.json`."""

    informacoes_basicas: VacancyBasics
    perfil_vaga: VacancyProfile


class CandidateBasics(msgspec.Struct, gc=False):
    nome: Text = None


class Candidate(msgspec.Struct, gc=False):
    """One value of `applicants.json`."""

    cv_pt: Text
    infos_basicas: CandidateBasics | None = None


class Prospect(msgspec.Struct, gc=False):
    codigo: str | int
    situacao_candidado: Text
    data_candidatura: Text = None


class ProspectList(msgspec.Struct, gc=False):
    """One value of `prospects.json`: who was put forward for the vacancy that is its key."""

    prospects: list[Prospect]


FILES: dict[str, type] = {
    "vagas.json": Vacancy,
    "applicants.json": Candidate,
    "prospects.json": ProspectList,
}

R = TypeVar("R", Vacancy, Candidate, ProspectList)


BATCH_RECORDS = 250
"""Few enough for both cores to have some where there are a thousand."""


def read(path: Path, record: type[R]) -> dict[str, R]:
    """Decode one of the three files into its records by code. Raises StepError as `batches`."""
    return {code: value for batch in batches(path, record) for code, value in batch.items()}


def batches(path: Path, record: type[R], size: int = BATCH_RECORDS) -> Iterator[dict[str, R]]:
    """The records of one of the three files by code, `size` at a time, so that a large file is
    never in memory as objects.

    Raises StepError naming the file and, where there is one, the line and column or the record; or
    saying that the file was changed meanwhile.
    """
    if not path.is_file():
        raise StepError(
            f"{path}: file not found; data_dir must hold {', '.join(FILES)}"
        )
    try:
        with path.open("rb") as file:
            opened = os.fstat(file.fileno())
            if opened.st_size == 0:
                raise StepError(f"{path}: the file is empty; export it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                try:
                    yield from _decoded(path, content, record, size)
                except StepError:
                    if os.fstat(file.fileno()).st_mtime_ns == opened.st_mtime_ns:
                        raise
                    raise StepError(f"{path}: changed while it was read; run again") from None
    except OSError as error:
        raise StepError(
            f"{path}: cannot be read: {error.strerror}; check its permissions"
        ) from None


def _decoded(
    path: Path, content: mmap.mmap, record: type[R], size: int
) -> Iterator[dict[str, R]]:
    start = 3 if content[:3] == b"\xef\xbb\xbf" else 0  # a byte order mark some tools write
    with memoryview(content)[start:] as view:
        raw: dict[str, msgspec.Raw] = {}
        try:
            raw = msgspec.json.decode(view, type=dict[str, msgspec.Raw])
            decoder = msgspec.json.Decoder(record)
            codes = list(raw)
            for begin in range(0, len(codes), size):
                yield {code: decoder.decode(raw.pop(code)) for code in codes[begin:begin + size]}
                content.madvise(mmap.MADV_DONTNEED)  # what has been read need not stay in memory
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raw.clear()  # or the file could not be closed
            raise _why(path, view, record) from None
        finally:
            raw.clear()


def _why(path: Path, view: memoryview, record: type) -> StepError:
    """Why the file as a whole cannot be decoded, and where."""
    try:
        msgspec.json.decode(view, type=dict[str, record])  # type: ignore[valid-type]
    except msgspec.ValidationError as error:  # the file may be broken too, further down
        try:
            return StepError(_wrong_record(path, view, record, error))
        except msgspec.DecodeError as broken:
            return _broken(path, view, broken)
    except msgspec.DecodeError as error:
        return _broken(path, view, error)
    except UnicodeDecodeError:
        return StepError(f"{path}: not valid UTF-8 at {_encoding_position(view)}; "
                         "save the file as UTF-8")
    except RecursionError:
        return StepError(f"{path}: nested too deeply to be a records file")
    return StepError(f"{path}: cannot be decoded; export the file again")


def _broken(path: Path, view: memoryview, error: msgspec.DecodeError) -> StepError:
    return StepError(f"{path}: broken JSON at {_json_position(view, error)}; "
                     "mend or export the file again")


def _json_position(view: memoryview, error: msgspec.DecodeError) -> str:
    message = str(error)
    head, _, tail = message.rpartition(" (byte ")
    offset = int(tail.rstrip(")")) if head else len(view)
    reason = (head or message).removeprefix("JSON is malformed: ")
    return f"{_position(view, offset)} ({reason[0].lower() + reason[1:]})"


def _encoding_position(view: memoryview) -> str:
    try:
        str(view, "utf-8")
    except UnicodeDecodeError as error:  # msgspec's own counts from the start of one string
        return _position(view, error.start)
    return "an unknown position"


def _position(view: memoryview, offset: int) -> str:
    before = bytes(view[:offset])
    line = before.count(b"\n") + 1
    column = offset - before.rfind(b"\n")
    return f"line {line}, column {column}"


def _wrong_record(path: Path, view: memoryview, record: type, error: Exception) -> str:
    """The message for a value of another type or a missing field, naming the first such record."""
    try:
        raw = msgspec.json.decode(view, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return (f"{path}: must be one JSON object keyed by code ({error}); "
                "check that it is the right file")
    for code, value in raw.items():
        try:
            msgspec.json.decode(value, type=record)
        except msgspec.ValidationError as wrong:
            return f"{path}: record {code[:60]!r}: {wrong}; correct the record and run again"
    return f"{path}: {error}"
