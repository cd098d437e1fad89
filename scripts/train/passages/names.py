"""Composed names and values, split into those for training and those for testing.

A name word is composed from the syllables of one of several invented "tongues". A
checksum of the word decides which split may use it, so a test passage holds no name
word that any training passage can hold, whatever the seeds are.
"""

from __future__ import annotations

import random
import zlib

TEST_SHARE = 6  # one name word in six belongs to the test split

# (onsets, nuclei, codas) per tongue; a word is 1 to 3 syllables of one tongue and an ending.
_TONGUES = (
    ("b d f g l m n r s t v br dr tr gr pl cl".split(), "a e i o u ia".split(),
     ["", "", "", "l", "n", "r", "s"]),
    ("k t sh m n r h y z ts s d".split(), "a i u e o".split(), ["", "", "", "", "n"]),
    ("st k sk h v b r l t f gr n m d".split(), "a e i o aa ei".split(),
     ["", "k", "n", "rn", "ld", "ck", "st", "m"]),
    ("v z m p k d r s l n j zh b".split(), "a o e i y".split(), ["", "", "v", "k", "l", "sk", "n", "r"]),
    ("q z h f r s m b n j k l w th".split(), "a i u ai ou".split(), ["", "", "b", "d", "m", "r", "f", "l"]),
    ("w h c p t b l m r ch sh br".split(), "a e i o u ea oo".split(), ["", "ll", "r", "n", "sh", "rd", "t", "x"]),
)
_GIVEN_END = ["", "", "a", "o", "en", "ia", "el", "is", "us", "ina", "ette", "ric"]
_FAMILY_END = ["", "", "", "son", "ski", "er", "ez", "ini", "ov", "man", "well", "ard"]
_PLACE_END = ["", "", "", "ville", "ton", "burg", "ford", "ia", "mouth", "grad", "holm", "port", "stan", "dale"]

# Words that people really use, for training only: they keep the vocabulary and the
# model's idea of a name from being limited to the invented tongues.
_REAL_GIVEN = """James Mary John Anna Robert Linda Michael Sarah David Emma William Clara Thomas Marie
Charles Julia Daniel Laura Peter Helen George Alice Paul Nora Henry Ruth Frank Grace Albert Rosa Arthur
Elena Oscar Sofia Hugo Lucia Leo Maya Ivan Olga Carlos Ines Omar Layla Ali Fatima Wei Mei Kenji Yuki
Raj Priya Karl Greta Erik Ingrid Pierre Claire Luca Giulia Isaac Ada Max Eva Samuel Hannah""".split()
_REAL_FAMILY = """Smith Johnson Brown Taylor Miller Wilson Moore Clark Lewis Walker Hall Young King Wright
Scott Green Baker Adams Nelson Carter Curie Newton Darwin Turing Einstein Lovelace Garcia Lopez Silva Rossi
Ferrari Schmidt Weber Fischer Dubois Laurent Novak Kowalski Ivanov Petrov Tanaka Suzuki Chen Wang Kim Park
Singh Patel Khan Hassan Ali Cohen Larsen Hansen Jensen Murphy Kelly Campbell Stewart""".split()
_REAL_PLACE = """London Paris Berlin Rome Madrid Vienna Warsaw Prague Dublin Oslo Boston Chicago Denver Seattle
Houston Berkeley Toronto Sydney Tokyo Kyoto Beijing Delhi Mumbai Cairo Lagos Nairobi Lima Bogota Havana Moscow
Kiev Athens Lisbon Munich Hamburg Zurich Geneva Milan Naples Venice Lyon Oxford Cambridge Edinburgh Manchester
France Germany Italy Spain Poland Norway Sweden Japan China India Egypt Kenya Brazil Peru Canada Mexico
England Scotland Ireland Russia Greece Turkey California Texas""".split()

_TITLE_ADJECTIVES = """silent golden broken hidden winter crimson distant empty burning forgotten northern last
little endless quiet bitter silver hollow wandering blue second sleeping painted restless gentle frozen""".split()
_TITLE_NOUNS = """harbour garden river mountain letter mirror journey winter summer lantern shadow orchard bridge
storm island forest window tower road sea song daughter stranger kingdom bird house clock light fire stone
voyage promise valley night morning desert train""".split()

