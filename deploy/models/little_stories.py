"""Little stories in plain modern English, written by a grammar.

The novels that the small base model learns from are two hundred years old. So that it also knows
short, simple, present-day sentences, and how a conversation looks, this module makes up stories,
questions and answers. The text is written for this project and carries the project's licence.

A pattern is ordinary text with choices: `{a|b}` is one of them (choices nest), `$hero` is a value
of the story, `$Hero` the same with a capital.
"""

import random
import re
from typing import Dict, Iterator, List, Tuple

GIRLS = "Lily Anna Mia Rosa Ella Grace Clara Nora Ruby Alice Hannah Emma Sophie Maya Iris June Zoe Lucy".split()
BOYS = "Tom Ben Max Sam Leo Jack Oscar Finn Henry Theo Noah Peter Owen Adam Hugo Felix Will Toby".split()
ANIMALS = ("fox rabbit mouse bear duck owl frog hedgehog squirrel cat dog pony goose turtle lamb crow "
           "beaver otter badger goat hen pig sparrow mole").split()
PLACES = ("in a small village by the sea|at the edge of a dark forest|in a little house on a hill|near a wide "
          "blue river|on a farm with a red barn|in a quiet town between two mountains|under the roots of an old "
          "oak tree|beside a pond full of reeds|in a valley where it often snowed|on a green island").split("|")
THINGS = ("ball|kite|lantern|hat|drum|boat|book|key|bell|basket|scarf|whistle|map|mirror|blanket|"
          "spoon|ring|clock|flute|cup").split("|")
LOOKS = "red blue green golden little old shiny silver wooden round yellow white".split()
FOODS = ("bread|apples|honey cake|soup|berries|cheese|pancakes|carrots|plums|nuts|porridge|pears|cookies").split("|")
MOODS = "kind brave clever shy cheerful curious quiet gentle lazy proud careful hungry".split()
FEARS = "the dark|thunder|deep water|high places|the big dog next door|strangers".split("|")
WEATHER = ("The sun was shining|It was raining|A cold wind was blowing|Snow was falling|The sky was grey|"
           "It was a warm evening|The morning was bright and clear|Fog lay over the fields").split("|")
MORALS = ("a friend is better than a treasure|it is good to share|you should ask before you take|small steps "
          "go a long way|it is never too late to say sorry|being afraid is not the same as being weak|work goes "
          "faster with two|a kind word costs nothing|it is best to tell the truth|patience brings its own reward"
          ).split("|")

OPENINGS = [
    "{Once upon a time|Long ago|Once|One day}, there {lived|was} a $mood $kind {named|called} $hero. $He lived $place.",
    "$Hero was a $mood $kind who lived $place.",
    "There was {once|} a $mood $kind {named|called} $hero, and $he lived $place with $his {mother|father|"
    "grandmother|three brothers|sister}.",
]

