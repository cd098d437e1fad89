"""Compose passages and questions from the templates.

A passage states facts of one to three entities, with sentences of no use between them.
A question asks for one fact, or, as in SQuAD 2, for one that the passage doesn't state.

Two things separate the test split from the training split: its name words (names.py)
and its template combinations, the pair of the sentence that holds the answer and the
question that asks for it (for unanswerable questions, the passage's first sentence
stands in for the former). Each template alone occurs in both.
"""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass, field

from . import templates as T
from .names import Names

HELD_OUT_SHARE = 8  # one template combination in eight is kept for the test split
UNANSWERABLE = 0.17
_CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_SLOT = re.compile(r"\{([A-Za-z_']+)(?::(\w+))?\}")
_YEAR = re.compile(r"\d{4}$|\d{4}")


def held_out(statement_id: str, question_id: str) -> bool:
    """Whether a combination of templates belongs to the test split."""
    return zlib.crc32(f"{statement_id}|{question_id}".encode()) % HELD_OUT_SHARE == 0


@dataclass
class Entity:
    """Something that a passage is about; `facts` maps relations to stated values."""

    kind: T.Kind
    name: str
    short: str
    words: dict[str, str]
    facts: dict[str, "Fact"] = field(default_factory=dict)
    named: bool = False
    first_mention: tuple[int, int] | None = None


@dataclass
class Fact:
    """A value with its character span in the passage and the statement that gives it."""

    text: str
    start: int
    statement: str


@dataclass
class Mention:
    """A name or pronoun of an entity in the passage (for the auxiliary training signal)."""

    entity: Entity
    start: int
    end: int


@dataclass
class Example:
    """One question over one passage. `answer_start` is -1 where there is no answer.

    `facts` are (start, end, relation, is about the asked entity) and `mentions` are
    (start, end, is the asked entity): signals for training only.
    """

    id: str
    context: str
    question: str
    answer: str
    answer_start: int
    relation: str
    facts: list[tuple[int, int, str, bool]]
    mentions: list[tuple[int, int, bool]]
    inverse: bool


def article(word: str) -> str:
    """The indefinite article before `word`."""
    return "an" if word[0].lower() in "aeiou" else "a"


