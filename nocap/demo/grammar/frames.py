"""Frames that fit many subjects: opinions about anything, and plans about what one can do."""

from __future__ import annotations

from nocap.demo.grammar.model import Frame

OPINION = (
    Frame(
        ("Do you like {x}?", "Are you a fan of {x}?", "Do you enjoy {x}?", "{X}, yes or no?"),
        (
            "{Yes}, I like {x}, {it} {is} {very} {good}.",
            "{Yes}, {x} {is} {very} {good} because {detail}.",
            "{X}? {Yes}, {detail}.",
            "{X}? {No}, a bit {boring} {closer}.",
            "{X} {is} {good} {closer}. {Detail}.",
            "{Yes}! {X} {is} {very} {good} {closer}.",
        ),
    ),
    Frame(
        (
            "What do you think about {x}?",
            "Thoughts on {x}?",
            "What's your opinion on {x}?",
            "How do you feel about {x}?",
        ),
        (
            "I think {x} {is} {very} {good}, {detail}.",
            "{X} {is} {very} {good} {closer}.",
            "{Opener}, {x} can be {boring}, but {detail}.",
            "{X}? {Very} {good}, because {detail}.",
            "{Opener}, {x} {is} {good}. {Detail}.",
        ),
    ),
    Frame(
        (
            "Why do people like {x}?",
            "What is so great about {x}?",
            "What's the best thing about {x}?",
            "What makes {x} special?",
        ),
        (
            "People like {x} because {detail}, which is {very} {good}.",
            "The {good} thing about {x} is that {detail}.",
            "With {x}, {detail}, and that is {very} {good}.",
            "{Opener}, {x}? {Detail}, and I find that {very} {good}.",
        ),
    ),
    Frame(
        ("{Is} {x} overrated?", "I think {x} {is} overrated.", "I don't get the hype about {x}."),
        (
            "{No}, {x} {is} {very} {good}, {detail}.",
            "{Opener}, {x} can be {very} {boring} sometimes.",
            "I see it differently, {x} {is} {good} because {detail}.",
            "{X} {is} a bit {boring} sometimes, but {detail}.",
        ),
    ),
    Frame(
        (
            "Tell me something about {x}.",
            "Let's talk about {x}.",
            "Say something nice about {x}.",
            "What can you tell me about {x}?",
        ),
        (
            "{Opener}, about {x}: {detail}, which is {very} {good}.",
            "{X}? {Detail}, and that is {very} {good}.",
            "{Yes}, {x}! {Detail}.",
            "{Yes}, {x} {is} {very} {good}. {Detail}.",
        ),
    ),
    Frame(
        ("I love {x}.", "{X} {is} my favourite.", "I can't get enough of {x}.", "{X} made my day."),
        (
            "{Yes}, {x} {is} {very} {good}.",
            "Same here, {x} {is} {good} because {detail}.",
            "{Good}, {x}! {Detail}.",
            "{X} {is} {very} {good}, I agree. {Detail}.",
        ),
    ),
    Frame(
        ("I don't like {x}.", "I am tired of {x}.", "{X} {is} so boring."),
        (
            "Oh, why? I think {x} {is} {very} {good} {closer}.",
            "{X} {is} not for everyone, but {detail}.",
            "Fair enough, {x} can be {very} {bad} sometimes.",
            "{Opener}, {x} can be {boring}. Still, {detail}.",
        ),
    ),
)

