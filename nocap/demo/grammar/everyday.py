"""Daily life: food, drinks, pets, weather, school, work, home, technology, clothes, nature, feelings, advice."""

from __future__ import annotations

from nocap.demo.grammar.frames import ACTIVITY, FACT, GUIDE, OPINION
from nocap.demo.grammar.model import Family, Frame, subjects

_FOOD = subjects(
    """
    pizza: cheese slice crust
        the cheese gets so stretchy; a cold slice works for breakfast too; the crust is the best part
    pasta: spaghetti noodles parmesan
        spaghetti takes only ten minutes; a pile of parmesan fixes it all; noodles make everyone happy
    sushi: wasabi salmon
        the wasabi goes up your nose; fresh salmon melts on the tongue; the salmon rolls are gone first
    tacos (plural): salsa tortilla
        the salsa makes it; a warm tortilla holds anything; half of the salsa lands on your shirt
    burgers (plural): bun patty ketchup
        a soft bun changes everything; the ketchup always drips; a crispy patty is hard to beat
    pancakes (plural): syrup batter
        the syrup runs over the plate; the first one from the batter always fails; warm syrup is a hug
    curry: spices spicy rice
        the spices fill the whole house; it is spicy but worth the tears; you can put it on rice for days
    soup: broth spoon bowl
        a hot bowl helps against a cold; good broth takes all afternoon; one spoon and you feel warm
    salad: lettuce dressing cucumber
        the dressing does all the work; crunchy lettuce is underrated; a cucumber from the garden is sweet
    chocolate: cocoa truffles
        dark cocoa is good for the mood; the truffles never last a day; a bit of cocoa fixes a long day
    ice cream: scoop vanilla cone
        one scoop is never enough; vanilla is a classic for a reason; the cone is the best bit
    popcorn: kernels butter salty
        the salty ones are the best; melted butter makes it special; the kernels stick in your teeth
    fries (plural): potato mayo
        mayo makes them go faster; a humble potato can do so much; mayo belongs on the side
    sandwiches (plural): bread toast ham
        good bread is half the deal; you can put anything on toast; ham and pickles are a team
    """,
    verb="eat",
)
_FOOD_FRAMES = (
    Frame(
        ("I burned the {x}.", "I ate way too much {x}.", "What do you need for {x}?"),
        (
            "{Opener}, that happens with {x}. {Detail}.",
            "{X} {is} still {very} {good} {closer}.",
            "Haha, {x} can be {very} {funny} like that. {Detail}.",
        ),
    ),
)

_DRINKS = subjects(
    """
    coffee: espresso caffeine
        the caffeine saves my mornings; a small espresso is enough; nothing starts without an espresso
    tea: teapot mint
        fresh mint smells lovely; a full teapot keeps you company; a teapot needs three minutes
    lemonade: lemons sour
        it is sour and sweet at once; real lemons make the difference; ten lemons fill one jug
    smoothies (plural): blender berries banana
        a banana makes it creamy; frozen berries do the trick; the blender wakes up everyone
    orange juice: orange vitamin
        there is so much vitamin in it; one orange fills half a glass; a vitamin boost never hurts
    sparkling water: sparkling bubbles fizzy
        the bubbles tickle; fizzy drinks wake you up; bubbles without sugar are a nice trick
    milkshakes (plural): milkshake straw strawberry
        the straw always gets stuck; strawberry is the right choice; a thick one breaks the straw
    iced matcha: matcha powder whisk
        the green powder looks pretty; you whisk it until it foams; the powder tastes like a meadow
    """,
    verb="drink",
)

