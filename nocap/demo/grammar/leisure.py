"""Free time: games, music, films, books, sport, hobbies, travel and weekend plans."""

from __future__ import annotations

from nocap.demo.grammar.frames import ACTIVITY, OPINION
from nocap.demo.grammar.model import Family, Frame, subjects

_GAMES = subjects(
    """
    chess: queen checkmate openings
        one lost queen can change everything; a quick checkmate feels amazing; the openings are fun to learn
    board games (plural): board dice
        rolling the dice makes everyone nervous; a board brings people to one table; the dice never listen to me
    Minecraft: creeper blocks diamonds
        you can build anything from blocks; finding diamonds never gets old; a creeper always shows up too early
    racing games (plural): racing lap tracks
        the last lap is always close; the night tracks look amazing; one perfect lap feels like flying
    puzzle games (plural): puzzle riddles
        clever riddles wake up your brain; a solved puzzle feels like a small win; the riddles get harder bit by bit
    card games (plural): cards deck shuffle
        a deck fits into every bag; every shuffle is a new start; bluffing with bad cards is half the joke
    platformers (plural): jumps jumping levels
        the jumps have to be perfect; hidden levels reward the curious; you just keep jumping until it works
    farming games (plural): farming crops harvest
        the harvest comes in every season; watering crops calms me down; you name every cow on the farming map
    escape rooms (plural): escape clues locks
        you hunt for clues with your team; the locks click open at the last second; the clues hide in plain sight
    arcade machines (plural): arcade coins joystick
        one more round only costs a few coins; the joystick takes a lot of abuse; old arcade lights look magical
    online shooters (plural): shooters aim lobby
        good aim takes weeks to learn; a full lobby is never quiet; your aim gets better every round
    trivia: quiz trivia
        a quiz shows what everyone remembers; the last part of a quiz is always the hardest; nobody expects the quiz
        about capitals
    """,
    verb="play",
)
_GAME_FRAMES = (
    Frame(
        ("I lost at {x} again.", "I keep losing at {x}."),
        (
            "Unlucky! {X} can be {very} {bad} like that.",
            "{Opener}, you will win at {x} next time. {Detail}.",
            "Losing at {x} happens to everyone, that is {very} normal.",
        ),
    ),
    Frame(
        ("I finally won at {x}!", "I am getting good at {x}."),
        (
            "{Good}! Winning at {x} feels {very} {good}.",
            "Well done! With {x}, {detail}, so that is {good}.",
            "{Yes}, you are a {x} champion now, {very} {good}.",
        ),
    ),
)

_MUSIC = subjects(
    """
    jazz: saxophone improvise
        the saxophone sounds like late evenings; the players improvise every time; a soft saxophone warms up the room
    rock music: rock riffs drummer
        the riffs stay in your head; a loud drummer wakes everyone up; the old riffs still work
    rap: rhymes verses flow
        the rhymes are clever; a good flow sounds effortless; the best verses tell a story
    classical music: classical orchestra violins
        a full orchestra gives me goosebumps; the violins make you dream; an orchestra needs no words
    techno: bass rave
        the bass shakes your chest; the bass never stops; you forget the clock at a rave
    folk songs (plural): folk banjo fiddle
        the banjo sounds so happy; a fiddle makes everyone clap; the whole village knows the fiddle part
    pop songs (plural): pop chorus catchy
        the chorus stays with you all day; they are just so catchy; everyone sings the chorus together
    country music: country cowboy boots
        there is always a cowboy in the story; people dance to it in boots; a lonely cowboy sings about his truck
    piano music: piano keys pianist
        a pianist can make a whole hall go quiet; the low keys sound like thunder; a calm pianist helps me focus
    live concerts (plural, go to live concerts): concerts stage encore
        the encore is always the loudest part; the lights on the stage are beautiful; you see the band on a real stage
    film soundtracks (plural): soundtracks score theme
        a good score carries every scene; the main theme gives me chills; you hear the theme and see the hero
    karaoke (sing karaoke): microphone duet
        nobody wants to give back the microphone; a bad duet is the best duet; a microphone makes shy people brave
    """,
    verb="listen to",
)
_MUSIC_FRAMES = (
    Frame(
        ("I have {x} on repeat.", "My neighbours hate my {x}.", "Is {x} good for studying?"),
        (
            "{Opener}, {x} {is} {very} {good} all day long.",
            "{X}? {Detail}, so I get it, {very} {good}.",
            "{Yes}, {x} {is} {good} at any volume {closer}.",
        ),
    ),
)