PLOTS: List[List[str]] = [
    [  # something is lost
        "$Hero had a $look $thing. It was $his favourite {thing in the world|toy|present}, and $he took it "
        "everywhere.",
        "{One morning|One day|After breakfast|On a Sunday}, $he {looked for|wanted to play with} the $thing, but "
        "it was {gone|not there}. \"Where is my $thing?\" {said|asked|cried} $hero.",
        "$He looked under the {bed|table|stairs} and behind the {door|curtain|big chair}, but $he could not find "
        "it. $Hero began to {cry|worry}.",
        "{Then|Just then|Soon} $his friend $friend{, a $fmood $fkind,|} came by. \"Why are you so sad?\" asked "
        "$friend. \"I have lost my $thing,\" said $hero.",
        "\"{Do not worry|Do not cry},\" said $friend. \"I will help you {look|look for it|find it}.\" So they "
        "looked {in the garden|by the river|in the kitchen|under the trees} together.",
        "{At last|After a long time|In the end} $friend saw something {shine|move} in the {grass|leaves|mud}. It "
        "was the $look $thing!",
        "$Hero was very happy. \"Thank you, $friend!\" $he said. \"You are {my best friend|a good friend|very "
        "kind}.\" {And they played together until the sun went down.|Then they went home and ate $food.}",
    ],
    [  # a new friend
        "$Hero {was lonely|had no one to play with|wished for a friend}. Every day $he {sat by the window|walked "
        "alone|watched the clouds}.",
        "One day a new $fkind came to live {next door|nearby|across the road}. $Fhis name was $friend. $Friend "
        "looked {a little strange|very different|sad}, and {nobody|no one} wanted to talk to $fhim.",
        "$Hero {took some $food|picked some flowers|put on $his best hat} and {knocked on the door|walked over}. "
        "\"Hello,\" said $hero. \"My name is $hero. {Would you like|Do you want} to play?\"",
        "$Friend {smiled|looked surprised|was so happy that $fhe jumped}. \"Yes, please!\" said $friend. \"I have "
        "a $look $thing. We can {share it|play with it together}.\"",
        "They played {all day|until dinner|for hours}. They ran up the hill, and they {rolled down again|sat in "
        "the sun}. When it was time to go home, $friend said, \"Will you come again tomorrow?\"",
        "\"{Of course|Yes|I will come every day},\" said $hero. And from that day $he was never lonely again.",
    ],
    [  # afraid
        "$Hero was afraid of $fear. When the others {laughed|played outside}, $he stayed {at home|in bed|behind "
        "the door}.",
        "$Weather when $his friend $friend came running. \"{Help|Come quickly}!\" said $friend. \"{My little "
        "brother|The baby $fkind|My $thing} has fallen into the {well|river|pond|hole}!\"",
        "$Hero {trembled|did not know what to do}. $He thought of $fear, and $his {knees|legs|hands} began to "
        "shake. But $he also thought of $friend.",
        "\"I am coming,\" said $hero. $He took a {long rope|strong branch|deep breath} and ran as fast as $he "
        "could.",
        "{It was not easy|It took a long time}, but {they pulled together|$hero did not let go}, and at last "
        "{everyone was safe|it was done}.",
        "\"You are {so|very} brave,\" said $friend. \"No,\" said $hero, \"I was afraid the whole time.\" \"That "
        "is what brave means,\" said {$friend|$his mother|the old owl}.",
    ],
    [  # sharing
        "{One day|One winter day|In the autumn} $hero had {a big basket of|a plate of|plenty of} $food. It smelled "
        "{wonderful|so good}. \"I will eat {it all|everything} myself,\" $he thought.",
        "On the {road|path|bridge} $he met $friend{, a hungry $fkind|}. \"{Please|Dear $hero}, may I have some?\" "
        "asked $friend. \"I have not eaten {all day|since yesterday}.\"",
        "\"No,\" said $hero. \"It is mine.\" And $he walked on. But the {basket|food} {grew heavy|did not taste "
        "good}, and $hero felt {bad|sad|ashamed}.",
        "{After a while|That evening} $he turned around and went back. $Friend was {still there|sitting under a "
        "tree}. \"I am sorry,\" said $hero. \"Let us eat together.\"",
        "So they sat down and ate the $food, and it was the best {meal|dinner} they {ever|had ever} had.",
        "{The next day|A week later} $friend came with {a gift|a $look $thing}. \"This is for you,\" said $friend, "
        "\"because you came back.\"",
    ],
    [  # growing
        "In the spring $hero found a {tiny|strange|round} seed. \"What will it be?\" $he asked. \"{Plant it|Put it "
        "in the ground} and {wait|see},\" said $friend{, the $fmood $fkind|}.",
        "$Hero planted the seed {in the garden|in a pot|by the gate} and gave it water. $He waited one day. $He "
        "waited two days. Nothing happened.",
        "\"{This is no good|It will never grow},\" said $hero. \"{Be patient|Wait a little},\" said $friend.",
        "$Weather, and the days went by. Then, one morning, there was a small green leaf. $Hero {danced|shouted "
        "with joy|ran to tell $friend}.",
        "All summer the plant grew, {higher than the fence|taller than $hero|up to the roof}. In the autumn it was "
        "full of {apples|yellow flowers|sweet pears|red berries}.",
        "\"You see,\" said $friend, \"{good things take time|a little care each day is enough}.\" And $hero gave "
        "$fhim {the first one|half of them}.",
    ],
    [  # the race or contest
        "Every year there was a {race|great race} {around the lake|through the forest|to the top of the hill}. "
        "$Friend, {the fastest $fkind|a proud $fkind}, always won.",
        "\"I will {run|race} this year,\" said $hero. Everyone laughed. \"You? You are too {slow|small|young}!\" "
        "said $friend.",
        "But every morning, when the others were asleep, $hero {practised|ran to the mill and back}. $Weather, but "
        "$he did not stop.",
        "On the day of the race, $friend ran {ahead|far ahead} and {stopped to eat $food|lay down in the shade|"
        "waved to the crowd}. $Hero went on, step by step.",
        "When $friend {woke|looked up|turned around}, $hero was almost there. $Friend ran as fast as $fhe could, "
        "but it was too late. $Hero had won!",
        "\"How did you do it?\" asked $friend. \"I {just|simply} did not stop,\" said $hero. They shook hands, and "
        "{everyone cheered|from then on they practised together}.",
    ],
    [  # the stranger or the magic thing
        "$Weather. $Hero was walking {home|to the market|through the woods} when $he found a $look $thing {on the "
        "road|under a bush|in the snow}.",
        "\"{Take me|Pick me up},\" said the $thing{ in a small voice|}, \"and I will give you one wish.\" $Hero "
        "{could not believe it|jumped back|was so surprised that $he sat down}.",
        "$He thought about {gold|a castle|a hundred cakes}. $He thought about {a horse|a ship|new shoes}. Then $he "
        "thought of $friend, {who was ill|who was far away|who had lost $fhis home}.",
        "\"I wish that $friend were {well again|here|happy},\" said $hero. The $thing {shone|rang|laughed} and was "
        "gone.",
        "When $hero came home, there stood $friend at the door, {smiling|with a bowl of $food|as healthy as ever}. "
        "\"I had {such a strange dream|a dream about you},\" said $friend.",
        "$Hero never told {anyone|a soul} about the wish, but $he {smiled whenever $he thought of it|was glad all "
        "$his life}.",
    ],
    [  # a day out
        "\"Let us go to the {sea|lake|market|mountains} today,\" said $hero. $Friend {clapped|put on $fhis hat|was "
        "ready at once}. They took {some $food|a $look $thing|a big umbrella} and set off.",
        "$Weather. They walked {past the mill|over the bridge|along the river|through the fields}, and they sang "
        "{a song|all the way}.",
        "{Then|Suddenly|Soon after} they came to a place where the road was {blocked by a tree|under water|"
        "gone}. \"What shall we do now?\" asked $friend.",
        "\"{I have an idea|I know},\" said $hero. {They built a small bridge of branches.|They made a raft of old "
        "wood.|They climbed over it, one after the other.}",
        "On the other side they found {a quiet beach|a field of flowers|an old tower}. They ate their $food and "
        "{watched the birds|looked at the clouds|slept in the shade}.",
        "It was {dark|late|almost night} when they came home, {tired|wet|muddy} but happy. \"That was the best "
        "day {ever|of the year},\" said $friend.",
    ],
]