_PETS = subjects(
    """
    cats (plural): purr whiskers kitten
        they purr when you least expect it; a kitten sleeps wherever it wants; the whiskers say it all
    dogs (plural): puppy tail bark
        the tail never stops wagging; a puppy makes every walk an adventure; they bark at their own shadow
    hamsters (plural): hamster cheeks
        the cheeks hold a whole meal; a hamster runs all night; those cheeks are always full
    parrots (plural): feathers squawk
        they squawk your secrets; the feathers look like a painting; a red one with green feathers said hi to me
    goldfish: aquarium fins
        an aquarium is calmer than a screen; the little fins are so graceful; an aquarium glows in the dark room
    rabbits (plural): bunny carrots hop
        a bunny does a happy hop; they leave the carrots and eat the cable; one bunny is never enough
    turtles (plural): turtle shell slowly
        the shell is a house to go; a turtle has all the patience; they slowly win every race
    horses (plural): saddle gallop mane
        a gallop feels like freedom; brushing the mane calms both of you; the saddle takes some practice
    snakes (plural): snake scales slither
        the scales are smooth and dry; they slither without a sound; a snake eats once a week
    guinea pigs (plural): guinea squeak hay
        they squeak when the fridge opens; a pile of hay is paradise; that squeak means dinner
    """,
)
_PET_FRAMES = (
    Frame(
        ("Should I get {x}?", "I want {x} so badly.", "Are {x} easy to keep?", "Do {x} make good pets?"),
        (
            "{Yes}, {x} {is} {very} {good} company.",
            "Think it over, {x} need time, but {detail}.",
            "{X}? {Yes}, {detail}, and that is {very} {good}.",
            "I like {x}, {detail}. Just plan some time for {them}.",
        ),
    ),
    Frame(
        ("My friend has {x}.", "I met some {x} today.", "I saw a video about {x}."),
        (
            "{Opener}, {x} {is} {very} {funny}, {detail}.",
            "{Good}! With {x}, {detail}.",
            "I bet {x} made you smile. {Detail}.",
        ),
    ),
)

_WEATHER = subjects(
    """
    rain: umbrella puddles rainy
        the puddles are made for jumping; I forgot my umbrella again; a rainy window is cosy
    snow: snowman snowflakes
        everyone builds a snowman; the snowflakes make it quiet; snowflakes melt on your nose
    sunshine: sunny sunglasses
        a sunny hour lifts the mood; I can finally wear sunglasses; sunny days make people smile
    fog: foggy mist
        the mist hides the whole street; a foggy field looks like a dream; everything is softer in the mist
    thunderstorms (plural): thunder lightning
        the thunder shakes the windows; lightning lights up the whole sky; you count between lightning and bang
    wind: windy kite breeze
        a breeze clears your head; it is perfect for a kite; a windy day messes up all hair
    heat waves (plural): heat sweat fan
        I sweat just sitting here; the fan is my best friend; we all sweat together
    autumn: foliage pumpkins
        the foliage turns red and gold; there are pumpkins on every step; the foliage crunches under your feet
    frost: icy icicles
        the icy trees look like glass; the icicles hang from every roof; the icy car door is stuck
    rainbows (plural): rainbow colours
        the colours only last a minute; a rainbow makes everyone look up; all the colours show up at once
    """,
)
_WEATHER_FRAMES = (
    Frame(
        (
            "{X} again today.",
            "They say we get {x} {when}.",
            "Is there {x} where you are?",
            "What do you do when there is {x}?",
        ),
        (
            "{Opener}, {x}! {Detail}, so it is {good}.",
            "{X} can be {very} {good}, {detail}.",
            "With {x} I would stay in, {it} can be {very} {bad}.",
            "{X} {when}? {Very} {good} {closer}.",
        ),
    ),
)