_FILMS = subjects(
    """
    horror films (plural): horror scary ghosts
        the scary parts make everyone scream; I hide from the ghosts under a blanket; the ghosts never knock first
    romantic comedies (plural): romantic comedies kiss
        they always kiss at the airport; the romantic mix-ups are silly; you wait the whole time for one kiss
    cartoons (plural): animated drawings
        the drawings are full of colour; an animated cat can survive anything; animated heroes never get old
    documentaries (plural): documentary narrator
        the narrator has a calm voice; one documentary teaches more than a week of news; a good narrator makes snails
        exciting
    superhero films (plural): superhero cape villain
        the villain has the best lines; everyone wants a cape at some point; a cape makes every walk dramatic
    westerns (plural): sheriff duel saloon
        the sheriff never blinks; there is always a duel at noon; a fight breaks out in the saloon
    detective shows (plural): detective murderer suspects
        I never guess the murderer; the suspects all look guilty; the detective notices every little thing
    cooking shows (plural): chef judges apron
        the judges taste everything twice; one chef always burns something; the chef runs out of minutes
    anime: manga subtitles
        the openings and subtitles are a joy; most of it starts as a manga; you read subtitles and still cry
    space films (plural): spaceship galaxy astronaut
        the spaceship is always falling apart; one tired astronaut saves everyone; a whole galaxy fits on the screen
    silent films (plural): silent pantomime
        the pantomime says it all; the actors are silent and still tell jokes; every face is a pantomime
    the cinema (go to the cinema): cinema trailers seats
        the trailers alone are worth it; the seats are soft and the room is dark; trailers make me want to come back
    """,
    verb="watch",
)
_FILM_FRAMES = (
    Frame(
        ("I fell asleep during {x}.", "Can you recommend {x}?", "Who watches {x} these days?"),
        (
            "{Opener}, {x} can be {boring} late at night.",
            "I do recommend {x}, {it} {is} {very} {good}.",
            "{X} {is} {very} {good} with friends, {detail}.",
        ),
    ),
)

_BOOKS = subjects(
    """
    fantasy novels (plural): fantasy dragons wizard
        the dragons steal every scene; a grumpy wizard fixes everything; there is a map with dragons on page one
    comics (plural): panels comic
        the panels move like a film; one comic takes ten minutes; you can look at the panels for hours
    poetry: poems poem
        a short poem can say a lot; some poems stay for years; you can read a poem on the bus
    crime thrillers (plural): thrillers thriller twist
        the twist comes when you feel safe; a thriller keeps you up until three; nobody sees the twist coming
    biographies (plural): biography famous
        you see how famous people failed first; a biography is gossip with footnotes; famous lives look messy up close
    fairy tales (plural): fairy tales witch prince
        the witch is the most interesting one; the prince is always late; even the witch has her reasons
    science fiction: aliens fiction
        the aliens are often nicer than us; the aliens ask good questions; aliens make you think about people
    cookbooks (plural): cookbook recipes photos
        the photos make me hungry; I never follow the recipes exactly; a cookbook is a present that feeds you
    audiobooks (plural, listen to audiobooks): audiobook headphones voices
        you can clean with headphones on; the reader does all the voices; one audiobook makes the bus ride short
    the library (go to the library): library shelves librarian
        the librarian knows every corner; it is quiet between the shelves; you leave the shelves with ten free books
    """,
    verb="read",
)