ENDINGS = [
    "", "", "", " {And so|That is how} $hero learned that $moral.", " The end.", " And they lived happily ever after.",
    " Since that day everyone {in the village|there} knows that $moral.",
]

REQUESTS = [
    "Tell me a story about a $kind.", "Tell me a story.", "Can you tell me a {short|} story about $hero?",
    "Please tell me {a story|something} about a $kind and a $fkind.", "I want {to hear|} a story about a $thing.",
    "Write a {short|little} story about a $mood $kind.", "Do you know a story about {friends|a $kind named $hero}?",
]

FACTS: List[Tuple[str, str]] = [tuple(line.split(" = ")) for line in """
the sky = blue|grass = green|snow = white|the sun = yellow|coal = black|a ripe tomato = red|milk = white
|a lemon = yellow|an elephant = grey|a carrot = orange|the sea = blue|a raven = black|a plum = purple|a cloud = white
""".replace("\n", "").strip("|").split("|")]
HOMES = dict(fox="in a den", rabbit="in a burrow", bear="in a cave", duck="near the water", owl="in a hollow tree",
             frog="in a pond", squirrel="in a tree", dog="with people", turtle="near the water", crow="in a nest",
             beaver="in a lodge by the river", otter="by the river", badger="in a sett", mole="under the ground",
             hen="in a coop", pig="in a sty", sparrow="in a nest", pony="in a stable", mouse="in a hole",
             hedgehog="under the leaves", cat="with people", goose="near the water", goat="on the hills",
             lamb="in the meadow")
