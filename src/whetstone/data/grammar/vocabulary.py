"""The closed world of the corpus: ten themes that share no noun and no verb, and the names that visit them.

A theme's verbs list the nouns they go with, and a noun the adjectives that fit it, so that every sentence makes
sense. Because no noun belongs to two themes and every frame uses one, no sentence belongs to two themes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ADJECTIVES", "NAMES", "THEMES", "Noun", "Place", "Theme", "Verb", "article", "past_of", "plural_of"]

VOWELS = "aeiou"


def article(word: str) -> str:
    """The indefinite article that goes before a word of the corpus."""
    return "an" if word[0] in VOWELS and not word.startswith("us") else "a"


def plural_of(word: str) -> str:
    """Adds the regular -s, which makes plurals of nouns and third persons of verbs."""
    if word.endswith("y") and word[-2] not in VOWELS:
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def past_of(verb: str) -> str:
    """Adds the regular -ed, also to irregular verbs: learners do."""
    if verb.endswith("y") and verb[-2] not in VOWELS:
        return verb[:-1] + "ied"
    return verb + ("d" if verb.endswith("e") else "ed")


@dataclass(frozen=True, slots=True, eq=False)
class Noun:
    """A noun; a mass noun has no plural.

    Attributes:
        singular: The bare form.
        plural: The plural, or "" for a mass noun.
        adjectives: Those that describe it sensibly.
    """

    singular: str
    plural: str = ""
    adjectives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Verb:
    """A transitive verb with all its forms."""

    base: str
    third: str
    past: str
    participle: str
    ing: str


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where things happen.

    Attributes:
        preposition: The usual one.
        noun: The place, which takes "the".
        also: Prepositions that are just as right.
        wrong: Prepositions that are surely wrong there.
    """

    preposition: str
    noun: str
    also: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Theme:
    """One vocabulary group.

    Attributes:
        name: Its name in a cell.
        people: Nouns that act.
        things: Count nouns that are acted upon.
        masses: Mass nouns that are acted upon.
        deeds: Every sensible pair of verb and object.
        places: Where the people are.
        count_deeds: The deeds whose object can be counted.
        mass_deeds: The deeds whose object cannot.
        dated_deeds: The deeds whose verb shows the past: "the student read" may be past or a wrong present.
        described: Every sensible pair of thing and adjective.
    """

    name: str
    people: tuple[Noun, ...]
    things: tuple[Noun, ...]
    masses: tuple[Noun, ...]
    deeds: tuple[tuple[Verb, Noun], ...]
    places: tuple[Place, ...]
    count_deeds: tuple[tuple[Verb, Noun], ...] = field(init=False)
    mass_deeds: tuple[tuple[Verb, Noun], ...] = field(init=False)
    dated_deeds: tuple[tuple[Verb, Noun], ...] = field(init=False)
    described: tuple[tuple[Noun, str], ...] = field(init=False)

    def __post_init__(self) -> None:
        described = tuple((noun, adjective) for noun in self.things for adjective in noun.adjectives)
        object.__setattr__(self, "count_deeds", tuple(deed for deed in self.deeds if deed[1].plural))
        object.__setattr__(self, "mass_deeds", tuple(deed for deed in self.deeds if not deed[1].plural))
        object.__setattr__(self, "dated_deeds", tuple(deed for deed in self.deeds if deed[0].base != deed[0].past))
        object.__setattr__(self, "described", described)


def _noun(forms: str, adjectives: str = "") -> Noun:
    singular, *irregular = forms.split()
    return Noun(singular, irregular[0] if irregular else plural_of(singular), tuple(adjectives.split()))


def _verb(forms: str) -> Verb:
    base, *irregular = forms.split()
    stem = base[:-1] if base.endswith("e") else base
    past, participle, ing = [*irregular, *(past_of(base), past_of(base), stem + "ing")[len(irregular) :]]
    return Verb(base, plural_of(base), past, participle, ing)


def _place(text: str) -> Place:
    """Reads "in/at library on": in or at the library, surely not on it."""
    prepositions, noun, *wrong = text.split()
    preposition, *also = prepositions.split("/")
    return Place(preposition, noun, tuple(also), tuple(wrong))