_MONTHS = """January February March April May June July August September October November December""".split()
_NUMBER_WORDS = "two three four five six seven eight nine ten eleven twelve".split()

OCCUPATIONS = """painter novelist poet physicist chemist botanist engineer architect composer violinist pianist
singer sculptor historian philosopher mathematician astronomer surgeon nurse lawyer judge teacher journalist
photographer actor dancer chef farmer sailor soldier carpenter blacksmith baker merchant banker politician
diplomat explorer geologist biologist economist translator librarian priest pilot cyclist swimmer boxer
footballer inventor printer tailor weaver clockmaker gardener programmer""".split()
FIELDS = """physics chemistry botany engineering architecture music law medicine history philosophy mathematics
astronomy economics geology biology literature theology linguistics geography sculpture painting philology
pharmacy statistics psychology archaeology""".split()
INSTRUMENTS = "violin piano cello flute guitar harp trumpet organ drums clarinet accordion lute".split()
PRODUCTS = """steel glass bicycles ships watches furniture cheese wine textiles cameras toys software batteries
tractors paper chocolate shoes pianos bricks tea carpets porcelain lamps engines telescopes umbrellas soap
medicines salt honey silk pottery""".split()
GENRES = """comedy tragedy thriller romance satire fantasy mystery western drama documentary memoir horror""".split()
SUBJECTS = """friendship exile war childhood betrayal ambition loneliness poverty love revenge migration grief faith
freedom jealousy ageing""".split()
ANIMALS = "dog cat horse parrot rabbit tortoise hamster goat pony canary".split()
COLOURS = "red blue green yellow purple orange black white brown pink grey turquoise".split()
FOODS = """soup pancakes rice noodles bread dumplings curry pasta salad apples cheese chocolate potatoes beans
mushrooms""".split()
SPORTS = "football chess tennis rowing cricket fencing hockey swimming cycling rugby archery skiing".split()
CAUSES = """heavy rain|a fire|a strike|a border dispute|a drought|an earthquake|a lack of money|a storm|
high taxes|a food shortage|a flood|an epidemic|a trade dispute|a power failure""".replace("\n", "").split("|")
PRIZES = "Prize Medal Award Cup Trophy".split()


def in_test_split(word: str) -> bool:
    """Whether a composed name word belongs to the test split."""
    return zlib.crc32(word.lower().encode()) % TEST_SHARE == 0


