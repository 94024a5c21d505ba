"""Make sample records in the recruiters' three-file format, at any size.

Writes  out/vagas.json, out/applicants.json, out/prospects.json   (one record a line, UTF-8)

The committed sample comes from
    python -m steps.generate --vacancies 300 --candidates 360 --prospects 1100 --seed 42 \
        --out data/sample
Same arguments, same bytes. Every text is composed from `lexicon.json`; people, companies and
clients are invented. Shares of the oddities (empty CVs, shared CVs, impossible dates, missing
joins ...) are in the constants below and are met exactly, rounded, whatever the seed.

The planted signal, which a model can find again:

Put forward: 87 % of a vacancy's prospects are of its profession, the rest of a neighbouring one.
Of `CONTEST` candidates of that profession drawn at random, the one whose skills cover most of
those the vacancy asks for is put forward. Every skill asked for, and every skill held, is in the
text.

Hired: of all prospects, the `HIRED_SHARE` with the highest `hire_logit` plus standard logistic
noise, which is a logistic regression with its intercept set to that share:

    logit = client + level + profession           as weighed in lexicon.json; in title and text
          + 1.0 (the vacancy says the contract is urgent)
          - 1.0 (the vacancy demands fluent English)
          + 1.6 (the CV names a certification and comes back to it in its jobs)
          + 1.4 (the CV tells of leading a team)
          + 0.7 (the CV's level, in its title and jobs, is at least the vacancy's)
          + 4.0 (share of the skills asked for that the CV holds)
"""

import argparse
import json
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
from tqdm import tqdm

LEXICON: dict[str, Any] = json.loads(
    Path(__file__).with_name("lexicon.json").read_text(encoding="utf-8")
)
PROFESSIONS: dict[str, Any] = LEXICON["professions"]
LEVELS = list(LEXICON["levels"])

HIRED_SHARE = 0.058
SAME_PROFESSION = 0.87
CONTEST = 3
ABSENT_CANDIDATES, ABSENT_VACANCIES = 0.07, 0.012  # put forward, but missing from their file
EMPTY_CV, SHARED_CV, ENGLISH_CV = 0.035, 0.035, 0.07
SAME_TEXT_TWICE, EMPTY_JOB_TEXT = 1 / 3, 0.001
REPLACEMENT_CHARACTER, MOJIBAKE = 0.01, 0.01
NO_REQUEST_DATE, NO_DEADLINE, NO_PROSPECT_DATE = 0.003, 0.56, 0.002
REPEATED_PROSPECT = 0.003
CV_MEDIAN, CV_SPREAD, CV_LONGEST = 3300, 0.73, 60_000  # log-normal, characters
JOB_MEDIAN, JOB_SPREAD, JOB_LONGEST = 500, 0.877, 12_000
FIRST_DAY, DAYS = date(2019, 11, 18), 720
FIRST_CANDIDATE, FIRST_VACANCY = 31_000, 1_000

UNACCENTED = str.maketrans("áàâãéêíóôõúçÁÀÂÃÉÊÍÓÔÕÚÇ", "aaaaeeiooouc" + "AAAAEEIOOOUC")
BROKEN = str.maketrans(dict.fromkeys("áàâãéêíóôõúç", "\ufffd"))