def _theme(name: str, nouns: tuple[str, str], things: Mapping[str, str], verbs: str, places: str) -> Theme:
    """Reads one theme.

    Args:
        name: Its name.
        nouns: People with comma between them (an irregular plural follows its singular), and mass nouns.
        things: Count nouns (an irregular plural follows its singular) with their adjectives.
        verbs: One verb a line: base (past participle -ing where irregular), a colon, its objects.
        places: As :func:`_place` reads them, with comma between them.
    """
    people = tuple(_noun(forms) for forms in nouns[0].split(","))
    masses = tuple(Noun(word) for word in nouns[1].split())
    count = tuple(_noun(forms, adjectives) for forms, adjectives in things.items())
    known = {noun.singular: noun for noun in (*count, *masses)}
    deeds = []
    for line in verbs.strip().splitlines():
        forms, objects = line.split(":")
        verb = _verb(forms)
        deeds += [(verb, known[word]) for word in objects.split()]
    return Theme(name, people, count, masses, tuple(deeds), tuple(_place(text) for text in places.split(",")))


NAMES: Mapping[str, str] = {
    "Anna": "she", "Maria": "she", "Lucy": "she", "Sara": "she",
    "Tom": "he", "David": "he", "Omar": "he", "Peter": "he",
}  # fmt: skip

# Comparative and superlative; None where "more" and "most" make them.
ADJECTIVES: Mapping[str, tuple[str, str] | None] = {
    "big": ("bigger", "biggest"), "small": ("smaller", "smallest"), "long": ("longer", "longest"),
    "old": ("older", "oldest"), "heavy": ("heavier", "heaviest"), "tall": ("taller", "tallest"),
    "sweet": ("sweeter", "sweetest"), "fast": ("faster", "fastest"), "strong": ("stronger", "strongest"),
    "beautiful": None, "comfortable": None, "difficult": None, "expensive": None, "famous": None,
    "important": None, "interesting": None, "modern": None,
}  # fmt: skip