_SCHOOL = subjects(
    """
    maths: equations algebra fractions
        equations are like little riddles; algebra makes sense after a while; fractions are just cake cut up
    history: ancient kings castles
        the ancient stories are wild; the kings were a mess; old castles had no heating
    chemistry: reactions acid laboratory
        the reactions change colour; you wear goofy coats in the laboratory; some acid eats through metal
    biology: cells microscope frogs
        the cells look like tiny cities; you see a new world in the microscope; your cells never take a break
    physics: gravity magnets atoms
        gravity explains why toast falls; magnets feel like magic; atoms are mostly empty
    geography: maps rivers continents
        maps show how big the world is; the continents still move; rivers decide where people live
    art class: sketch crayons
        a quick sketch is enough; crayons smell like childhood; nobody laughs at your sketch
    French lessons (plural): French vocabulary accent
        the accent sounds so elegant; ten words of vocabulary a day are enough; your accent gets better by talking
    homework: worksheet due
        one worksheet at a time works; it is always due on Monday; the last worksheet takes the longest
    group projects (plural): group slides
        one person makes all the slides; a good group shares the work; the slides are done at midnight
    exams (plural): revision flashcards
        flashcards help a lot; early revision takes away the fear; a bit of revision each day is enough
    the school canteen: canteen tray
        the tray is always wet; the canteen queue is where you meet people; nobody knows what is on the tray
    gym class: dodgeball whistle
        the whistle still scares me; dodgeball shows who your friends are; dodgeball is chaos with rules
    """,
)
_SCHOOL_FRAMES = (
    Frame(
        ("I have {x} tomorrow.", "I can't focus on {x}.", "How was {x} today?", "I got a good mark in {x}."),
        (
            "{X}? {Detail}, so it will be {good}.",
            "{Opener}, {x} can be {very} {boring}, but you can do it.",
            "{Good}! {X} {is} {very} {good} when it works.",
            "Take a short break, then {x} again. {Detail}.",
        ),
    ),
)

_WORK = subjects(
    """
    meetings (plural): agenda
        an agenda makes them half as long; half of them could skip the agenda; nobody reads the agenda
    my boss: boss manager promotion
        a fair manager is worth a lot; a promotion takes some patience; even a manager has bad days
    emails (plural): inbox
        the inbox never sleeps; an empty inbox lasts five minutes; nobody has a calm inbox
    night shifts (plural): shifts overtime
        the overtime pays well; the shifts are quiet after two; overtime makes you miss breakfast
    remote work: remote pyjamas webcam
        you can wear pyjamas below the webcam; remote days save the long commute; the webcam freezes at the worst
        moment
    job interviews (plural): interviews recruiter
        the recruiter is nervous too; interviews get easier each time; a kind recruiter makes it easy
    my internship: internship intern mentor
        a good mentor teaches you a lot; every intern makes the same mistakes; a mentor answers silly questions
    deadlines (plural): deadline calendar
        the deadline comes faster than you think; a calendar on the wall helps; every deadline moves once
    my colleagues (plural): colleagues coworker lunchroom
        one coworker always has snacks; the lunchroom is where you hear everything; a nice coworker changes the whole
        day
    the office: desk printer stapler
        the printer knows when you hurry; a tidy desk lasts one day; someone always takes my stapler
    """,
)
_WORK_FRAMES = (
    Frame(
        (
            "What do you think about {x}?",
            "I need to talk about {x}.",
            "{X} again, what a day.",
            "I am stressed because of {x}.",
        ),
        (
            "I hear you, {x} can be {very} {bad} {closer}.",
            "{Opener}, {x}? {Detail}, so take a breath.",
            "{X} can be {boring}, but {detail}.",
            "Let's talk about {x}. {Detail}.",
        ),
    ),
    Frame(
        ("I really like {x}.", "Good news about {x}!", "{X} made me laugh today."),
        (
            "{Good}! {X} sounds {very} {good}.",
            "I am happy for you, {x} {is} {good}. {Detail}.",
            "{X}? That is {very} {funny}. {Detail}.",
        ),
    ),
)

