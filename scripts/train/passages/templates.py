"""Templates of statements and questions, per kind of entity.

A statement holds slots: `{S}` the subject (a name, a pronoun or a description), `{S's}`
its possessive, `{he}` and `{his}` its pronouns, words of the entity such as `{noun}`,
and relations such as `{birth_place}`, whose values are the facts that questions ask
for. `{time:in}` writes "in 1874" or "on 3 May 1874", `{job:a}` writes "a" or "an".
`[one|other]` picks one wording.

A question line is `form | text`. The form is its question word, followed by `!` when it
asks backwards (the value `{V}` is given, the answer is the subject's name) and by `^`
when it asks for the year alone of a time. A relation line is `# name: type`; the
statements follow it, then its questions, which begin with `?`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Statement:
    """One sentence pattern; `relations` are the facts that it states."""

    id: str
    text: str
    relations: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """One question pattern about `relation`."""

    id: str
    form: str
    text: str
    relation: str
    inverse: bool
    year_only: bool


@dataclass
class Kind:
    """A kind of entity: its relations' value types, its statements and questions."""

    name: str
    types: dict[str, str] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)
    questions: dict[str, list[Question]] = field(default_factory=dict)


_SLOT = re.compile(r"\{([a-z_]+)(?::\w+)?\}")


def parse(name: str, text: str) -> Kind:
    """Read one kind's template text, as described at the top of this file."""
    kind = Kind(name)
    relation = ""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    for line in lines:
        if line.startswith("#"):
            relation, kind_of_value = (part.strip() for part in line[1:].split(":"))
            kind.types[relation] = kind_of_value
    for number, line in enumerate(lines):
        if line.startswith("#"):
            relation = line[1:].split(":")[0].strip()
        elif line.startswith("?"):
            form, pattern = (part.strip() for part in line[1:].split("|", 1))
            kind.questions.setdefault(relation, []).append(
                Question(f"{name}:{number}", form.rstrip("!^"), pattern, relation, "!" in form, "^" in form))
        else:
            stated = tuple(slot for slot in _SLOT.findall(line) if slot in kind.types)
            kind.statements.append(Statement(f"{name}:{number}", line, stated))
    return kind


