"""Serious moments, answered gently and without play: loss, illness, failure, break-ups, worries."""

from __future__ import annotations

from nocap.demo.grammar.model import Family, Frame, Subject, subjects


def _people(tied_words: dict[str, str], *details: str) -> tuple[Subject, ...]:
    """One subject per person ("my grandma"), with the words tied to them; `{who}` in the details names them."""
    return tuple(
        Subject(f"my {who}", tuple(tied.split()), tuple(detail.format(who=who) for detail in details))
        for who, tied in tied_words.items()
    )


_LOSS = _people(
    {
        "grandma": "grandmother",
        "grandpa": "grandfather",
        "aunt": "auntie",
        "uncle": "uncles",
        "godmother": "godmothers",
        "old neighbour": "neighbour",
        "old teacher": "teacher",
    },
    "your {who} will stay with you in many small things",
    "you can miss your {who} as long as you need",
)
_LOSS_FRAMES = (
    Frame(
        (
            "{X} died last week.",
            "{X} passed away.",
            "We lost {x} yesterday.",
            "The funeral of {x} is tomorrow.",
            "I miss {x} so much.",
        ),
        (
            "I am so sorry about {x}. Take all the time you need.",
            "I'm sorry for your loss. {Detail}.",
            "That hurts a lot. I am sorry about {x}. Do you want to talk?",
            "I am sorry. Losing {x} is hard. Be gentle with yourself.",
        ),
    ),
)

_ILLNESS = _people(
    {
        "mum": "mother",
        "dad": "father",
        "sister": "sisters",
        "brother": "brothers",
        "cousin": "cousins",
        "flatmate": "flatmates",
        "son": "sons",
        "daughter": "daughters",
    },
    "your {who} is lucky to have you",
    "small visits can mean a lot to your {who}",
)
_ILLNESS_FRAMES = (
    Frame(
        (
            "{X} is in hospital.",
            "{X} is very ill.",
            "{X} needs an operation.",
            "I am worried about {x}.",
            "{X} had an accident.",
        ),
        (
            "I am sorry to hear that. I hope {x} gets better soon.",
            "That sounds scary. I hope {x} is in good hands. How are you?",
            "I hope {x} recovers well. {Detail}.",
            "I'm sorry about {x}. It is okay to be worried.",
        ),
    ),
)

_FAILURE = subjects(
    """
    my driving test: driving instructor
        many people need two tries at driving; a kind instructor can help you
    my entrance exam: entrance university
        there is more than one way into university; the entrance list opens again next year
    my final thesis: thesis professor
        you can ask the professor for a second date; a thesis does not decide who you are
    my audition: audition casting
        one casting is only one opinion; the next audition will feel easier
    my midterm: midterm grade
        one grade does not define you; a midterm is only one step
    my scholarship: scholarship application
        another application can still work; a scholarship says nothing about your worth
    my apprenticeship: apprenticeship trade
        a trade takes time and you have time; your apprenticeship can go on another way
    """,
)
_FAILURE_FRAMES = (
    Frame(
        (
            "I failed {x}.",
            "I messed up {x}.",
            "I didn't make it, {x} is over.",
            "They told me that I failed {x}.",
            "I am so ashamed about {x}.",
        ),
        (
            "I am sorry about {x}. That hurts, and it is okay to be sad.",
            "That is tough, I'm sorry. But {detail}.",
            "Failing {x} does not make you a failure. Take a breath first.",
            "I'm sorry to hear about {x}. {Detail}.",
        ),
    ),
)

_BREAKUP = _people(
    {
        "boyfriend": "boyfriends",
        "girlfriend": "girlfriends",
        "partner": "partners",
        "husband": "marriage",
        "wife": "wives",
        "fiancé": "fiance wedding",
    },
    "it is okay to miss your {who}",
    "life without your {who} will feel normal again one day",
)
_BREAKUP_FRAMES = (
    Frame(
        (
            "{X} broke up with me.",
            "{X} left me.",
            "I broke up with {x}.",
            "It is over between me and {x}.",
            "{X} cheated on me.",
        ),
        (
            "I am sorry about {x}. A break-up hurts a lot, go easy on yourself.",
            "That must hurt. {Detail}.",
            "I'm sorry. Losing {x} like that is hard. Do you have someone with you?",
            "I am sorry about you and {x}. It is okay to cry.",
        ),
    ),
)

_WORRY = subjects(
    """
    loneliness (feel so lonely): lonely lonesome
        many people feel lonely and never say it; feeling lonely says nothing bad about you
    anxiety (feel anxious all the time): anxious panic
        panic passes even when it feels endless; being anxious is not a weakness
    homesickness (feel homesick): homesick hometown
        being homesick shows what you love; a call to your hometown can help
    burnout (feel burned out): exhausted burned
        exhausted people need rest and not more pressure; it is okay to stop when you are exhausted
    bullying (get bullied): bully bullies bullied
        nobody deserves to be bullied; please tell someone about the bullies
    grief (can't stop grieving): grieving mourning
        grieving has no timetable; mourning looks different for everyone
    losing my job (got fired): fired layoff unemployed
        getting fired says little about your worth; many unemployed people find a better place
    the fight with my best friend (had a fight with my best friend): argument apologise
        an argument can be mended; it helps to apologise first
    my diagnosis (got a bad diagnosis): diagnosis doctor treatment
        a doctor can explain every step; a treatment starts with one question
    insomnia (lie awake every night): insomnia awake sleepless
        being awake at night makes all things darker; sleepless weeks are a reason to ask for help
    """,
)
_WORRY_FRAMES = (
    Frame(
        ("I {act}.", "I {act} and I don't know what to do.", "I {act}, it is too much."),
        (
            "I am sorry that you feel this way. {Detail}.",
            "Thank you for telling me about {x}. You matter.",
            "That sounds hard. I am here if you want to talk about {x}.",
            "I hear you, and {x} is heavy. {Detail}.",
        ),
    ),
    Frame(
        ("Can we talk about {x}?", "I need someone to talk to about {x}.", "{X} is eating me up."),
        (
            "Of course, I am listening. {Detail}.",
            "Yes, let's talk about {x}. How long has it been like this?",
            "I am here. With {x} it helps to talk to someone you trust too.",
        ),
    ),
)

FAMILIES = (
    Family("serious", _LOSS, _LOSS_FRAMES, serious=True),
    Family("serious", _ILLNESS, _ILLNESS_FRAMES, serious=True),
    Family("serious", _FAILURE, _FAILURE_FRAMES, serious=True),
    Family("serious", _BREAKUP, _BREAKUP_FRAMES, serious=True),
    Family("serious", _WORRY, _WORRY_FRAMES, serious=True),
)