class Writer:
    """Writes one passage; keeps the spans of everything said in it."""

    def __init__(self, rng: random.Random, names: Names):
        self.rng, self.names = rng, names
        self.text = ""
        self.mentions: list[Mention] = []
        self.used: set[str] = set()
        self.last: Entity | None = None
        self.first_statement = ""

    def fresh(self, kind_of_value: str) -> str:
        """A value that the passage doesn't hold yet, so that answers are unambiguous."""
        for _ in range(20):
            value = self.names.value(kind_of_value)
            if value.lower() not in self.used:
                break
        self.used.add(value.lower())
        return value

    def entity(self, kind: T.Kind) -> Entity:
        """A new entity of a kind, not yet mentioned."""
        rng, names = self.rng, self.names
        words: dict[str, str] = {}
        if kind.name == "person":
            name = names.person()
            he = rng.choice((("he", "his"), ("she", "her")))
            words = {"he": he[0], "his": he[1], "noun": "person"}
            return Entity(kind, name, name.split()[-1], words)
        words = {"he": "it", "his": "its"}
        if kind.name == "place":
            words["noun"] = rng.choice(T.PLACE_NOUNS)
            name = names.place()
        elif kind.name == "work":
            noun = rng.choice(list(T.WORK_NOUNS))
            maker, made, wrote = T.WORK_NOUNS[noun]
            words |= {"noun": noun, "maker": maker, "made": made, "wrote": wrote}
            name = names.title()
        elif kind.name == "event":
            words["noun"] = rng.choice(T.EVENT_NOUNS)
            name = "the " + names.event(words["noun"])
        elif kind.name == "organisation":
            words["noun"] = rng.choice(T.ORGANISATION_NOUNS)
            name = names.organisation(words["noun"])
        else:
            name = ""
        return Entity(kind, name, name, words)

    def subject(self, entity: Entity, plain: bool) -> str:
        """How a sentence names its subject: in full, shortly, by pronoun or description."""
        rng = self.rng
        if not entity.named or plain:
            return entity.name
        choice = rng.random()
        if self.last is entity and choice < 0.55:
            return entity.words["he"]
        if choice < 0.75:
            return entity.short
        noun = entity.words["noun"]
        alone = self.last is entity
        if alone and choice < 0.90 and noun != "person":
            return f"the {noun}"
        if alone and choice < 0.90 and "occupation" in entity.facts:
            return f"the {entity.facts['occupation'].text}"
        return entity.name

    def sentence(self, statement: T.Statement, entity: Entity) -> None:
        """Append one statement about `entity`, recording its facts and mentions."""
        rng = self.rng
        pattern = _CHOICE.sub(lambda m: rng.choice(m.group(1).split("|")), statement.text)
        if self.text:
            self.text += " "
        begin = len(self.text)
        lead = rng.choice(T.LEADS) if entity.name and rng.random() < 0.1 else ""
        out, position = lead, 0
        values = {r: self.fresh(entity.kind.types[r]) for r in statement.relations}
        if lead and not pattern.startswith("{"):
            pattern = pattern[0].lower() + pattern[1:]
        has_subject = "{S}" in pattern or "{S's}" in pattern
        named_here = False
        for slot in _SLOT.finditer(pattern):
            out += pattern[position:slot.start()]
            position = slot.end()
            name, style = slot.groups()
            if name in ("S", "S's", "N"):
                text = self.subject(entity, plain=name == "N" or named_here)
                if not lead and not out and text.startswith("the "):
                    text = "T" + text[1:]
                if name == "S's":
                    text = entity.words["his"] if text == entity.words["he"] else text + "'s"
                elif text == entity.words.get("he") and not _is_subject_position(pattern, slot):
                    text = entity.short if entity.kind.name == "person" else text
                named_here = True
                start = begin + len(out)
                full = text.lower().startswith(entity.name.lower())
                length = len(entity.name) if full else len(text)
                self.mentions.append(Mention(entity, start, start + length))
                if full and entity.first_mention is None and entity.name:
                    entity.first_mention = (start, start + length)
                out += text
            elif name in values:
                value = values[name]
                if style in ("in", "In"):
                    out += ("in " if value.isdigit() else "on ")
                elif style == "a":
                    out += article(value) + " "
                entity.facts[name] = Fact(value, begin + len(out), statement.id)
                out += value
            elif style == "a":
                out += f"{article(entity.words[name])} {entity.words[name]}"
            else:
                out += entity.words[name]
        out += pattern[position:]
        self.text += out[0].upper() + out[1:]
        self.first_statement = self.first_statement or statement.id
        if has_subject or "{N}" in pattern:
            entity.named = True
            self.last = entity

    def filler(self) -> None:
        """Append a sentence that says nothing about any entity."""
        rng = self.rng
        pattern = _CHOICE.sub(lambda m: rng.choice(m.group(1).split("|")), rng.choice(T.FILLERS))
        text = _SLOT.sub(lambda m: self.fresh(m.group(1)), pattern)
        self.text += (" " if self.text else "") + text[0].upper() + text[1:]
        if "{person}" in pattern:
            self.last = None  # a pronoun would now be ambiguous


def _is_subject_position(pattern: str, slot: re.Match[str]) -> bool:
    """Whether a nominative pronoun reads well at this slot (not after "by", "of" …)."""
    before = pattern[:slot.start()].rstrip().split(" ")[-1]
    return before in ("", "that", "where", "days") or before.endswith(",")