EATS = dict(fox="mice and berries", rabbit="grass and clover", bear="fish, berries and honey", duck="water plants",
            owl="mice", frog="flies", squirrel="nuts and seeds", dog="meat and bones", turtle="leaves", crow="seeds",
            beaver="bark and leaves", otter="fish", badger="worms and roots", mole="worms", hen="corn", pig="roots",
            sparrow="seeds", pony="hay and oats", mouse="grain and cheese", hedgehog="beetles and slugs",
            cat="fish and mice", goose="grass", goat="leaves and grass", lamb="grass and milk")
SAYS = dict(dog="woof", cat="meow", duck="quack", hen="cluck", pig="oink", frog="croak", owl="hoot", crow="caw",
            lamb="baa", goose="honk", mouse="squeak", sparrow="chirp", pony="neigh", goat="bleat")
OPPOSITES = [pair.split("/") for pair in ("big/small hot/cold day/night up/down old/new fast/slow happy/sad "
             "open/closed wet/dry long/short rich/poor strong/weak high/low full/empty early/late hard/soft "
             "light/dark loud/quiet clean/dirty near/far").split()]
NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
SMALL_TALK = [
    ("{Hello|Hi|Good morning|Hello there}{!|.}", "{Hello|Hello there|Good day}! {How are you today?|How can I help you?|"
     "What would you like to talk about?}"),
    ("How are you{ today|}?", "{I am well, thank you.|Very well, thank you.|I am fine.} {And you?|How are you?}"),
    ("{What is your name?|Who are you?}", "{My name is Bios.|I am Bios, a {very small|tiny} language model.} {What is "
     "your name?|I like to tell stories.|}"),
    ("{What can you do?|How can you help me?}", "I can tell {little|short} stories and answer {simple|easy} questions. "
     "{Ask me for a story!|}"),
    ("{Thank you|Thanks}{!|.}", "{You are welcome!|It was a pleasure.|You are very welcome.}"),
    ("{Goodbye|Good night|See you tomorrow}{!|.}", "{Goodbye!|Good night, and sleep well.|See you soon!}"),
    ("My name is $hero.", "{Hello|Nice to meet you}, $hero! {How are you?|What would you like to hear?}"),
    ("I am {sad|tired|lonely} today.", "I am sorry to hear that. {Would you like to hear a story?|Perhaps a little rest "
     "will help.|I am glad that you told me.}"),
    ("I am {happy|so happy} today{!|.}", "{That is wonderful!|I am glad to hear that.} {What happened?|}"),
    ("What do you like?", "I like {stories about {animals|friends|the sea}|rainy days and warm soup|old books}."),
]


def expand(pattern: str, values: Dict[str, str], rng: random.Random) -> str:
    """Choose among the alternatives of `pattern` and put in the values."""
    while True:
        inner = re.search(r"\{([^{}]*)\}", pattern)
        if inner is None:
            break
        pattern = pattern[:inner.start()] + rng.choice(inner.group(1).split("|")) + pattern[inner.end():]
    text = re.sub(r"\$([A-Za-z]+)", lambda match: values[match.group(1)], pattern)
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    return re.sub(r"  +", " ", text).strip()