THEMES: tuple[Theme, ...] = (
    _theme(
        "school",
        ("student,teacher,child children", "homework research"),
        {
            "book": "old interesting heavy",
            "essay": "long difficult interesting",
            "poem": "long difficult interesting",
            "dictionary": "old heavy",
            "notebook": "small old",
        },
        """read read read: book essay poem
        write wrote written: essay poem
        study: book poem research
        check: essay notebook homework research
        borrow: book dictionary notebook
        explain: poem essay homework research""",
        "in/at library on,in classroom on,at/in academy on",
    ),
    _theme(
        "kitchen",
        ("chef,waiter", "rice garlic butter"),
        {
            "knife knives": "old heavy small",
            "cup": "small old beautiful",
            "dish": "heavy old beautiful",
            "potato potatoes": "big small",
            "onion": "big small",
            "cake": "big small expensive",
        },
        """cook: potato rice
        bake: cake potato
        cut cut cut cutting: cake onion potato garlic butter
        wash: cup knife dish potato
        eat ate eaten: cake potato rice
        fry: onion potato garlic rice""",
        "in kitchen on,in/at restaurant on,in/at canteen on",
    ),
    _theme(
        "garden",
        ("gardener,farmer", "hay firewood"),
        {
            "tree": "old tall beautiful",
            "flower": "small tall beautiful",
            "tomato tomatoes": "big small",
            "apple": "big small",
            "carrot": "big small long",
            "leaf leaves": "big small",
        },
        """plant: tree flower carrot tomato
        water: tree flower tomato carrot
        grow grew grown: flower tomato carrot
        pick: apple flower tomato
        collect: leaf apple firewood hay
        burn: leaf firewood hay""",
        "in garden on,in greenhouse on,in/at orchard on",
    ),
    _theme(
        "office",
        ("manager,secretary,engineer", "software information"),
        {
            "letter": "long important old",
            "email": "long important interesting",
            "report": "long important difficult",
            "contract": "long important difficult",
            "printer": "old heavy expensive modern",
            "computer": "old expensive modern",
        },
        """send sent sent: letter email report information
        sign: letter contract
        print: report email contract information
        answer: letter email
        translate: letter contract report
        install: printer computer software""",
        "in lobby on,in archive on,at/in embassy on",
    ),
    _theme(
        "travel",
        ("tourist,driver", "luggage money"),
        {
            "suitcase": "heavy old expensive",
            "map": "old interesting important",
            "bus": "old modern comfortable",
            "car": "old fast expensive comfortable",
            "boat": "old fast expensive",
            "bicycle": "old fast expensive",
        },
        """pack: suitcase luggage
        carry: suitcase luggage map money
        drive drove driven: bus car
        rent: car boat bicycle
        ride rode ridden: bicycle
        photograph: boat bus car
        bring brought brought: map luggage money bicycle""",
        "at/in airport on,at/in station on,in/at hostel on",
    ),
    _theme(
        "health",
        ("doctor,nurse,dentist", "advice oxygen"),
        {
            "bandage": "small long expensive",
            "mask": "small comfortable expensive",
            "tablet": "small strong expensive",
            "thermometer": "old small modern",
            "wheelchair": "heavy old modern comfortable",
            "prescription": "old long important",
        },
        """change: bandage mask prescription
        wear wore worn: mask bandage
        take took taken: tablet
        push: wheelchair
        examine: bandage prescription tablet
        follow: advice prescription
        use: thermometer wheelchair oxygen""",
        "in/at laboratory on,at/in pharmacy on",
    ),
    _theme(
        "sport",
        ("player,coach,athlete", "equipment footwear"),
        {
            "football": "old heavy expensive",
            "match": "long important difficult",
            "race": "long important difficult",
            "medal": "small heavy important",
            "trophy": "big heavy important",
            "racket": "old heavy expensive",
        },
        """throw threw thrown: football
        kick: football
        win won won winning: match race
        watch: match race
        polish: medal trophy footwear
        lift: trophy equipment
        test: racket football equipment footwear""",
        "at/in stadium on,in/at gym on,in/at park on",
    ),
    _theme(
        "music",
        ("singer,musician,artist", "music jazz"),
        {
            "song": "long old beautiful famous",
            "melody": "old beautiful famous difficult",
            "album": "long old famous",
            "guitar": "old expensive beautiful",
            "violin": "old expensive beautiful",
            "piano": "old heavy expensive",
        },
        """sing sang sung: song melody
        play: guitar violin piano song jazz music
        record: song melody album music jazz
        compose: song melody music
        practise: song melody
        tune: guitar violin piano""",
        "in/at studio on,in/at club on,at festival on",
    ),
    _theme(
        "market",
        ("customer,woman women,baker", "bread honey"),
        {
            "banana": "big small sweet",
            "orange": "big small sweet",
            "peach": "big small sweet",
            "lemon": "big small",
            "loaf loaves": "big heavy small",
            "basket": "big heavy old beautiful",
        },
        """buy bought bought: banana orange peach lemon loaf basket bread honey
        sell sold sold: banana orange peach lemon loaf basket bread honey
        weigh: banana orange peach lemon bread honey
        choose chose chosen: banana orange peach loaf basket
        wrap wrapped wrapped wrapping: loaf basket bread
        taste: orange peach honey bread""",
        "in/at shop on,in/at supermarket on,in/at bakery on",
    ),
    _theme(
        "home",
        ("neighbour,visitor,cleaner", "furniture bedding"),
        {
            "window": "big old modern",
            "wall": "long old tall",
            "shelf shelves": "long heavy old",
            "chair": "heavy old comfortable modern",
            "curtain": "long heavy beautiful",
            "lamp": "old expensive modern",
        },
        """clean: window wall shelf chair furniture
        paint: wall chair shelf furniture
        build built built: wall shelf
        repair: chair lamp window furniture
        move: chair lamp shelf furniture
        shake shook shaken: curtain bedding
        fold: curtain bedding""",
        "in bedroom on at,in cellar on,in attic on at",
    ),
)