class Generator:
    """An endless, seeded source of examples of one split.

    >>> example = Generator("train", seed=1).example()
    """

    def __init__(self, split: str, seed: int, size: str = "normal"):
        self.split = split
        self.rng = random.Random(f"{split}/{seed}")
        self.names = Names(self.rng, split)
        self.size = size
        self.count = 0

    def _facts(self, writer: Writer, entities: list[Entity], amount: int) -> None:
        """State about `amount` facts of each entity, one after another or mixed."""
        rng = self.rng
        if len(entities) > 1 and rng.random() < 0.15:
            turns = [e for e in entities for _ in range(amount)]
            rng.shuffle(turns)
        else:
            turns = [e for e in entities for _ in range(max(1, amount + rng.choice((-1, 0, 0, 1))))]
        filler_rate = rng.choice((0.0, 0.1, 0.25))
        for entity in turns:
            # Two draws of a statement, preferring the one that states less: short facts are commoner in prose.
            open_ = [s for s in rng.sample(entity.kind.statements, 12)
                     if not any(r in entity.facts for r in s.relations)]
            if open_:
                writer.sentence(open_[0], entity)
            if rng.random() < filler_rate:
                writer.filler()

    def passage(self) -> tuple[Writer, list[Entity]]:
        """Write one passage; returns it and its entities."""
        rng = self.rng
        while True:
            writer = Writer(rng, self.names)
            kinds = list(T.KINDS.values())
            kind = rng.choices(kinds, weights=(5, 3, 4, 3, 4, 1.2))[0]
            if self.size == "short":
                amount, same, other = rng.choice((1, 2, 2)), rng.choice((1, 2, 2)), 0
            elif self.size == "long":
                amount, same, other = rng.choice((3, 4, 5)), rng.choice((2, 3)), rng.choice((2, 3))
            else:
                amount, same, other = rng.choice((2, 2, 3)), rng.choice((1, 1, 2)), rng.choice((0, 0, 1))
            if kind.name == "self":
                amount, same = amount + 2, 1
            entities = [writer.entity(kind) for _ in range(same)]
            entities += [writer.entity(rng.choice(kinds[:-1])) for _ in range(other)]
            if len({e.short.lower() for e in entities}) < len(entities):
                continue
            writer.used |= {e.name.lower() for e in entities}
            if rng.random() < 0.1:
                writer.filler()
            self._facts(writer, entities, amount)
            if any(e.facts for e in entities):
                return writer, entities

    def example(self) -> Example:
        """The next example of this split."""
        while True:
            writer, entities = self.passage()
            example = self._ask(writer, entities, self.rng.random() < UNANSWERABLE)
            if example:
                return example

    def examples(self, questions_per_passage: int) -> list[Example]:
        """One passage with several different questions (fewer where it offers fewer)."""
        writer, entities = self.passage()
        found: dict[str, Example] = {}
        for _ in range(questions_per_passage * 3):
            example = self._ask(writer, entities, self.rng.random() < UNANSWERABLE)
            if example and example.question not in found:
                found[example.question] = example
            if len(found) == questions_per_passage:
                break
        return list(found.values())

    def _ask(self, writer: Writer, entities: list[Entity], unanswerable: bool) -> Example | None:
        rng = self.rng
        entity = rng.choice([e for e in entities if e.facts] or entities)
        if unanswerable:
            return self._ask_in_vain(writer, entities, entity)
        relation = rng.choice(list(entity.facts))
        fact = entity.facts[relation]
        asked = rng.choice(entity.kind.questions[relation])
        # Half of the backward questions are passed over: there are enough of them.
        if asked.inverse and (entity.first_mention is None or rng.random() < 0.5):
            return None
        if held_out(fact.statement, asked.id) != (self.split == "test"):
            return None
        start, answer = fact.start, fact.text
        if asked.inverse:
            start, answer = entity.first_mention[0], entity.name
            if answer.startswith("the "):  # the answer leaves an article out
                start, answer = start + 4, answer[4:]
            answer = writer.text[start:start + len(answer)]
        elif asked.year_only:
            year = _YEAR.search(answer)
            start, answer = start + year.start(), year.group()
        question = self._wording(asked, entity, fact.text, writer)
        return self._example(writer, entities, entity, asked, question, answer, start)

    def _ask_in_vain(self, writer: Writer, entities: list[Entity], entity: Entity) -> Example | None:
        """A question whose answer the passage doesn't hold, though it may hold a tempting one."""
        rng = self.rng
        kind = entity.kind
        peers = [e for e in entities if e.kind is kind and e is not entity]
        stranger = kind.name != "self" and rng.random() < 0.4
        if stranger:
            # A fact that is stated, asked of an entity that the passage doesn't know.
            asked_entity = writer.entity(kind)
            asked_entity.words = {**asked_entity.words}
            relation = rng.choice(list(entity.facts))
        else:
            asked_entity = entity
            tempting = [r for e in peers for r in e.facts if r not in entity.facts]
            missing = [r for r in kind.types if r not in entity.facts]
            if not missing:
                return None
            relation = rng.choice(tempting if tempting and rng.random() < 0.6 else missing)
        asked = rng.choice(kind.questions[relation])
        if held_out(writer.first_statement, asked.id) != (self.split == "test"):
            return None
        if _implied(asked_entity, relation):
            return None
        value = writer.fresh(kind.types[relation])  # for backward questions: a value that is not there
        question = self._wording(asked, asked_entity, value, writer)
        return self._example(writer, entities, asked_entity, asked, question, "", -1)

    def _wording(self, asked: T.Question, entity: Entity, value: str, writer: Writer) -> str:
        rng = self.rng
        pattern = _CHOICE.sub(lambda m: rng.choice(m.group(1).split("|")), asked.text)
        name = entity.name if rng.random() < 0.75 else entity.short

        def fill(slot: re.Match[str]) -> str:
            key, style = slot.groups()
            if key in ("S", "N"):
                return name
            if key == "V":
                prefix = {"in": "in " if value.isdigit() else "on ", "a": article(value) + " "}.get(style, "")
                return prefix + value
            if key in entity.words:
                return entity.words[key]
            stated = entity.facts.get(key)  # a second fact that the question mentions
            return stated.text if stated else writer.fresh(entity.kind.types[key])

        text = _SLOT.sub(fill, pattern)
        text = text[0].upper() + text[1:]
        if rng.random() < 0.08:
            text = text.rstrip("?")
        return text

    def _example(self, writer: Writer, entities: list[Entity], asked_entity: Entity, asked: T.Question,
                 question: str, answer: str, start: int) -> Example:
        self.count += 1
        kind = asked_entity.kind.name
        relation = f"{kind}.{asked.relation}"
        facts = [(f.start, f.start + len(f.text), f"{e.kind.name}.{r}", e is asked_entity)
                 for e in entities for r, f in e.facts.items()]
        mentions = [(m.start, m.end, m.entity is asked_entity) for m in writer.mentions]
        form = asked.form.replace(" ", "-") + ("-inverse" if asked.inverse else "")
        return Example(f"{kind}/{form}/{asked.relation}/{self.count:06d}", writer.text, question, answer, start,
                       relation, facts, mentions, asked.inverse)


def _implied(entity: Entity, relation: str) -> bool:
    """Whether a reader could take a stated fact for the answer to an unstated one."""
    close = [{"birth_place", "residence"}, {"employer", "school"}, {"country", "distance_to"},
             {"publisher", "home"}, {"residence", "origin", "trip"}, {"winner", "leader"}, {"pet", "animal"},
             {"prize", "prize_time"}, {"head", "founder"}, {"topic", "cause"}, {"hero", "inspiration"},
             {"job", "employer"}, {"name", "friend"}, {"river", "distance_to"}, {"field", "school"}]
    return any(relation in group and any(r in entity.facts for r in group) for group in close)