PERSON = parse("person", """
# birth_place: place
{S} was born in {birth_place}.
{S} [came from|grew up in] {birth_place}.
Born in {birth_place}, {S} [moved|travelled] often as a child.
{birth_place} was the [place|town] where {S} was born.
{S's} [birthplace|home town] was {birth_place}.
{S} was a native of {birth_place}.
? where | Where was {S} born?
? where | Where did {S} come from?
? where | Where is {S} from?
? what | What was {S}'s birthplace?
? what | What is the home town of {S}?
? which | In which place was {S} born?
? which | {S} was born in which place?
? who! | Who was born in {V}?
? who! | Who came from {V}?
? which! | Which person was a native of {V}?
# birth_time: time
{S} was born {birth_time:in}.
{S} was born {birth_time:in} in {birth_place}.
{S}, born {birth_time:in}, was {occupation:a}.
{S} was born in {birth_place} {birth_time:in}.
Born {birth_time:in} in {birth_place}, {S} became {occupation:a}.
It was {birth_time:in} that {S} was born.
{S} came into the world {birth_time:in}.
? when | When was {S} born?
? when | When did {S} come into the world?
? what | What is the date of birth of {S}?
? what^ | In what year was {S} born?
? which^ | In which year was {S} born?
? what^ | What year was {S} born in?
? who! | Who was born {V:in}?
# death_place: place
{S} died in {death_place}.
{S} [spent the last years|ended life] in {death_place} and died there.
{S's} life ended in {death_place}.
Death came to {S} in {death_place}.
? where | Where did {S} die?
? where | Where did {S}'s life end?
? which | In which place did {S} die?
? what | What was the place of {S}'s death?
? who! | Who died in {V}?
# death_time: time
{S} died {death_time:in}.
{S} died {death_time:in} in {death_place}.
{S} died in {death_place} {death_time:in}.
{S} [passed away|lost {his} life] {death_time:in}.
{S's} death came {death_time:in}.
{S} lived until {death_time}.
? when | When did {S} die?
? when | When did {S} pass away?
? what | What is the date of {S}'s death?
? what^ | In what year did {S} die?
? which^ | In which year did {S} die?
? who! | Who died {V:in}?
# occupation: occupation
{S} was {occupation:a}.
{S} was {occupation:a} from {birth_place}.
{S} [worked as|became|earned a living as] {occupation:a}.
By profession {S} was {occupation:a}.
{S's} [job|profession|trade] was that of {occupation:a}.
People knew {S} as {occupation:a}.
? what | What was {S}'s [job|profession|occupation]?
? what | What did {S} do for a living?
? what | What did {S} work as?
? what | What was the profession of {S}?
? which | Which profession did {S} have?
? who! | Who was the {V}?
? who! | Who worked as {V:a}?
# spouse: person
{S} married {spouse}.
{S} was married to {spouse}.
{S} married {spouse} {wedding_time:in}.
{S's} [wife|husband|partner] was {spouse}.
{S} and {spouse} were [married|husband and wife].
{S} [shared {his} life with|found a companion in] {spouse}, whom {he} married young.
? who | Who did {S} marry?
? who | Whom did {S} marry?
? who | Who was {S} married to?
? who | Who was {S}'s [wife|husband]?
? what | What was the name of {S}'s spouse?
? who! | Who married {V}?
# wedding_time: time
{S} was married {wedding_time:in}.
{S's} wedding took place {wedding_time:in}.
The wedding of {S} and {spouse} was held {wedding_time:in}.
? when | When did {S} marry?
? when | When was {S}'s wedding?
? what^ | In what year did {S} get married?
? which^ | In which year was {S} married?
# residence: place
{S} lived in {residence} [for many years|for most of {his} life|as an adult].
{S} [moved to|settled in] {residence}.
{S} made a home in {residence}.
{residence} became {S's} home.
{S} moved to {residence} to work as {occupation:a}.
? where | Where did {S} live?
? where | Where did {S} settle?
? where | Where did {S} move to?
? where | Where was {S}'s home?
? which | In which place did {S} live?
? who! | Who lived in {V}?
? who! | Who moved to {V}?
# school: school
{S} studied at {school}.
{S} [attended|went to|graduated from] {school}.
{S} was [educated|a student] at {school}.
{S} studied {field} at {school}.
{S} received {his} education from {school}.
{school} was where {S} studied.
? where | Where did {S} study?
? where | Where was {S} educated?
? which | Which school did {S} attend?
? what | What school did {S} go to?
? who! | Who studied at {V}?
# field: field
{S} studied {field}.
{S} [took a degree in|specialised in] {field}.
{S's} subject was {field}.
As a student {S} chose {field}.
? what | What did {S} study?
? what | What subject did {S} study?
? which | Which subject did {S} choose?
? what | What was {S}'s field of study?
? who! | Who studied {V}?
# employer: org
{S} worked for {employer}.
{S} [joined|was employed by|was hired by] {employer}.
{S} found work at {employer}.
{S's} employer was {employer}.
{S} worked for {employer} as {occupation:a}.
? who | Who did {S} work for?
? where | Where did {S} work?
? who | Who employed {S}?
? which | Which organisation did {S} join?
? what | What was {S}'s employer?
? who! | Who worked for {V}?
# prize: prize
{S} [won|received|was awarded] the {prize}.
The {prize} [went|was given] to {S}.
{S} [won|received] the {prize} {prize_time:in}.
{S} was honoured with the {prize}.
? what | What did {S} win?
? which | Which award did {S} win?
? what | What prize was {S} awarded?
? what | What award did {S} receive?
? who! | Who won the {V}?
? who! | Who was awarded the {V}?
? who! | Who received the {V}?
# prize_time: year
{S} won a prize in {prize_time}.
It was in {prize_time} that {S} received an award.
? when | When did {S} win a prize?
? which | In which year did {S} receive an award?
# children: small
{S} had {children} children.
{S} [raised|was the parent of] {children} children.
{S} and {spouse} had {children} children.
{S's} family included {children} children.
? how many | How many children did {S} have?
? how many | How many children did {S} raise?
? how many | {S} had how many children?
? what | What was the number of {S}'s children?
# mother: person
{S's} mother was {mother}.
{S} was the child of {mother} and {father}.
{S} was raised by {his} mother, {mother}.
{mother} was the mother of {S}.
? who | Who was {S}'s mother?
? who | Who was the mother of {S}?
? what | What was the name of {S}'s mother?
# father: person
{S's} father was {father}.
{S} learned a great deal from {his} father, {father}.
{father} was the father of {S}.
? who | Who was {S}'s father?
? who | Who was the father of {S}?
? what | What was the name of {S}'s father?
# instrument: instrument
{S} played the {instrument}.
{S} [loved|was good at] playing the {instrument}.
In the evenings {S} practised the {instrument}.
? what | What did {S} play?
? what | What instrument did {S} play?
? which | Which instrument did {S} play?
? who! | Who played the {V}?
# death_age: age
{S} died at the age of {death_age}.
{S} was {death_age} years old when {he} died.
{S} lived to the age of {death_age}.
? how old | How old was {S} when [{he}|{S}] died?
? how old | How old did {S} become?
? what | At what age did {S} die?
? what | What age did {S} reach?
# teacher: person
{S} was [taught|trained] by {teacher}.
{S} was a pupil of {teacher}.
{S's} teacher was {teacher}.
{teacher} [taught|trained] {S} for several years.
? who | Who taught {S}?
? who | Who trained {S}?
? who | Who was {S}'s teacher?
? whose | Whose pupil was {S}?
? who! | Who was a pupil of {V}?
""")