ACTIVITY = (
    Frame(
        (
            "Do you want to {act} {when}?",
            "Should we {act} {when}?",
            "Let's {act} {when}.",
            "Anyone up to {act} {when}?",
        ),
        (
            "{Yes}, {x} {when} sounds {very} {good}.",
            "I am in, {x} {is} {very} {good} {closer}.",
            "{Yes}, {x}! {Detail}.",
            "Maybe not {when}, but {x} another day sounds {good}.",
        ),
    ),
    Frame(
        ("How often do you {act}?", "Do you {act} a lot?"),
        (
            "I would {act} {often} if I could, {it} {is} {very} {good}.",
            "Not often enough, {x} {is} {very} {good}.",
            "{X}? About {often}, because {detail}.",
        ),
    ),
    Frame(
        ("I am going to {act} {when}.", "I want to {act} {when}.", "Guess who gets to {act} {when}."),
        (
            "Have fun! {X} {is} {very} {good}.",
            "{Opener}, {good}! Enjoy {x}, {detail}.",
            "{X} {when}? That sounds {very} {good}.",
            "{Good} plan, {x} {is} always {good}. {Detail}.",
        ),
    ),
    Frame(
        ("Any tips for {x}?", "I am new to {x}, any advice?", "How do I get the most out of {x}?"),
        (
            "With {x}, take your time and remember: {detail}.",
            "Start easy, {x} {is} {very} {good} once you know {them}.",
            "{Opener}, my tip for {x}: {detail}, so enjoy that.",
            "Just have fun with {x}, {it} {is} {very} {good} with friends.",
        ),
    ),
    Frame(
        ("I have never tried {x}.", "Is it worth it to try {x}?", "Should I give {x} a chance?"),
        (
            "You should try {x}, {it} {is} {very} {good}.",
            "{Yes}, give {x} a chance, {detail}.",
            "Try {x} once, I think {it} {is} {very} {good}.",
            "{X}? {Yes}, {detail}, so go for it.",
        ),
    ),
)

GUIDE = (
    Frame(
        ("How do I get better at {x}?", "Any advice about {x}?", "I need help with {x}.", "What helps with {x}?"),
        (
            "For {x} it helps a lot: {detail}.",
            "{Opener}, with {x} I would say {detail}.",
            "A {good} start with {x} is small steps. {Detail}.",
            "{X}? {Detail}, that is a {very} {good} trick.",
        ),
    ),
    Frame(
        ("I am bad at {x}.", "{X} {is} hard for me.", "I keep struggling with {x}."),
        (
            "{X} {is} hard for many people, but {detail}.",
            "Don't worry, {x} gets easier. {Detail}.",
            "{Opener}, {x} can be {very} {bad}. Still, {detail}.",
        ),
    ),
    Frame(
        ("Is {x} important?", "Why does {x} matter?", "Do you care about {x}?"),
        (
            "{Yes}, {x} {is} {very} important. {Detail}.",
            "{X}? That matters a lot {closer}. {Detail}.",
            "{Yes}, {x} {is} {good} for everyone. {Detail}.",
        ),
    ),
)

FACT = (
    Frame(
        (
            "Tell me a fact about {x}.",
            "Do you know anything about {x}?",
            "What should I know about {x}?",
            "Teach me about {x}.",
        ),
        (
            "Here is a {good} fact about {x}: {detail}.",
            "{Yes}, {x} {is} {very} {good}. {Detail}.",
            "{X}? {Detail}, which is {very} {good}.",
            "Did you know? With {x}, {detail}.",
        ),
    ),
    Frame(
        (
            "I read about {x} {when_past}.",
            "I saw something about {x} {when_past}.",
            "We learned about {x} {when_past}.",
        ),
        (
            "{Good}! About {x}, did you know that {detail}?",
            "{X} {is} {very} {good}, {detail}.",
            "{Opener}, I like {x}. {Detail}.",
        ),
    ),
    Frame(
        ("{Is} {x} interesting?", "Why {is} {x} interesting?", "Do you find {x} cool?"),
        (
            "{Yes}, {x} {is} {very} {good} because {detail}.",
            "{X}? {Yes}, {detail}.",
            "I find {x} {very} {good} {closer}. {Detail}.",
        ),
    ),
)

FOLLOW_UP = Frame(
    ("Why?", "Why is that?", "Tell me more.", "Really?", "What else?", "How come?"),
    (
        "Because with {x}, {detail}, and that is {very} {good}.",
        "{Opener}, {x} {is} {very} {good}, and {detail}.",
        "{X}? {Detail}, and {it} {is} {good} {closer}.",
        "There is a lot about {x}. {Detail}.",
    ),
)

SERIOUS_FOLLOW_UP = Frame(
    ("I don't know what to do.", "Thank you.", "It is really hard.", "I can't stop thinking about it."),
    (
        "One step at a time. I am here if you want to talk about {x}.",
        "Of course. Be gentle with yourself about {x}, and rest if you can.",
        "I hear you. With {x} on your mind, please talk to someone close too.",
    ),
)