_HOME = subjects(
    """
    laundry: socks washing detergent
        one of the socks always disappears; the washing smells so fresh; socks are never in pairs
    the dishes (plural): dishes plates sponge
        the plates pile up on their own; a new sponge makes it easier; clean plates look so good
    vacuuming (go vacuuming): vacuum dust carpet
        the dust comes back in two days; a clean carpet feels new; the vacuum eats one sock a month
    grocery shopping (go grocery shopping): groceries supermarket cart
        the cart always has a bad wheel; never enter the supermarket hungry; the supermarket is empty at eight
    my bedroom (tidy up my bedroom): lamp messy
        a small lamp makes it cosy; a messy corner is part of it; a tidy bedroom helps you sleep
    houseplants (plural, buy houseplants): cactus watering leafy
        a cactus forgives everything; watering once a week is enough; a leafy corner makes you calm
    moving house (help with moving house): boxes van landlord
        the boxes never end; friends with a van are gold; you find lost things in the boxes
    cooking at home (try cooking at home): cooking pan garlic
        garlic makes everything better; one good pan is enough; the smell of garlic brings everyone in
    candlelight (sit in candlelight): candle wax flame
        one candle changes the room; a small flame is calming; the wax smells like winter
    """,
    verb="do",
)

_TECHNOLOGY = subjects(
    """
    phones (plural): phone battery ringtone
        the battery dies at noon; nobody likes a loud ringtone; the battery is never full when you need it
    laptops (plural): laptop keyboard
        the keyboard is full of crumbs; a laptop fits on every sofa; a good keyboard makes you type more
    the internet: wifi website router
        the wifi is gone when you need it; there is a website for everything; you restart the router and hope
    coding: program bug python
        one small bug costs a whole day; your first program feels like magic; you talk to a rubber duck about the bug
    video calls (plural): mute pixels
        someone is always on mute; the pixels hide your tired face; you are on mute is what we say most
    social media: posts followers scroll
        you scroll and an hour is gone; the followers are not all friends; the best posts are about food
    electric cars (plural): charging electric motor
        charging takes one lunch; the motor makes no noise; you plan the trip around charging
    smartwatches (plural): smartwatch pulse
        a smartwatch pushes you to walk more; it shows your pulse all day; the pulse goes up in every exam
    memes (plural): meme template caption
        one good caption saves the day; a meme is old after a week; every caption fits my life
    drones (plural): drone propellers
        a drone sees the town from above; the propellers sound like bees at work; the propellers break first
    """,
)
_TECHNOLOGY_FRAMES = (
    Frame(
        (
            "What's wrong with {x} these days?",
            "I spend too much time on {x}.",
            "Do we need {x}?",
            "I read an article about {x}.",
        ),
        (
            "{Opener}, {x} can be {very} {bad} sometimes, but {detail}.",
            "{X} {is} {good} in small doses {closer}.",
            "{X}? {Detail}, that is {very} {funny}.",
        ),
    ),
)

_CLOTHES = subjects(
    """
    sneakers (plural): laces soles
        white laces stay white for a day; the soles feel like clouds; old soles know every street
    hoodies (plural): hoodie hood
        a big hood hides bad hair; a hoodie is a blanket with sleeves; the hood is perfect on trains
    jeans (plural): denim pockets
        the pockets hold everything; old denim fits best; denim goes with anything
    hats (plural): brim beanie
        a beanie keeps the ears warm; a wide brim looks fancy; a beanie saves a bad hair day
    suits (plural): tie blazer
        the tie is a bit too tight; a blazer makes anyone look serious; nobody can tie a tie alone
    tattoos (plural, get tattoos): tattoo ink needle
        the ink tells a story; the needle is not that bad; a small tattoo is easy to hide
    earrings (plural): jewelry silver
        silver goes with everything; a bit of silver looks fancy; cheap jewelry can look great
    second-hand clothes (plural): thrift vintage
        every thrift shop hides a treasure; vintage jackets last forever; a thrift find costs less than lunch
    """,
    verb="wear",
)