PLACE = parse("place", """
# country: place
{S} is {noun:a} in {country}.
{S} [lies|is situated|is located] in {country}.
{S} belongs to {country}.
{S} [lies|stands] on the {river} in {country}.
The {noun} of {S} is part of {country}.
In {country} there is {noun:a} called {N}.
? where | Where is {S}?
? where | Where is {S} located?
? where | Where does {S} lie?
? which | In which country is {S}?
? what | What country is {S} in?
? which | Which country does {S} belong to?
? what! | What {noun} is located in {V}?
? which! | Which {noun} lies in {V}?
# river: river
{S} [lies|stands] on the river {river}.
{S} was built on the banks of the {river}.
The river {river} flows [through|past] {S}.
The {river} river crosses {S}.
? which | Which river flows through {S}?
? what | What river does {S} lie on?
? what | What is the name of the river in {S}?
? which! | Which {noun} lies on the {V}?
? what! | What {noun} stands on the river {V}?
# population: number
{S} has [a population of|about] {population} [inhabitants|people].
{population} people live in {S}.
The population of {S} is {population}.
{S} is home to {population} people.
{S} counts {population} inhabitants.
? how many | How many people live in {S}?
? how many | How many inhabitants does {S} have?
? what | What is the population of {S}?
? how many | {S} is home to how many people?
# founded: year
{S} was founded in {founded}.
{S} was founded in {founded} by {founder}.
{S} [dates from|goes back to|has existed since] {founded}.
Settlers built {S} in {founded}.
In {founded}, {founder} founded {S}.
The {noun} [was established|began] in {founded}.
? when | When was {S} founded?
? when | When was {S} established?
? what | In what year was {S} founded?
? which | Which year was {S} built in?
? which! | Which {noun} was founded in {V}?
# founder: person
{S} was founded by {founder}.
{founder} [founded|established] {S}.
The founder of {S} was {founder}.
{S} owes its existence to {founder}.
? who | Who founded {S}?
? who | Who established {S}?
? who | Who was the founder of {S}?
? who | By whom was {S} founded?
? what | What was the name of {S}'s founder?
? which! | Which {noun} did {V} found?
? what! | What {noun} was founded by {V}?
# mayor: person
The mayor of {S} is {mayor}.
{S's} mayor is {mayor}.
{mayor} is the mayor of {S}.
{mayor} was elected mayor of {S}.
{S} [is governed|is led] by {mayor}.
? who | Who is the mayor of {S}?
? who | Who is {S}'s mayor?
? who | Who governs {S}?
? who | Who was elected mayor of {S}?
? where! | Where is {V} mayor?
# product: product
{S} is [known|famous] for its {product}.
{S} produces {product}.
The main product of {S} is {product}.
{S} [lives from|earns its money with] {product}.
Traders come to {S} for {product}.
? what | What is {S} known for?
? what | What is {S} famous for?
? what | What does {S} produce?
? what | What is the main product of {S}?
? which! | Which {noun} is known for its {V}?
# altitude: metres
{S} [lies|stands] {altitude} metres above the sea.
{S} is at a height of {altitude} metres.
The altitude of {S} is {altitude} metres.
? how high | How high is {S}?
? how high | How high above the sea does {S} lie?
? what | What is the altitude of {S}?
? how many | How many metres above the sea is {S}?
# distance_to: place
{S} is {distance} kilometres from {distance_to}.
The nearest city to {S} is {distance_to}.
{S} lies near {distance_to}.
A road leads from {S} to {distance_to}.
? what | What is the nearest city to {S}?
? what | What city is near {S}?
? which | Which city does {S} lie near?
? where | Where does the road from {S} lead?
# distance: metres
It is {distance} kilometres from {S} to {distance_to}.
{distance} kilometres separate {S} from {distance_to}.
? how far | How far is {S} from {distance_to}?
? how many | How many kilometres is it from {S} to {distance_to}?
? how far | How far is it from {S} to {distance_to}?
# sight: sight
The [main sight|best known building] of {S} is the {sight} tower.
Visitors to {S} go to see the {sight} tower.
The {sight} tower stands in {S}.
? which | Which tower stands in {S}?
? what | What is the name of the tower in {S}?
? which! | Which {noun} has the {V} tower?
""")