def cast(rng: random.Random) -> Dict[str, str]:
    """Choose who takes part in a story, and what it is about."""
    values: Dict[str, str] = {}
    for prefix, name, kind in (("", "hero", "kind"), ("f", "friend", "fkind")):
        girl = rng.random() < 0.5
        values[name] = rng.choice([n for n in (GIRLS if girl else BOYS) if n not in values.values()])
        values[kind] = rng.choice(ANIMALS) if rng.random() < 0.7 else ("girl" if girl else "boy")
        values[prefix + "mood"] = rng.choice(MOODS)
        pronouns = ("she", "her", "her") if girl else ("he", "his", "him")
        for word, pronoun in zip(("he", "his", "him"), pronouns):
            values[prefix + word] = pronoun
    values.update(place=rng.choice(PLACES), thing=rng.choice(THINGS), look=rng.choice(LOOKS), food=rng.choice(FOODS),
                  fear=rng.choice(FEARS), weather=rng.choice(WEATHER), moral=rng.choice(MORALS))
    values.update({key[0].upper() + key[1:]: value[0].upper() + value[1:] for key, value in list(values.items())})
    return values


def story(values: Dict[str, str], rng: random.Random) -> str:
    """Write one story, of one to three paragraphs."""
    parts = [expand(rng.choice(OPENINGS), values, rng)]
    parts += [expand(part, values, rng) for part in rng.choice(PLOTS)]
    text = parts[0]
    for part in parts[1:]:
        text += ("\n\n" if rng.random() < 0.25 else " ") + part
    return (text + " " + expand(rng.choice(ENDINGS), values, rng)).strip()


def answer(rng: random.Random) -> Tuple[str, str]:
    """Make one short question and its answer."""
    animal = rng.choice(ANIMALS)
    a = ("an " if animal[0] in "aeiou" else "a ") + animal
    kind = rng.randrange(9)
    if kind == 0:
        thing, colour = rng.choice(FACTS)
        return f"What colour is {thing}?", f"{thing[0].upper() + thing[1:]} is {colour}."
    if kind == 1:
        return f"Where does {a} live?", f"A{a[1:]} lives {HOMES[animal]}."
    if kind == 2:
        return f"What does {a} eat?", f"A{a[1:]} eats {EATS[animal]}."
    if kind == 3:
        animal = rng.choice(sorted(SAYS))
        a = ("an " if animal[0] in "aeiou" else "a ") + animal
        return f"What does {a} say?", f"A{a[1:]} says \"{SAYS[animal]}\"."
    if kind == 4:
        pair = rng.sample(rng.choice(OPPOSITES), 2)
        return f"What is the opposite of {pair[0]}?", f"The opposite of {pair[0]} is {pair[1]}."
    if kind == 5:
        x, y = rng.randrange(1, 7), rng.randrange(1, 7)
        return f"What is {NUMBERS[x]} and {NUMBERS[y]}?", f"{NUMBERS[x].capitalize()} and {NUMBERS[y]} is {NUMBERS[x + y]}."
    if kind == 6:
        day = rng.randrange(7)
        return f"What day comes after {DAYS[day]}?", f"After {DAYS[day]} comes {DAYS[(day + 1) % 7]}."
    values = cast(rng)
    question, reply = rng.choice(SMALL_TALK)
    return expand(question, values, rng), expand(reply, values, rng)


def documents(count: int, seed: int) -> Iterator[str]:
    """Yield `count` documents: stories, asked-for stories, and short conversations."""
    rng = random.Random(seed)
    for _ in range(count):
        values = cast(rng)
        choice = rng.random()
        if choice < 0.35:
            yield story(values, rng)
        elif choice < 0.65:
            yield f"<|user|>{expand(rng.choice(REQUESTS), values, rng)}<|assistant|>{story(values, rng)}"
        else:
            turns = [answer(rng) for _ in range(rng.randrange(1, 4))]
            yield "<|endoftext|>".join(f"<|user|>{q}<|assistant|>{a}" for q, a in turns)


if __name__ == "__main__":
    for document in documents(12, 7):
        print(document, end="\n----\n")