_SPORT = subjects(
    """
    football: goal goals penalty
        a late goal makes everyone jump; a penalty is pure stress; ten goals in one match is chaos
    basketball: dunk hoop
        a dunk wakes up the whole hall; all you need is a ball and a hoop; the hoop looks higher every year
    tennis: racket serve
        a hard serve is impossible to read; my racket has seen better days; one good serve wins the point
    swimming (go swimming): pool goggles
        the pool clears your head; my goggles are always foggy; the pool is empty early in the day
    running (go running): jogging shoes marathon
        you only need shoes and a door; a marathon starts with one street; slow jogging still counts
    cycling (go cycling): bike pedals helmet
        a bike takes you everywhere; the helmet ruins your hair but saves your head; the pedals do not care about
        traffic
    yoga (do yoga): stretching poses mat
        stretching helps a stiff back; the poses look easier than they are; you can nap on the mat afterwards
    climbing (go climbing): rope boulder grip
        you trust the rope and your friends; your grip is gone after an hour; every boulder is a little puzzle
    skiing (go skiing): slopes skis lift
        the slopes are empty at nine; a ride on the lift is the best view; my skis have their own plans
    boxing: gloves punch ring
        every punch lets out some stress; the gloves smell but you feel strong; the ring teaches you respect
    volleyball: net spike sand
        a clean spike sounds perfect; falling in the sand does not hurt; the net is always too high for me
    skateboarding (go skateboarding): skateboard ramp
        a new ramp takes a hundred falls; the ramp is full of nice people; a skateboard makes every street a park
    table tennis: paddle topspin
        the topspin is hard to return; a paddle costs almost nothing; everyone fights about the good paddle
    """,
    verb="play",
)
_SPORT_FRAMES = (
    Frame(
        ("My team lost in {x}.", "I hurt my arm at {x}.", "I am out of breath after {x}."),
        (
            "Oh no, {x} can be {very} {bad} like that. Rest a bit.",
            "Sorry to hear it, {x} {is} tough. Next time goes better.",
            "{Opener}, {x} takes a lot of energy. Drink some water.",
        ),
    ),
)

_HOBBIES = subjects(
    """
    painting (go painting): paint brush canvas
        a white canvas is full of promise; the paint ends up on my sleeves; a cheap brush works just fine
    knitting: wool scarf yarn
        the scarf gets longer every evening; soft wool calms the hands; good yarn costs more than lunch
    gardening: seeds soil flowers
        you put seeds down and wait; the flowers come back each spring; dark soil under your nails feels honest
    photography: camera lens portrait
        a camera makes you look closer; a good portrait shows the whole person; the light in the lens is magic
    baking: oven dough flour
        the oven warms the whole flat; flour gets everywhere; the dough needs patience and so do you
    pottery: clay vase wheel
        wet clay feels great; the vase is always a bit crooked; the wheel spins and you relax
    origami: paper folding crane
        one sheet of paper becomes a crane; the folding keeps your hands busy; a crane on every desk looks pretty
    stargazing (go stargazing): telescope stars comet
        the stars make problems small; a cheap telescope shows a lot; you might catch a comet
    woodworking: wood saw chair
        fresh wood smells lovely; my first chair had three legs; the saw sounds like progress
    birdwatching (go birdwatching): birds binoculars owl
        an owl looked right at me once; the birds do not mind you; binoculars turn a walk into a hunt
    guitar practice: guitar strings chords
        three chords are enough for a song; new strings sound so bright; your guitar never judges you
    magic tricks (plural): magician sleeve
        a magician never tells; the coin was in the sleeve all along; every child wants to be a magician
    """,
    verb="do",
)