WORK = parse("work", """
# creator: person
{S} was {made} by {creator}.
{creator} {wrote} {S}.
{S} is {noun:a} by {creator}.
{S} was {made} by {creator} {release:in}.
The {maker} of {S} was {creator}.
{S} is the work of {creator}.
{creator} is the {maker} of {S}.
{creator} {wrote} {S} {release:in}.
? who | Who {wrote} {S}?
? who | Who was {S} {made} by?
? who | Who was the {maker} of {S}?
? who | Who is the {maker} of {S}?
? who | By whom was {S} {made}?
? what | What is the name of the {maker} of {S}?
? which | Which {maker} {wrote} {S}?
? who | Who created {S}?
? what! | What {noun} was {made} by {V}?
? which! | Which {noun} did {V} create?
? which! | Which {noun} was the work of {V}?
# release: time
{S} [appeared|came out|was published] {release:in}.
{S} was [released|first shown] {release:in}.
{S} was {made} {release:in}.
{release:In} {creator} {wrote} {S}.
{S} [dates from|goes back to] {release}.
? when | When did {S} come out?
? when | When was {S} {made}?
? when | When did {S} appear?
? when | When was {S} released?
? what^ | In what year was {S} {made}?
? which^ | In which year did {S} appear?
? which! | Which {noun} appeared {V:in}?
# setting: place
{S} [is set|takes place] in {setting}.
The story of {S} [happens|unfolds] in {setting}.
{setting} is the [scene|setting] of {S}.
? where | Where is {S} set?
? where | Where does {S} take place?
? where | Where does the story of {S} happen?
? what | What is the setting of {S}?
? which | In which place is {S} set?
? which! | Which {noun} is set in {V}?
? what! | What {noun} takes place in {V}?
# hero: person
The [main character|hero] of {S} is [called |]{hero}.
{S} [follows|tells the story of|is about the life of] {hero}.
{hero} is the main character of {S}.
At the centre of {S} stands {hero}.
? who | Who is the main character of {S}?
? who | Who is the hero of {S}?
? who | Whose story does {S} tell?
? who | Who does {S} follow?
? what | What is the name of the main character of {S}?
? which! | Which {noun} tells the story of {V}?
# genre: genre
{S} is {genre:a}.
Critics called {S} {genre:a}.
{S} belongs to the genre of {genre}.
? what | What genre is {S}?
? what | What is the genre of {S}?
? which | Which genre does {S} belong to?
? which! | Which {noun} is {V:a}?
# subject: subject
{S} [deals with|is about] {subject}.
The [theme|subject] of {S} is {subject}.
{subject} is the theme of {S}.
? what | What is {S} about?
? what | What is the theme of {S}?
? what | What does {S} deal with?
? which! | Which {noun} deals with {V}?
# publisher: org
{S} was [published|brought out] by {publisher}.
{publisher} [published|brought out|financed] {S}.
The publisher of {S} was {publisher}.
? who | Who published {S}?
? who | Who brought out {S}?
? what | What was the publisher of {S}?
? which | Which organisation published {S}?
? which! | Which {noun} was published by {V}?
# prize: prize
{S} [won|received|was awarded] the {prize}.
The {prize} [went|was given] to {S}.
? what | What did {S} win?
? which | Which prize did {S} win?
? what | What award did {S} receive?
? which! | Which {noun} won the {V}?
# copies: number
{S} sold {copies} copies.
{copies} copies of {S} were sold.
Readers and collectors bought {copies} copies of {S}.
? how many | How many copies did {S} sell?
? how many | How many copies of {S} were sold?
? what | What number of copies did {S} sell?
# inspiration: person
{S} was inspired by {inspiration}.
The inspiration for {S} came from {inspiration}.
{inspiration} [inspired|gave the idea for] {S}.
{S} was dedicated to {inspiration}.
? who | Who inspired {S}?
? who | Who gave the idea for {S}?
? who | Who was {S} dedicated to?
? who | Who was {S} inspired by?
# home: org
{S} [is kept|can be seen] at the {home}.
The {home} [owns|holds] {S} today.
Today {S} belongs to the {home}.
? where | Where is {S} kept?
? where | Where can {S} be seen?
? who | Who owns {S}?
? who | Who does {S} belong to?
""")

