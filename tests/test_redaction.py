"""What ingest blanks in texts, and what it leaves."""

import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.redaction import redact, without_name


def redacted(text: str) -> str:
    return pl.DataFrame({"text": [text]}).select(redact(pl.col("text"))).item()


@pytest.mark.parametrize("detail", [
    "ana.lima+vagas@correio.com.br", "https://exemplo.org/ana?x=1", "www.exemplo.org/cv",
    "linkedin.com/in/ana-lima", "123.456.789-09", "123456789-09", "12.345.678-X",
    "01310-100", "(11) 91234-5678", "+55 11 91234 5678", "11912345678", "(21) 3456-7890",
    "nascida em 03/04/1985", "Nascimento: 3-4-85", "Estado civil: solteira", "Sexo: feminino",
    "Endereço: Rua das Flores, 12, apto 3", "residência: Av. Brasil 1",
])  # fmt: skip
def test_personal_detail_is_blanked(detail: str) -> None:
    left = redacted(f"java {detail}\nspring boot")
    assert left.split() == ["java", "spring", "boot"]


@pytest.mark.parametrize("text", [
    "java 8 e 11, sql server 2019", "de 01/2018 a 03/2020", "ISO 9001, ITIL v3, PMBOK 6",
    "reduzi custos em 1.250.000 reais", "c++ / c# / .net core 3.1", "s/4hana 1909",
    "gestão de 120 pessoas em 3 países", "turno das 08:00 às 17:00",
])  # fmt: skip
def test_professional_text_is_left_alone(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("written", [
    "João da Silva", "JOÃO DA SILVA", "joão da silva", "Joao da Silva", "JOAO DA SILVA",
    "João\nda Silva", "João da Silva",
])  # fmt: skip
def test_name_is_blanked_however_it_is_written(written: str) -> None:
    left = without_name(f"curriculo de {written}, analista. {written}", "João  da Silva ")
    assert "silva" not in left.lower()
    assert left.split() == ["curriculo", "de", ",", "analista."]


def test_accented_cv_is_searched_for_a_name_without_accents() -> None:
    assert without_name("João da Silva, analista", "JOAO DA SILVA").strip() == ", analista"


@pytest.mark.parametrize("name", [None, "", "  ", "Ana", "Analista", "a b"])
def test_name_too_short_to_be_told_from_a_word_is_not_searched(name: str | None) -> None:
    assert without_name("ana, a b c, analista", name) == "ana, a b c, analista"


@given(st.text(), st.text())
def test_text_that_does_not_hold_the_name_keeps_its_words(text: str, name: str) -> None:
    left = without_name(text, f"Xyzw{name} Qwvk")
    if "xyzw" not in text.lower():
        assert left in (text, unicodedata.normalize("NFC", text))


@given(st.text(alphabet="João dsilvÃ\n•é ", max_size=60))
def test_no_text_is_lost_around_a_name(text: str) -> None:
    left = without_name(f"{text}|João Silva|{text}", "João Silva")
    assert left.count("|") == 2