class Names:
    """Draws names and values for one split; the same seed gives the same sequence."""

    def __init__(self, rng: random.Random, split: str, real_share: float = 0.15):
        self.rng = rng
        self.test = split == "test"
        self.real_share = 0.0 if self.test else real_share

    # -- name words ---------------------------------------------------------------
    def word(self, endings: list[str], real: list[str]) -> str:
        """One capitalised name word of this split."""
        rng = self.rng
        if rng.random() < self.real_share:
            return rng.choice(real)
        while True:
            onsets, nuclei, codas = rng.choice(_TONGUES)
            count = rng.choice((1, 1, 2, 2, 2, 3))
            parts = [rng.choice(onsets) + rng.choice(nuclei) + rng.choice(codas) for _ in range(count)]
            ending = rng.choice(endings)
            if count == 1 and not ending:
                parts.append(rng.choice(onsets) + rng.choice(nuclei))
            text = "".join(parts) + ending
            if 4 <= len(text) <= 11 and in_test_split(text) == self.test:
                return text.capitalize()

    def person(self) -> str:
        given, family = self.word(_GIVEN_END, _REAL_GIVEN), self.word(_FAMILY_END, _REAL_FAMILY)
        middle = self.rng.random()
        if middle < 0.06:
            return f"{given} {self.word(_GIVEN_END, _REAL_GIVEN)} {family}"
        if middle < 0.10:
            return f"{given} {self.rng.choice(('van', 'de', 'von', 'al'))} {family}"
        return f"{given} {family}"

    def given(self) -> str:
        return self.word(_GIVEN_END, _REAL_GIVEN)

    def place(self) -> str:
        name = self.word(_PLACE_END, _REAL_PLACE)
        prefix = self.rng.random()
        if prefix < 0.05:
            return f"{self.rng.choice(('North', 'South', 'New', 'Port', 'San', 'Lake'))} {name}"
        return name

    def organisation(self, noun: str) -> str:
        rng, core = self.rng, self.word(_FAMILY_END, _REAL_FAMILY)
        style = rng.random()
        label = {"company": ("Works", "Industries", "Group", "Brothers", "Systems"),
                 "bank": ("Bank", "Trust"), "university": ("University", "College"),
                 "museum": ("Museum", "Gallery"), "club": ("Club", "Rovers", "United"),
                 "charity": ("Foundation", "Society"), "newspaper": ("Herald", "Times", "Post"),
                 "orchestra": ("Orchestra", "Philharmonic"), "airline": ("Airways", "Air"),
                 "hospital": ("Hospital", "Clinic"), "institute": ("Institute", "Academy"),
                 "publisher": ("Press", "Books")}[noun]
        if style < 0.75 or noun not in ("company", "airline"):
            return f"{core} {rng.choice(label)}"
        return core

    def title(self) -> str:
        """A work's title: common words in new combinations, often with a name in it."""
        rng = self.rng
        style = rng.random()
        adjective, noun = rng.choice(_TITLE_ADJECTIVES).title(), rng.choice(_TITLE_NOUNS).title()
        if style < 0.30:
            return f"The {noun} of {self.place()}"
        if style < 0.50:
            return f"{self.given()} and the {noun}"
        if style < 0.65:
            return self.word(_PLACE_END, _REAL_PLACE)
        # Only combinations of common words that belong to this split.
        while in_test_split(adjective + noun) != self.test:
            adjective, noun = rng.choice(_TITLE_ADJECTIVES).title(), rng.choice(_TITLE_NOUNS).title()
        return f"The {adjective} {noun}" if style < 0.9 else f"{adjective} {noun}"

    def event(self, noun: str) -> str:
        name = self.place()
        if noun in ("battle", "siege", "treaty"):
            return f"{noun.capitalize()} of {name}"
        return f"{name} {noun.title()}"

    def prize(self) -> str:
        return f"{self.word(_FAMILY_END, _REAL_FAMILY)} {self.rng.choice(PRIZES)}"

    # -- values -------------------------------------------------------------------
    def year(self, low: int = 1500, high: int = 2024) -> str:
        return str(self.rng.randint(low, high))

    def date(self) -> str:
        rng = self.rng
        day, month, year = rng.randint(1, 28), rng.choice(_MONTHS), self.year()
        return f"{day} {month} {year}" if rng.random() < 0.5 else f"{month} {day}, {year}"

    def small_number(self) -> str:
        return self.rng.choice(_NUMBER_WORDS) if self.rng.random() < 0.6 else str(self.rng.randint(2, 40))

    def number(self) -> str:
        rng = self.rng
        size = rng.random()
        if size < 0.35:
            return str(rng.randint(40, 999))
        if size < 0.9:
            return f"{rng.randint(1, 999)},{rng.randint(0, 999):03d}"
        return f"{rng.randint(2, 90)} million"

    def value(self, kind: str) -> str:
        """A value of a named type (see templates.py)."""
        rng = self.rng
        simple = {"person": self.person, "given": self.given, "place": self.place, "year": self.year,
                  "date": self.date, "small": self.small_number, "number": self.number, "title": self.title,
                  "prize": self.prize}
        if kind in simple:
            return simple[kind]()
        if kind == "time":
            return self.year() if rng.random() < 0.6 else self.date()
        if kind == "sight":
            return f"{rng.choice(_TITLE_ADJECTIVES)} {self.word(_PLACE_END, _REAL_PLACE)}".title()
        if kind == "org":
            return self.organisation(rng.choice(("company", "university", "museum", "institute", "publisher")))
        if kind == "school":
            return self.organisation(rng.choice(("university", "institute")))
        if kind == "river":
            return self.word([""], _REAL_PLACE)
        if kind == "metres":
            return str(rng.randint(12, 3900))
        if kind == "age":
            return str(rng.randint(6, 98))
        lists = {"occupation": OCCUPATIONS, "field": FIELDS, "instrument": INSTRUMENTS, "product": PRODUCTS,
                 "genre": GENRES, "subject": SUBJECTS, "animal": ANIMALS, "colour": COLOURS, "food": FOODS,
                 "sport": SPORTS, "cause": CAUSES}
        return rng.choice(lists[kind])