EVENT = parse("event", """
# time: time
{S} took place {time:in}.
{S} was held {time:in}.
{S} took place {time:in} in {place}.
{S} [happened|began|opened] {time:in}.
{time:In} {S} began.
It was {time:in} that {S} took place.
The date of {S} was {time}.
? when | When did {S} take place?
? when | When was {S} held?
? when | When did {S} happen?
? what | What was the date of {S}?
? what^ | In what year did {S} take place?
? which^ | In which year was {S} held?
? which! | Which {noun} took place {V:in}?
? what! | What {noun} was held {V:in}?
# place: place
{S} took place in {place}.
{S} was held in {place}.
{S} was held in {place} {time:in}.
{place} [hosted|was the scene of] {S}.
The location of {S} was {place}.
? where | Where did {S} take place?
? where | Where was {S} held?
? where | Where did {S} happen?
? what | What was the location of {S}?
? which | Which place hosted {S}?
? which | In which place did {S} take place?
? which! | Which {noun} was held in {V}?
? what! | What {noun} took place in {V}?
# winner: person
{winner} won {S}.
{S} was won by {winner}.
The winner of {S} was {winner}.
{S} ended with a victory for {winner}.
Victory in {S} went to {winner}.
? who | Who won {S}?
? who | Who was the winner of {S}?
? who | By whom was {S} won?
? what | What was the name of the winner of {S}?
? who | Who was victorious in {S}?
? what! | What {noun} did {V} win?
? which! | Which {noun} was won by {V}?
# loser: person
{loser} lost {S}.
{S} was lost by {loser}.
{winner} defeated {loser} in {S}.
In {S}, {loser} was beaten by {winner}.
? who | Who lost {S}?
? who | Who was defeated in {S}?
? who | Who was beaten in {S}?
# organiser: org
{S} was organised by {organiser}.
{organiser} [organised|arranged|paid for] {S}.
The organiser of {S} was {organiser}.
? who | Who organised {S}?
? who | Who arranged {S}?
? who | Who was the organiser of {S}?
? which | Which organisation arranged {S}?
? which! | Which {noun} was organised by {V}?
# people: number
{people} people took part in {S}.
{S} [attracted|drew] {people} people.
{S} had {people} participants.
The number of participants in {S} was {people}.
? how many | How many people took part in {S}?
? how many | How many participants did {S} have?
? how many | How many people did {S} attract?
? what | What was the number of participants in {S}?
# days: small
{S} lasted {days} days.
{S} went on for {days} days.
After {days} days {S} came to an end.
? how long | How long did {S} last?
? how many | How many days did {S} last?
? how long | How long did {S} go on for?
# cause: cause
{S} was [caused|brought about] by {cause}.
The cause of {S} was {cause}.
{S} [started|came about] because of {cause}.
? what | What caused {S}?
? why | Why did {S} start?
? what | What was the cause of {S}?
? why | Why did {S} come about?
# leader: person
{S} was led by {leader}.
{leader} [led|was in charge of] {S}.
The leader of {S} was {leader}.
{S} was opened by {leader}.
? who | Who led {S}?
? who | Who was in charge of {S}?
? who | Who was the leader of {S}?
? who | Who opened {S}?
? which! | Which {noun} was led by {V}?
# topic: field
{S} dealt with {topic}.
The topic of {S} was {topic}.
People talked about {topic} at {S}.
? what | What was the topic of {S}?
? what | What did {S} deal with?
? which | Which topic did {S} have?
""")