_TRAVEL = subjects(
    """
    Japan: Tokyo shrine
        Tokyo never sleeps; a quiet shrine hides behind every corner; the trains in Tokyo are on time
    Italy: Rome gelato
        the gelato alone is worth it; Rome is full of old stones and cats; you can walk through Rome for days
    Iceland: geysers glaciers
        the geysers shoot up without warning; the glaciers are blue inside; there are more glaciers than cities
    Paris: Eiffel croissant
        a warm croissant starts the day; the Eiffel tower sparkles after dark; a fresh croissant costs almost nothing
    London: Thames underground
        the Thames is lovely in the evening; the underground takes you everywhere; a walk along the Thames is free
    New York: Brooklyn skyscrapers
        the skyscrapers hurt your neck; Brooklyn has the best corners; you get lost between skyscrapers
    Egypt: pyramids camels
        the pyramids are older than any story; the camels are moody; the pyramids look unreal up close
    Brazil: carnival samba
        the carnival is one huge party; samba plays on every street; nobody sits still at the carnival
    the beach (go to the beach): beach seashells waves
        the waves calm you down; I collect seashells every time; the waves wash away a bad week
    the mountains (plural, go to the mountains): mountains peak valley
        the view from the peak is huge; the valley is full of fog early on; you feel tiny in that valley
    train rides (plural, go on train rides): train rails conductor
        the rails sing you to sleep; a kind conductor makes the day; you see the land from the train
    camping (go camping): tent campfire
        the campfire smell stays for days; rain on the tent is cosy; stories by the campfire get wilder
    """,
    verb="travel to",
)

_WEEKEND = subjects(
    """
    the park: park bench ducks
        the ducks expect bread; there is always a free bench; the ducks run the place
    the museum: museum dinosaur mummy
        the dinosaur bones are huge; the mummy gives me chills every time; the dinosaur hall is empty on Sundays
    the zoo: zoo penguins giraffe
        the penguins walk in a line; the giraffe has a purple tongue; you can watch the penguins get fed
    the flea market: flea bargain antiques
        you always find one bargain; the antiques have stories; a bargain feels like a trophy
    barbecues (plural, have a barbecue): barbecue grill sausages
        the grill brings everyone together; the sausages are always a bit black; someone always guards the grill
    birthday parties (plural, throw a birthday party): birthday confetti balloons
        the confetti stays for weeks; the balloons last longer than the cake; everyone goes home with confetti in
        their hair
    picnics (plural, have a picnic): picnic basket ants
        the ants come to every meal; a full basket tastes better outside; you can lie next to the basket and nap
    road trips (plural, take a road trip): road petrol playlist
        the playlist makes or breaks it; you stop for petrol and strange snacks; a long road is good for talking
    the amusement park: rollercoaster carousel
        the rollercoaster makes you scream; the old carousel is still pretty; you queue an hour for the rollercoaster
    sleepovers (plural, have a sleepover): sleepover pillows whispers
        throwing pillows is a must; the whispers go on until four; nobody sleeps and the pillows suffer
    the farm shop: farm eggs honey
        the eggs are still warm; the honey tastes like summer; fresh eggs beat everything
    """,
    verb="go to",
)

FAMILIES = (
    Family("games", _GAMES, (*OPINION, *ACTIVITY, *_GAME_FRAMES)),
    Family("music", _MUSIC, (*OPINION, *ACTIVITY, *_MUSIC_FRAMES)),
    Family("films", _FILMS, (*OPINION, *ACTIVITY, *_FILM_FRAMES)),
    Family("books", _BOOKS, (*OPINION, *ACTIVITY)),
    Family("sport", _SPORT, (*OPINION, *ACTIVITY, *_SPORT_FRAMES)),
    Family("hobbies", _HOBBIES, (*OPINION, *ACTIVITY)),
    Family("travel", _TRAVEL, (*OPINION, *ACTIVITY)),
    Family("weekend", _WEEKEND, (*OPINION, *ACTIVITY)),
)