class Draws:
    """Random choices from one numpy Generator, drawn in blocks because single draws are slow."""

    BLOCK = 1 << 16

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._units: Iterator[float] = iter(())
        self._ranks: Iterator[int] = iter(())
        self._words: dict[int, str] = {}

    def unit(self) -> float:
        for value in self._units:
            return value
        self._units = iter(self._rng.random(self.BLOCK).tolist())
        return next(self._units)

    def below(self, end: int) -> int:
        return int(self.unit() * end)

    def chance(self, share: float) -> bool:
        return self.unit() < share

    def pick(self, values: Sequence[Any]) -> Any:
        return values[int(self.unit() * len(values))]

    def some(self, values: Sequence[Any], count: int) -> list[Any]:
        """`count` different values, in random order."""
        left = list(values)
        return [left.pop(int(self.unit() * len(left))) for _ in range(min(count, len(left)))]

    def word(self) -> str:
        """A word of a Zipf distribution whose tail goes on, so that vocabulary grows with size."""
        for rank in self._ranks:
            if rank not in self._words:
                self._words[rank] = filler_word(rank)
            return self._words[rank]
        # 40 words share each rank, or one word would be a fifth of all; the modulo bounds memory,
        # as numpy's zipf may return its largest integer for the far tail
        ranks = (self._rng.zipf(1.25, self.BLOCK) - 1) % 10_000 * 40
        self._ranks = iter((ranks + self._rng.integers(0, 40, self.BLOCK)).tolist())
        return self.word()

    def fill(self, template: str, skills: Sequence[str], title: str = "") -> str:
        """The template with its slots: s a skill, t the title, n a number, w any word."""
        text = template
        while "{s}" in text:
            skill = self.pick(skills)
            if skill in text:  # a sentence should not name one skill twice
                skill = self.pick(skills)
            text = text.replace("{s}", skill, 1)
        while "{w}" in text:
            text = text.replace("{w}", self.word(), 1)
        if "{n}" in text:
            text = text.replace("{n}", str(2 + self.below(38)))
        return text.replace("{t}", title)


def filler_word(rank: int) -> str:
    """The word of a rank: derived from a Portuguese stem for the frequent, invented otherwise."""
    stems, prefixes, suffixes = LEXICON["stems"], LEXICON["prefixes"], LEXICON["suffixes"]
    if rank < len(stems) * len(prefixes) * len(suffixes):
        rest, stem = divmod(rank, len(stems))
        prefix, suffix = divmod(rest, len(suffixes))
        return f"{prefixes[prefix]}{stems[stem]}{suffixes[suffix]}"
    syllables, endings = LEXICON["syllables"], LEXICON["endings"]
    rest, ending = divmod(rank, len(endings))
    text = ""
    while rest:
        rest, syllable = divmod(rest, len(syllables))
        text += syllables[syllable]
    return text + endings[ending]


@dataclass(slots=True)
class Vacancy:
    code: str
    profession: str
    level: int
    client: str
    required: tuple[str, ...]
    urgent: bool
    fluent: bool
    requested: date
    length: int


@dataclass(slots=True)
class Candidate:
    code: str
    name: str
    email: str
    profession: str
    level: int
    skills: tuple[str, ...]
    certified: bool
    leads: bool
    length: int  # of the CV in characters, 0 for none
    english: bool
    shares_with: int  # how many candidates before this one has the same CV, 0 for its own


def hire_logit(vacancy: Vacancy, candidate: Candidate) -> float:
    """The planted log-odds of being hired, without the intercept (see the module's text)."""
    held = len(set(vacancy.required) & set(candidate.skills)) / len(vacancy.required)
    return (
        LEXICON["clients"][vacancy.client]
        + LEXICON["levels"][LEVELS[vacancy.level]]
        + PROFESSIONS[vacancy.profession]["hire"]
        + 1.0 * vacancy.urgent
        - 1.0 * vacancy.fluent
        + 1.6 * candidate.certified
        + 1.4 * candidate.leads
        + 0.7 * (candidate.level >= vacancy.level)
        + 4.0 * held
    )


def chosen(rng: np.random.Generator, count: int, share: float) -> set[int]:
    """Exactly `share` of `range(count)`, rounded; at least one where there is room for oddities."""
    wanted = max(round(count * share), 1 if count >= 50 else 0)
    return set(rng.permutation(count)[:wanted].tolist())


def lognormal(rng: np.random.Generator, count: int, median: float, spread: float) -> list[int]:
    """Lengths at evenly spaced quantiles in random order, so that small samples keep the shape."""
    normal = np.sort(rng.standard_normal(200_001))
    quantiles = normal[((np.arange(count) + 0.5) / count * 200_000).astype(int)]
    lengths = (median * np.exp(spread * quantiles)).astype(int)
    return rng.permutation(lengths).tolist()


def pick_skills(draws: Draws, profession: str, count: int) -> tuple[str, ...]:
    """Skills of one of the profession's two specialities, a quarter of them from anywhere in it."""
    every = PROFESSIONS[profession]["skills"]
    half = every[:10] if draws.chance(0.5) else every[8:]
    inside = draws.some(half, ceil(count * 0.75))
    return tuple(inside + draws.some([s for s in every if s not in inside], count - len(inside)))