ORGANISATION = parse("organisation", """
# founder: person
{S} was founded by {founder}.
{founder} [founded|started|established|set up] {S}.
The founder of {S} was {founder}.
{S} was founded by {founder} {founded:in}.
{S} is {noun:a} that {founder} started.
{founder} created {S} {founded:in}.
? who | Who founded {S}?
? who | Who started {S}?
? who | Who was the founder of {S}?
? who | Who set up {S}?
? who | By whom was {S} established?
? what | What was the name of {S}'s founder?
? what! | What {noun} did {V} found?
? which! | Which {noun} was founded by {V}?
# founded: time
{S} was founded {founded:in}.
{S} [began|opened|started] {founded:in}.
{S} was [established|set up] {founded:in} in {seat}.
{S} [dates from|goes back to] {founded}.
Since {founded}, {S} has existed as {noun:a}.
? when | When was {S} founded?
? when | When was {S} established?
? when | When did {S} begin?
? when | When was {S} set up?
? what^ | In what year was {S} founded?
? which^ | In which year did {S} open?
? which! | Which {noun} was founded {V:in}?
# seat: place
{S} is [based|located] in {seat}.
{S} is {noun:a} based in {seat}.
{S} has its [headquarters|main office] in {seat}.
The headquarters of {S} are in {seat}.
{seat} is home to {S}.
? where | Where is {S} based?
? where | Where is {S} located?
? where | Where are the headquarters of {S}?
? where | Where does {S} have its main office?
? which | In which place is {S} based?
? what! | What {noun} is based in {V}?
? which! | Which {noun} has its headquarters in {V}?
# head: person
{S} is [led|run|headed|managed] by {head}.
The [head|director|president] of {S} is {head}.
{head} [leads|runs|manages] {S}.
{head} is the [head|director|president] of {S}.
? who | Who leads {S}?
? who | Who runs {S}?
? who | Who is the head of {S}?
? who | Who is the [director|president] of {S}?
? who | Who manages {S}?
? what! | What {noun} does {V} lead?
# staff: number
{S} employs {staff} people.
{staff} people work for {S}.
{S} has {staff} employees.
The staff of {S} numbers {staff}.
? how many | How many people work for {S}?
? how many | How many employees does {S} have?
? how many | How many people does {S} employ?
? what | What is the number of {S}'s employees?
# product: product
{S} [makes|sells|produces] {product}.
{S} is known for {product}.
{S} earns its money with {product}.
The main product of {S} is {product}.
? what | What does {S} make?
? what | What does {S} sell?
? what | What does {S} produce?
? what | What is {S} known for?
? which! | Which {noun} makes {V}?
? who! | Who sells {V}?
# owner: org
{S} is owned by {owner}.
{owner} [owns|bought] {S}.
{S} [belongs to|was bought by] {owner}.
The owner of {S} is {owner}.
? who | Who owns {S}?
? who | Who is the owner of {S}?
? who | Who bought {S}?
? who | Who does {S} belong to?
? what! | What {noun} is owned by {V}?
# earlier_name: org
{S} was [formerly|once|first] called {earlier_name}.
The former name of {S} was {earlier_name}.
Until later {S} bore the name {earlier_name}.
? what | What was {S} formerly called?
? what | What was the former name of {S}?
? what | What was {S} called before?
# money: number
{S} earned {money} dollars last year.
{S} had an income of {money} dollars.
The income of {S} was {money} dollars.
? how much | How much did {S} earn?
? how much | How much money did {S} earn?
? what | What was the income of {S}?
? how much | How much was the income of {S}?
# rival: org
{S's} [main rival|competitor] is {rival}.
{S} competes with {rival}.
{rival} is the main rival of {S}.
? who | Who is the main rival of {S}?
? who | Who does {S} compete with?
? what | What is {S}'s main rival?
# branches: small
{S} has {branches} [branches|offices].
{S} runs {branches} branches.
There are {branches} branches of {S}.
? how many | How many branches does {S} have?
? how many | How many offices does {S} have?
? how many | {S} runs how many branches?
""")