_NATURE = subjects(
    """
    the moon: moon craters tides
        it makes the tides; the craters are older than us; people left footprints between the craters
    bees (plural): hive pollen nectar
        a hive has one ruler and many workers; they dance to show where the nectar is; the pollen sticks to their legs
    whales (plural): whale ocean
        a whale can sing for hours; a whale can hold its breath for an hour; the ocean carries their songs far
    volcanoes (plural): lava eruption
        the lava glows at night; an eruption can build an island; the lava turns into black rock
    octopuses (plural): octopus tentacles hearts
        they have three hearts; the tentacles can taste; an octopus can open a jar
    the sun: sun solar
        a solar storm can turn off radios; solar panels turn it into power; all solar power starts there
    trees (plural): roots branches oak
        the roots talk to each other; an oak can live five hundred years; the branches reach for light
    sharks (plural): shark teeth
        they grow new teeth all the time; a shark is older than any tree; their teeth fall out every week
    butterflies (plural): caterpillar wings cocoon
        the wings are full of tiny tiles; a caterpillar turns into soup first; the cocoon is a small miracle
    mushrooms (plural): fungi spores
        the spores travel with the wind; fungi are closer to us than plants; most fungi live under the ground
    deserts (plural): dunes oasis
        the dunes move every year; an oasis feeds a whole village; it gets cold on the dunes after sunset
    elephants (plural): elephant trunk herd
        the trunk can lift a tree; an elephant never forgets a friend; the oldest mother leads the herd
    wolves (plural): wolf howl pack
        they howl to find each other; the pack raises the pups together; a wolf can walk all night
    """,
)

_ADVICE = subjects(
    """
    sleep: bedtime nap
        a fixed bedtime helps; a short nap is better than none; no screen before bedtime
    saving money: money budget piggy
        a simple budget does wonders; a piggy bank still works; write down your budget every Sunday
    making friends: friendship smile strangers
        a smile opens most doors; ask strangers small questions; friendship needs time and small talk
    presentations (plural): audience speech
        the audience wants you to do well; a short speech is a good speech; practise the speech out loud
    procrastination: procrastinate timer
        a timer for ten minutes is enough to start; we all procrastinate sometimes; set a timer and just begin
    morning routines (plural): routine alarm
        put the alarm across the room; a routine of three things is enough; a kind alarm sound helps
    spelling: spell letters dictionary
        a dictionary is only one click away; read more and the letters stick; everyone forgets how to spell sometimes
    healthy eating: vegetables fruit healthy
        start with one fruit a day; frozen vegetables are just as good; put the fruit where you see it
    small talk: chatting compliment
        a compliment is a great start; chatting about the day is enough; people remember a compliment
    learning languages: languages grammar fluent
        songs teach you more than grammar; nobody is fluent after a month; speak early and ignore the grammar
    time management: schedule priorities
        three priorities a day are enough; a loose schedule works best; leave gaps in your schedule
    public transport: bus ticket metro
        a monthly ticket pays off; the metro beats the traffic; leave one bus earlier and relax
    """,
)

FAMILIES = (
    Family("food", _FOOD, (*OPINION, *ACTIVITY, *_FOOD_FRAMES)),
    Family("drinks", _DRINKS, (*OPINION, *ACTIVITY)),
    Family("pets", _PETS, (*OPINION, *FACT, *_PET_FRAMES)),
    Family("weather", _WEATHER, (*OPINION, *_WEATHER_FRAMES)),
    Family("school", _SCHOOL, (*OPINION, *_SCHOOL_FRAMES)),
    Family("work", _WORK, _WORK_FRAMES),
    Family("home", _HOME, (*OPINION, *ACTIVITY[:3])),
    Family("technology", _TECHNOLOGY, (*OPINION, *_TECHNOLOGY_FRAMES)),
    Family("clothes", _CLOTHES, (*OPINION, *ACTIVITY[:3])),
    Family("nature", _NATURE, (*OPINION, *FACT)),
    Family("advice", _ADVICE, GUIDE),
)