def weighted(rng: np.random.Generator, weights: dict[str, float], count: int) -> list[str]:
    names = list(weights)
    share = np.array(list(weights.values()), dtype=float)
    return [names[i] for i in rng.choice(len(names), count, p=share / share.sum()).tolist()]


def plan_vacancies(rng: np.random.Generator, draws: Draws, count: int) -> list[Vacancy]:
    """`count` vacancies in the order in which they were requested."""
    trades = weighted(rng, {k: p["weight"] for k, p in PROFESSIONS.items()}, count)
    clients = weighted(rng, dict.fromkeys(LEXICON["clients"], 1), count)
    days = np.sort(rng.integers(0, DAYS, count)).tolist()
    lengths = lognormal(rng, count, JOB_MEDIAN, JOB_SPREAD)
    return [
        Vacancy(
            code=str(FIRST_VACANCY + i),
            profession=trades[i],
            level=draws.pick((0, 1, 1, 2, 2, 2, 3)),
            client=clients[i],
            required=pick_skills(draws, trades[i], 3 + min(5, lengths[i] // 200)),
            urgent=draws.chance(0.3),
            fluent=draws.chance(0.2),
            requested=FIRST_DAY + timedelta(days=days[i]),
            length=min(lengths[i], JOB_LONGEST),
        )
        for i in range(count)
    ]


def plan_candidates(rng: np.random.Generator, draws: Draws, count: int) -> list[Candidate]:
    trades = weighted(rng, {k: p["weight"] for k, p in PROFESSIONS.items()}, count)
    lengths = lognormal(rng, count, CV_MEDIAN, CV_SPREAD)
    empty, english = chosen(rng, count, EMPTY_CV), chosen(rng, count, ENGLISH_CV)
    shared = {i for i in chosen(rng, count, SHARED_CV) if i > 0}
    planned: list[Candidate] = []
    for i, trade in enumerate(trades):
        first = draws.pick(LEXICON["first_names"])
        last = " ".join(draws.some(LEXICON["last_names"], 2))
        candidate = Candidate(
            code=str(FIRST_CANDIDATE + i),
            name=f"{first} {last}",
            email=f"{first}.{i}@example.com".lower().translate(UNACCENTED),
            profession=trade,
            level=draws.pick((0, 1, 1, 2, 2, 2, 3)),
            skills=pick_skills(draws, trade, max(3, min(14, 4 + lengths[i] // 500))),
            certified=draws.chance(0.35),
            leads=draws.chance(0.35),
            length=0 if i in empty else min(max(lengths[i], 150), CV_LONGEST),
            english=i in english,
            shares_with=0,
        )
        if i in shared and i not in empty:  # one person, registered twice
            back = 1 + draws.below(min(i, 20))
            twin = planned[i - back]
            if twin.length and not twin.shares_with:
                candidate = Candidate(
                    candidate.code, twin.name, twin.email, twin.profession, twin.level, twin.skills,
                    twin.certified, twin.leads, twin.length, twin.english, back,
                )
        planned.append(candidate)
    return planned


def plan_prospects(
    rng: np.random.Generator,
    draws: Draws,
    vacancies: list[Vacancy],
    candidates: list[Candidate],
    count: int,
) -> list[list[int]]:
    """For every vacancy the positions of the candidates put forward; `count` in all."""
    interest = rng.standard_exponential(len(vacancies))  # a fifth of the lists come out empty
    sizes = rng.multinomial(count, interest / interest.sum()).tolist()
    by_trade: dict[str, list[int]] = {trade: [] for trade in PROFESSIONS}
    for position, candidate in enumerate(candidates):
        by_trade[candidate.profession].append(position)
    everyone = range(len(candidates))
    skills = [frozenset(c.skills) for c in candidates]
    lists = []
    for vacancy, size in zip(vacancies, sizes, strict=True):
        near, required = PROFESSIONS[vacancy.profession]["near"], set(vacancy.required)
        found: list[int] = []
        for _ in range(size):
            trade = vacancy.profession if draws.chance(SAME_PROFESSION) else draws.pick(near)
            pool: Sequence[int] = by_trade[trade] or everyone
            if found and draws.chance(REPEATED_PROSPECT):
                found.append(draws.pick(found))
                continue
            for _ in range(20):  # a list longer than its pool has to name someone twice
                best = max((draws.pick(pool) for _ in range(CONTEST)),
                           key=lambda position: len(required & skills[position]))
                if best not in found:
                    break
                pool = everyone if len(pool) <= len(found) else pool
            found.append(best)
        lists.append(found)
    return lists


def plan_outcomes(
    rng: np.random.Generator,
    vacancies: list[Vacancy],
    candidates: list[Candidate],
    lists: list[list[int]],
) -> Iterator[str]:
    """The outcome of every prospect, list after list."""
    logits = np.array(
        [hire_logit(v, candidates[i]) for v, found in zip(vacancies, lists, strict=True)
         for i in found]
    ) + rng.logistic(size=sum(map(len, lists)))
    wanted = max(round(len(logits) * HIRED_SHARE), min(1, len(logits) - 1))
    hired = set(np.argsort(-logits, kind="stable")[:wanted].tolist())
    kinds = {
        "hired": iter(_outcomes(rng, LEXICON["outcomes"]["hired"], wanted)),
        "other": iter(_outcomes(rng, LEXICON["outcomes"]["other"], len(logits) - wanted)),
    }
    for row in range(len(logits)):
        yield next(kinds["hired" if row in hired else "other"])


def _outcomes(rng: np.random.Generator, weights: dict[str, float], count: int) -> list[str]:
    """The listed outcomes in their real shares, each at least once where there is room."""
    once = list(weights) if count >= 2 * len(weights) else []
    drawn = once + weighted(rng, weights, count - len(once))
    return [drawn[i] for i in rng.permutation(count).tolist()]


def job_title(draws: Draws, vacancy: Vacancy) -> str:
    title = draws.pick(PROFESSIONS[vacancy.profession]["titles"])
    return f"{title} {LEVELS[vacancy.level]} - {vacancy.client}"


def job_texts(draws: Draws, vacancy: Vacancy, twice: bool) -> tuple[str, str]:
    """Activities and requirements, about `vacancy.length` characters together."""
    trade = PROFESSIONS[vacancy.profession]
    half = vacancy.length // (4 if twice else 2)
    needs = ["Conhecimento em " + ", ".join(vacancy.required)]
    if draws.chance(0.8):
        needs.append(LEXICON["client_note"].format(
            client=vacancy.client, level=LEVELS[vacancy.level].lower()))
    if vacancy.urgent:
        needs.append(LEXICON["urgent"])
    if vacancy.fluent:
        needs.append(LEXICON["fluent"])
    if draws.chance(0.3):
        needs.append(f"Desejável {draws.pick(trade['certifications'])}")
    tasks: list[str] = []
    _grow(needs, half, lambda: draws.fill(draws.pick(LEXICON["vacancy_boilerplate"]), ()))
    _grow(tasks, half, lambda: draws.fill(draws.pick(
        trade["activities"] if draws.chance(0.75) else LEXICON["vacancy_boilerplate"]),
        vacancy.required))
    bullet = draws.pick(("", "- ", "• "))
    activities, requirements = (
        "\n".join(f"{bullet}{line}." for line in lines) for lines in (tasks, needs)
    )
    if twice:
        both = f"{activities}\n{requirements}"
        return both, both
    return activities, requirements


def _grow(lines: list[str], length: int, line: Callable[[], str]) -> None:
    """Append `line()` until the lines have `length` characters, at least once."""
    have = sum(map(len, lines)) + len(lines)
    while have < length or not lines:
        lines.append(line())
        have += len(lines[-1]) + 1


def cv_text(draws: Draws, candidate: Candidate) -> str:
    """A lower-cased CV of about `candidate.length` characters, in sections."""
    english, trade = candidate.english, PROFESSIONS[candidate.profession]
    suffix = "_en" if english else ""
    headings = LEXICON["headings" + suffix]
    level = LEVELS[candidate.level]
    title = f"{draws.pick(trade['titles' + suffix])} {level}"
    skills = candidate.skills
    blocks: list[tuple[str, list[str]]] = []

    summary = [draws.fill(draws.pick(LEXICON["cv_summary" + suffix]), skills, title)]
    blocks.append(("summary", summary))
    listed = [", ".join(skills)] if draws.chance(0.6) else [f"- {skill}" for skill in skills]
    blocks.append(("skills", listed))
    if candidate.certified:
        blocks.append(("certifications", [draws.pick(trade["certifications"])]))
    if candidate.length > 500:
        blocks.insert(0, ("objective", [title]))
    if candidate.length > 800:
        blocks.append(("education", [
            f"{draws.pick(trade['degrees'])} - {draws.pick(('centro', 'faculdade', 'instituto'))} "
            f"{draws.word()}, {1995 + draws.below(26)}"]))
        blocks.append(("languages", [f"inglês {draws.pick(LEXICON['languages'])}"]))
    head = []
    if candidate.length > 600 and draws.chance(0.6):
        head = [candidate.name, f"{candidate.email} | (00) 90000-{draws.below(10_000):04d}",
                f"endereço: rua exemplo, {draws.below(999)}"]
    have = sum(len(line) + 1 for _, lines in blocks for line in lines) + 18 * len(blocks)
    have += sum(map(len, head)) + len(head)
    jobs = _jobs(draws, candidate, title, candidate.length - have)
    if jobs:
        blocks.insert(min(2, len(blocks)), ("experience", jobs))
    colon = draws.pick((":", "", " -"))
    body = "\n".join(
        f"{draws.pick(headings[kind])}{colon}\n" + "\n".join(lines) + "\n" for kind, lines in blocks
    )
    if draws.chance(0.15):
        body = body.translate(UNACCENTED)
    return "\n".join([*head, body]).lower()


def _jobs(draws: Draws, candidate: Candidate, title: str, length: int) -> list[str]:
    """Jobs, latest first, of about `length` characters; some were in a neighbouring profession."""
    suffix = "_en" if candidate.english else ""
    fillers = LEXICON["cv_filler" + suffix]
    evidence = LEXICON["cv_certified" + suffix] * candidate.certified
    evidence += LEXICON["cv_lead" + suffix] * candidate.leads
    lines: list[str] = []
    year, have, job_ends = 2021, 0, 0
    trade, skills = PROFESSIONS[candidate.profession], candidate.skills
    while have < length:
        if have >= job_ends:
            job_ends = have + 500 + draws.below(900)
            if lines and draws.chance(0.15):
                trade = PROFESSIONS[draws.pick(trade["near"])]
                skills = tuple(draws.some(trade["skills"], 4))
                title = draws.pick(trade["titles" + suffix])
            start = year - 1 - draws.below(4)
            line = (f"{draws.pick(LEXICON['company_kinds'])} {draws.word()} | {title} | "
                    f"{draws.pick(LEXICON['months'])}/{start} a "
                    f"{draws.pick(LEXICON['months'])}/{year}")
            year = max(start, 1980)
        elif evidence and draws.chance(0.12):
            line = draws.fill(draws.pick(evidence), skills)
        elif draws.chance(0.35):
            own = LEXICON["cv_activity_en"] if candidate.english else trade["activities"]
            line = draws.fill(draws.pick(own), skills)
        else:
            line = draws.fill(draws.pick(fillers), skills)
        lines.append(line)
        have += len(line) + 1
    return lines


def vacancy_records(
    rng: np.random.Generator, draws: Draws, vacancies: list[Vacancy], titles: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    count = len(vacancies)
    twice, blank = chosen(rng, count, SAME_TEXT_TWICE), chosen(rng, count, EMPTY_JOB_TEXT)
    broken, garbled = chosen(rng, count, REPLACEMENT_CHARACTER), chosen(rng, count, MOJIBAKE)
    undated, open_ended = chosen(rng, count, NO_REQUEST_DATE), chosen(rng, count, NO_DEADLINE)
    for i, vacancy in enumerate(vacancies):
        tasks, needs = ("", "") if i in blank else job_texts(draws, vacancy, i in twice)
        if i in broken:
            tasks, needs = tasks.translate(BROKEN), needs.translate(BROKEN)
        elif i in garbled:
            tasks, needs = (
                text.encode().decode("cp1252", errors="replace") for text in (tasks, needs)
            )
        yield vacancy.code, _vacancy_record(
            draws, vacancy, titles[i], tasks, needs,
            requested="00-00-0000" if i in undated else _day(vacancy.requested),
            deadline="00-00-0000" if i in open_ended
            else _day(vacancy.requested + timedelta(days=10 + draws.below(50))),
        )


def _vacancy_record(
    draws: Draws, vacancy: Vacancy, title: str, tasks: str, needs: str, requested: str,
    deadline: str,
) -> dict[str, Any]:
    city, state = draws.pick(LEXICON["cities"])
    basics = {
        "data_requicisao": requested,
        "limite_esperado_para_contratacao": deadline,
        "titulo_vaga": title,
        "vaga_sap": "Não",
        "cliente": vacancy.client,
        "solicitante_cliente": _person(draws),
        "empresa_divisao": draws.pick(("Decision São Paulo", "Decision Campinas")),
        "requisitante": _person(draws),
        "analista_responsavel": _person(draws),
        "tipo_contratacao": draws.pick(("CLT Full", "PJ/Autônomo", "Cooperado", "")),
        "prazo_contratacao": draws.pick(("", "", "Determinado", "Indeterminado")),
        "objetivo_vaga": draws.pick(("Contratação", "Contratação", "")),
        "prioridade_vaga": draws.pick(("Alta: Alta complexidade 3 a 5 dias", "")),
        "origem_vaga": draws.pick(("Nova Posição", "")),
    }
    if draws.chance(0.99):
        basics["superior_imediato"] = "Superior Imediato:"
    if draws.chance(0.75):
        basics |= {"nome": _person(draws), "telefone": "(00) 3000-0000"}
    if draws.chance(0.25):
        day = "30-11-0001" if draws.chance(0.08) else _day(vacancy.requested + timedelta(days=20))
        basics |= {"data_inicial": day, "data_final": "00-00-0000"}
    if draws.chance(0.02):
        basics["nome_substituto"] = _person(draws)
    profile = {
        "pais": "Brasil", "estado": state, "cidade": city, "bairro": "", "regiao": "",
        "local_trabalho": draws.pick(("2000", "1000")),
        "vaga_especifica_para_pcd": "Não", "faixa_etaria": "De: Até:", "horario_trabalho": "",
        "nivel profissional": LEVELS[vacancy.level],
        "nivel_academico": draws.pick(LEXICON["academic"]),
        "nivel_ingles": "Fluente" if vacancy.fluent else draws.pick(LEXICON["languages"][:4]),
        "nivel_espanhol": draws.pick(("Nenhum", "Nenhum", "Básico")),
        "outro_idioma": "",
        "areas_atuacao": PROFESSIONS[vacancy.profession]["area"],
        "principais_atividades": tasks,
        "competencia_tecnicas_e_comportamentais": needs,
        "demais_observacoes": draws.pick(("", "", "Local = Remoto", "Modelo híbrido")),
        "viagens_requeridas": draws.pick(("", "", "Não", "Sim")),
    }
    if draws.chance(0.7):
        profile["equipamentos_necessarios"] = draws.pick(("Nenhum -", "Notebook padrão -", ""))
    if draws.chance(0.3):
        profile["habilidades_comportamentais_necessarias"] = draws.pick(
            ("", "Remoto", "Proatividade"))
    money = {
        "valor_venda": draws.pick(("-", "- p/ mês (168h)", "120,00 -")),
        "valor_compra_1": draws.pick(("R$", "fechado", "Aberta", "hora")),
        "valor_compra_2": "",
    }
    return {"informacoes_basicas": basics, "perfil_vaga": profile, "beneficios": money}


def candidate_records(
    draws: Draws, candidates: list[Candidate], absent: set[int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    recent: deque[str] = deque(maxlen=20)
    for i, candidate in enumerate(candidates):
        if candidate.shares_with:
            text = recent[-candidate.shares_with]
        else:
            text = cv_text(draws, candidate) if candidate.length else ""
        recent.append(text)
        if i not in absent:
            yield candidate.code, _candidate_record(draws, candidate, text)


def _candidate_record(draws: Draws, candidate: Candidate, text: str) -> dict[str, Any]:
    trade = PROFESSIONS[candidate.profession]
    day = _day(FIRST_DAY + timedelta(days=draws.below(DAYS)))
    clock = f"{draws.below(24):02d}:{draws.below(60):02d}:{draws.below(60):02d}"
    phone = f"(00) 90000-{draws.below(10_000):04d}"
    filled = draws.chance(0.25)  # most professional fields of the real records are empty
    personal = {
        "data_aceite": draws.pick(("", "Cadastro anterior ao registro de aceite")),
        "nome": candidate.name,
        "cpf": "000.000.000-00" if draws.chance(0.5) else "",
        "fonte_indicacao": draws.pick(("", ":", "Indeed:")),
        "email": candidate.email,
        "email_secundario": "",
        "data_nascimento": draws.pick(("", "0000-00-00", "31-12-1969", "01-01-1990")),
        "telefone_celular": phone if draws.chance(0.5) else "",
        "telefone_recado": "",
        "sexo": draws.pick(("", "", "Masculino", "Feminino")),
        "estado_civil": draws.pick(("", "", "Solteiro", "Casado")),
        "pcd": draws.pick(("", "Não")),
        "endereco": draws.pick(("", "", "rua exemplo, 123")),
        "skype": "", "url_linkedin": "", "facebook": "",
    }
    if draws.chance(0.006):
        personal["download_cv"] = f"{candidate.code}.pdf"
    schooling = {
        "nivel_academico": draws.pick(LEXICON["academic"]) if filled else "",
        "nivel_ingles": draws.pick(LEXICON["languages"][:5]) if filled else "",
        "nivel_espanhol": draws.pick(LEXICON["languages"][:5]) if filled else "",
        "outro_idioma": "-",
    }
    if draws.chance(0.07):
        schooling |= {"instituicao_ensino_superior": "", "cursos": draws.pick(trade["degrees"]),
                      "ano_conclusao": str(1995 + draws.below(27))}
    return {
        "infos_basicas": {
            "telefone_recado": "",
            "telefone": phone,
            "objetivo_profissional": draws.pick(trade["titles"]) if filled else "",
            "data_criacao": f"{day} {clock}",
            "inserido_por": draws.pick(("", "", "pelo próprio candidato")) or _person(draws),
            "email": candidate.email,
            "local": ", ".join(draws.pick(LEXICON["cities"])) if filled else "",
            "sabendo_de_nos_por": draws.pick(("", "", "Indeed", "Site de Empregos")),
            "data_atualizacao": f"{day} {clock}",
            "codigo_profissional": candidate.code,
            "nome": candidate.name,
        },
        "informacoes_pessoais": personal,
        "informacoes_profissionais": {
            "titulo_profissional": draws.pick(trade["titles"]) if filled else "",
            "area_atuacao": trade["area"].rstrip("-") if filled else "",
            "conhecimentos_tecnicos":
                ", ".join(candidate.skills) if filled and draws.chance(0.4) else "",
            "certificacoes": trade["certifications"][0] if filled and candidate.certified else "",
            "outras_certificacoes": "",
            "remuneracao": draws.pick(("", "", "0", "5000", "2000,00")),
            "nivel_profissional": LEVELS[candidate.level] if draws.chance(0.01) else "",
        },
        "formacao_e_idiomas": schooling,
        "cargo_atual": {},
        "cv_pt": text,
        "cv_en": "",
    }


def prospect_records(
    rng: np.random.Generator,
    draws: Draws,
    vacancies: list[Vacancy],
    candidates: list[Candidate],
    titles: list[str],
    lists: list[list[int]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    outcomes = plan_outcomes(rng, vacancies, candidates, lists)
    undated = chosen(rng, sum(map(len, lists)), NO_PROSPECT_DATE)
    row = 0
    for vacancy, title, found in zip(vacancies, titles, lists, strict=True):
        prospects = []
        for position in found:
            applied = vacancy.requested + timedelta(days=draws.below(45))
            updated = applied + timedelta(days=draws.below(40))
            outcome = next(outcomes)
            prospects.append({
                "nome": candidates[position].name,
                "codigo": candidates[position].code,
                "situacao_candidado": outcome,
                "data_candidatura": "0000-00-00" if row in undated else _day(applied),
                "ultima_atualizacao": _day(updated),
                "comentario": draws.pick(("", "", f"Encaminhado em {_day(applied)}")),
                "recrutador": _person(draws),
            })
            row += 1
        yield vacancy.code, {
            "titulo": title,
            "modalidade": draws.pick(("PJ", "CLT", "Cooperado")) if draws.chance(0.06) else "",
            "prospects": prospects,
        }


def _person(draws: Draws) -> str:
    return f"{draws.pick(LEXICON['first_names'])} {draws.pick(LEXICON['last_names'])}"


def _day(day: date) -> str:
    return f"{day:%d-%m-%Y}"


def write_records(
    path: Path, records: Iterator[tuple[str, dict[str, Any]]], total: int, name: str
) -> None:
    """Write the records as one JSON object, one record a line, as they come."""
    began, encode = time.perf_counter(), msgspec.json.encode
    quiet = not sys.stderr.isatty()
    with path.open("wb") as file:
        separator = b"{\n"
        for code, record in tqdm(records, total=total, desc=name, unit=" records", disable=quiet):
            file.write(separator + encode(code) + b":" + encode(record))
            separator = b",\n"
        file.write(b"\n}\n" if separator == b",\n" else b"{}\n")
    if quiet:
        seconds = time.perf_counter() - began
        print(f"{name}: {total:,} records, {path.stat().st_size / 1e6:.1f} MB, {seconds:.1f} s",
              flush=True)


def generate(vacancies: int, candidates: int, prospects: int, seed: int, out: Path) -> None:
    """Write the three files into `out`, which then holds all of them or is as it was.

    `vacancies` and `candidates` count the records written; prospect lists also name some that are
    written nowhere. Raises OSError where `out` cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    draws = Draws(rng)
    all_vacancies = plan_vacancies(rng, draws, _with_absent(vacancies, ABSENT_VACANCIES))
    people = plan_candidates(rng, draws, _with_absent(candidates, ABSENT_CANDIDATES))
    gone_vacancies = set(rng.permutation(len(all_vacancies))[vacancies:].tolist())
    gone_people = set(rng.permutation(len(people))[candidates:].tolist())
    lists = plan_prospects(rng, draws, all_vacancies, people, prospects)
    titles = [job_title(draws, vacancy) for vacancy in all_vacancies]
    kept = [i for i in range(len(all_vacancies)) if i not in gone_vacancies]
    files = {
        "vagas.json": (vacancies, vacancy_records(
            rng, draws, [all_vacancies[i] for i in kept], [titles[i] for i in kept])),
        "applicants.json": (candidates, candidate_records(draws, people, gone_people)),
        "prospects.json": (len(all_vacancies), prospect_records(
            rng, draws, all_vacancies, people, titles, lists)),
    }
    with tempfile.TemporaryDirectory(dir=out, prefix=".generate-") as folder:
        for name, (total, records) in files.items():
            write_records(Path(folder) / name, records, total, name)
        for name in files:
            (Path(folder) / name).replace(out / name)


def _with_absent(count: int, share: float) -> int:
    """How many to plan so that `share` of them are missing once `count` are written."""
    return count + round(count * share / (1 - share))


class OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"generate: {message}\n")


def whole(text: str, least: int) -> int:
    if not text.strip().isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} up, is {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    size = partial(whole, least=1)
    made = OneLineParser(prog="generate", description="Make sample recruitment records.")
    made.add_argument("--vacancies", type=size, default=300, help="records in vagas.json")
    made.add_argument("--candidates", type=size, default=360,
                      help="records in applicants.json")
    made.add_argument("--prospects", type=size, default=1100,
                      help="rows of all lists in prospects.json")
    made.add_argument("--seed", type=partial(whole, least=0), default=42,
                      help="same seed and sizes, same bytes")
    made.add_argument("--out", type=Path, default=Path("data/sample"), help="folder to write into")
    return made


def main() -> None:
    command = parser()
    chosen_arguments = command.parse_args()
    try:
        generate(**vars(chosen_arguments))
    except OSError as error:
        command.error(f"argument --out: {chosen_arguments.out} cannot be written "
                      f"({error.strerror}); choose another folder")


if __name__ == "__main__":
    main()