SELF = parse("self", """
# name: given
My name is {name}.
I am [called |]{name}.
I'm {name}.
My name is {name} and I live in {residence}.
People call me {name}.
Hello, my name is {name}.
? what | What is my name?
? what | What's my name?
? who | Who am I?
? what | What am I called?
? what | What is your name?
# residence: place
I live in {residence}.
I [moved to|have a house in] {residence}.
My home is in {residence}.
I [live|have lived] in {residence} and work as {job:a}.
? where | Where do I live?
? where | Where is my home?
? which | In which place do I live?
? where | Where do you live?
# origin: place
I was born in {origin}.
I come from {origin}.
I grew up in {origin}.
? where | Where was I born?
? where | Where do I come from?
? where | Where did I grow up?
# job: occupation
I work as {job:a}.
I am {job:a}.
My job is that of {job:a}.
I earn my living as {job:a}.
? what | What is my job?
? what | What do I do for a living?
? what | What do I work as?
# age: age
I am {age} years old.
I turned {age} this year.
My age is {age}.
? how old | How old am I?
? what | What is my age?
? how old | How old are you?
# employer: org
I work for {employer}.
My employer is {employer}.
I have a job at {employer}.
? who | Who do I work for?
? where | Where do I work?
? what | What is the name of my employer?
# friend: person
My best friend is {friend}.
{friend} is my best friend.
My best friend is called {friend}.
? who | Who is my best friend?
? what | What is the name of my best friend?
? what | What is my best friend called?
# sister: given
My sister is called {sister}.
My sister {sister} lives in {sister_home}.
{sister} is my sister.
? who | Who is my sister?
? what | What is my sister's name?
? what | What is my sister called?
# sister_home: place
My sister lives in {sister_home}.
My sister moved to {sister_home}.
? where | Where does my sister live?
? where | Where is my sister's home?
# pet: given
My {animal} is called {pet}.
I have {animal:a} called {pet}.
{pet} is the name of my {animal}.
? what | What is the name of my pet?
? what | What is my pet called?
# animal: animal
I have {animal:a}.
My pet is {animal:a}.
? what | What pet do I have?
? which | Which animal do I have?
# colour: colour
My favourite colour is {colour}.
The colour I like best is {colour}.
? what | What is my favourite colour?
? which | Which colour do I like best?
# food: food
My favourite food is {food}.
I love eating {food}.
The food I like best is {food}.
? what | What is my favourite food?
? what | What do I love eating?
? which | Which food do I like best?
# sport: sport
I play {sport} every week.
My favourite sport is {sport}.
? what | What is my favourite sport?
? which | Which sport do I play?
# trip: place
I spent my last holiday in {trip}.
Last summer I travelled to {trip}.
? where | Where did I spend my last holiday?
? where | Where did I travel last summer?
""")

KINDS = {kind.name: kind for kind in (PERSON, PLACE, WORK, EVENT, ORGANISATION, SELF)}

PLACE_NOUNS = "town city village island district port".split()
EVENT_NOUNS = """battle siege festival conference tournament exhibition election congress race strike
concert fair""".split()
ORGANISATION_NOUNS = """company bank university museum club charity newspaper orchestra airline hospital institute
publisher""".split()
# noun: (maker, past participle, past tense)
WORK_NOUNS = {
    "novel": ("author", "written", "wrote"), "book": ("author", "written", "wrote"),
    "poem": ("author", "written", "wrote"), "play": ("author", "written", "wrote"),
    "film": ("director", "directed", "directed"), "opera": ("composer", "composed", "composed"),
    "song": ("composer", "composed", "composed"), "symphony": ("composer", "composed", "composed"),
    "painting": ("painter", "painted", "painted"), "sculpture": ("sculptor", "made", "made"),
    "album": ("singer", "recorded", "recorded"), "ballet": ("composer", "composed", "composed"),
}

LEADS = ["In fact, ", "As is well known, ", "According to local records, ", "Today we know that ",
         "Sources say that ", "It is known that ", "At the time, ", "Some years later, ", "Later, ", "However, "]

# Sentences without a fact of the entity; the slots hold values that look like answers.
FILLERS = """The weather that year was [mild|cold|dry].
Few records of the period survive.
Many visitors come in summer.
Nothing else is known about it.
The story was told again and again.
A long silence followed.
Some historians doubt this account.
The details are still a matter of debate.
Newspapers wrote about it for weeks.
There was little money in those days.
The local archive holds {number} letters from the time.
A report of {year} mentions it briefly.
A journalist, {person}, later wrote about it.
{person} took the photographs.
The news soon reached {place}.
A statue in {place} reminds visitors of it.
It was a time of change in {place}.
A train to {place} left every morning.
The historian {person} disagreed.
In {year} a flood destroyed the old bridge.
In {year} the {org} opened its archive.
The {org} paid for the research.
A copy of the report costs {number} dollars.
The road was {number} kilometres long.
Most people had heard of {person} by then.
A film about it was shown in {year}.
The report filled {small} pages.
{person} and {person} remembered it well.""".splitlines()
