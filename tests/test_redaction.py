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
    "+5511912345678", "+55 (11) 91234-5678", "55 11 91234-5678", "(011) 91234-5678",
    "(0xx11) 3456-7890", "0xx11 91234-5678", "0XX 11 3456-7890", "91234-5678", "91234 5678",
    "3456-7890", "2045-7788", "(11) 2010-2014", "(11) 9 1234-5678", "+351 912 345 678",
    "+1 (415) 555-2671", "12345678909", "123 456 789-09", "01310100", "01.310-100",
    "CEP 01310 100", "CPF: 123456789", "RG nº 1234567", "12.345.678/0001-90",
    "Data de Nasc.: 03/04/1985", "nascido em 3 de abril de 1985",
    "nascida em 7 Dezembro 1981", "nascido em 3 de otubro de 1985",
    "Nascimento: 12 de enero de 1980", "DN: 12 VIII 1980",
    "Nascida em: 1º de maio de 1990", "DN: 03/04/1985", "D.N. 03.04.85",
    "Nascimento:\n03 / 04 / 1985", "nascido em 1985",
    "sexo masculino", "Sexo - fem.", "sexo: M", "Nacionalidade: brasileira",
    "brasileiro, casado, 32 anos", "Brasileira, solteira", "brasileiro(a), casado(a)",
    "brasileiro | 32 anos |", "32 anos, brasileira", "casada, 41 anos\n", "viúvo", "viúva",
    "Divorciada", "desquitado", "solteiro (a)", "casado/a", "união estável", "brasileiro casado",
    "married", "34 years old", "Marital status: single", "32 anos ▪ brasileiro",
    "3 de maio de 1985, 32 anos.", "bairro: Vila Mariana", "nenhum filho",
    "brasileiro - solteiro - 27 anos", "32 anos de idade", "idade: 32", "Idade 32 anos",
    "2 filhos", "um filho", "sem filhos", "filhos: 2", "Rua das Flores, 12",
    "Av. Paulista, nº 1000 - apto 12", "rua 15 de novembro, 100", "avenida brasil 1500\n",
    "R. São João, 7", "github.com/x", "gitlab.com/ana", "ana.github.io/cv", "skype: x",
    "Skype id: ana.lima", "linkedin: ana-lima", "instagram: @ana", "lattes.cnpq.br/123",
])  # fmt: skip
def test_personal_detail_is_blanked(detail: str) -> None:
    left = redacted(f"java {detail}\nspring boot")
    assert left.split() == ["java", "spring", "boot"]


@pytest.mark.parametrize("text", [
    "java 8 e 11, sql server 2019", "de 01/2018 a 03/2020", "ISO 9001, ITIL v3, PMBOK 6",
    "reduzi custos em 1.250.000 reais", "c++ / c# / .net core 3.1", "s/4hana 1909",
    "gestão de 120 pessoas em 3 países", "turno das 08:00 às 17:00",
    "SAP S/4HANA 1909", "10 anos de experiência", "8 anos de experiência", "5 anos com Java",
    "há 12 anos, sempre com SAP", "15 anos, dos quais 10 como gerente", "ISO 27001",
    "ISO 9001:2015", "ISO 9001-2015", "NBR 15575-2013", "2010-2014", "2010 - 2014", "2015 a 2018",
    "2010 – 2014", "12 2010-2014", "01/2018-03/2020", "desde 2012", "R$ 1.500,00",
    "R$ 1.250.000,00", "C++17", "C++11 2015-2019", "Windows 2012 R2", "NR-10", "14 filiais",
    "SQL Server 2008/2012", "Windows Server 2003-2008", "Office 365, Oracle 11g, .NET 4.5",
    "IPv4 10.0.0.1", "mercado brasileiro, argentino e chileno", "legislação brasileira",
    "cliente brasileiro - 10 anos de contrato", "git, github e gitlab", "github/gitlab, asp.net/c#",
    "github.com, jira", "skype for business", "facebook e instagram ads",
    "@Transactional, @Override", "10 years of experience", "entre 3 de maio de 2010 e 2014",
    "cidade 12", "identidade visual", "qualidade: 10", "trabalho na rua em 2010", "rua e campo",
    "renascimento em 2010", "tubos dn 2000", "separado por módulos", "reduzi 30% em 24 meses",
    "CNH B", "dn de rede", "turno 1800-2200",
    "SAP FI/CO 6.0", "PIS/COFINS 2015-2016", "gênero textual", "educação sexual", "filiado em 2010",
])  # fmt: skip
def test_professional_text_is_left_alone(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(("text", "left"), [
    ("casado, 10 anos de experiência em java", ", 10 anos de experiência em java"),
    ("brasileira, 10 anos de experiência", "10 anos de experiência"),
    ("atuo há 10 anos. Casada. SAP", "atuo há 10 anos. . SAP"),
    ("Rua das Flores, 12 - desenvolvedor java", "- desenvolvedor java"),
    (" , 32 anos\nanalista", "analista"), ("32 anos | analista", "analista"),
    ("10 anos de java", "10 anos de java"), ("skype: ana.lima java", "java"),
    ("fone 3456-7890 / java", "fone / java"),
])  # fmt: skip
def test_only_the_detail_is_blanked(text: str, left: str) -> None:
    assert " ".join(redacted(text).split()) == left


def test_address_in_a_text_of_one_line_does_not_take_the_rest_with_it() -> None:
    rest = "analista sap fi e co " * 20
    left = redacted(f"bairro: vila mariana {rest} endereço: alameda santos {rest}")
    assert left.count("analista sap") > 30


@pytest.mark.parametrize("written", [
    "João da Silva", "JOÃO DA SILVA", "joão da silva", "Joao da Silva", "JOAO DA SILVA",
    "João\nda Silva", "João da Silva", "João  da   Silva", "JOAO DA\n\nSILVA", "Joao da\t\tSilva",
])  # fmt: skip
def test_name_is_blanked_however_it_is_written(written: str) -> None:
    left = without_name(f"curriculo de {written}, analista. {written}", "João  da Silva ")
    assert "silva" not in left.lower()
    assert left.split() == ["curriculo", "de", ",", "analista."]


def test_accented_cv_is_searched_for_a_name_without_accents() -> None:
    assert without_name("João da Silva, analista", "JOAO DA SILVA").strip() == ", analista"
    decomposed = unicodedata.normalize("NFD", "João da Silva")
    assert without_name("João da Silva, analista", decomposed).strip() == ", analista"


@pytest.mark.parametrize("name", [None, "", "  ", "Ana", "Analista", "a b"])
def test_name_too_short_to_be_told_from_a_word_is_not_searched(name: str | None) -> None:
    assert without_name("ana, a b c, analista", name) == "ana, a b c, analista"


@pytest.mark.parametrize("text", ["João da", "João da Sil", "João  Silva", "João da  Costa Silva"])
def test_part_of_a_name_is_left(text: str) -> None:
    assert without_name(f"{text} João", "João da Silva") == f"{text} João"


@given(st.text(), st.text())
def test_text_that_does_not_hold_the_name_keeps_its_words(text: str, name: str) -> None:
    left = without_name(text, f"Xyzw{name} Qwvk")
    if "xyzw" not in text.lower():
        assert left in (text, unicodedata.normalize("NFC", text))


@given(st.text(alphabet="João dsilvÃ\n•é ", max_size=60))
def test_no_text_is_lost_around_a_name(text: str) -> None:
    left = without_name(f"{text}|João Silva|{text}", "João Silva")
    assert left.count("|") == 2
